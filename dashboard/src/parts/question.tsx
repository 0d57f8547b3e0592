import { useMemo, useState } from "preact/hooks";
import { ArrowRight, Check, Lock, Send, X } from "lucide-preact";
import { ApiError, now, send, type Schemas } from "../api/client";
import { useGet, useRefresh } from "../api/query";
import { useCommands } from "../keys";
import { answerOf, questionForm, type Form } from "../model/questions";
import { faultOf, type Draft, type Json, type Schema } from "../model/schema";
import { duration, exact } from "../model/time";
import { useBlocked, useIdentity, useMay } from "../session";
import { Segments } from "./controls";
import { SchemaForm } from "./schemaform";
import { Problem } from "./state";
import { Key, Shown, Time } from "./text";
import { toast } from "./toast";
import { Pairs } from "./value";
import "./question.css";

type Status = Schemas["ApprovalResponse"];

/** What an answer is for. */
export interface Asked {
  execution_id: string;
  step_key: string;
  workflow_id: string;
}

/** The inbox asks for it again when the live feed says so; the page of an execution with each new row. */
export function useQuestion(of: Asked | null) {
  return useGet(
    "/api/v1/approvals/{execution_id}/{step_key}",
    { params: { path: { execution_id: of?.execution_id ?? "", step_key: of?.step_key ?? "" } } },
    { enabled: of !== null },
  );
}

export function formOf(of: Asked, status: Status): Form {
  return questionForm(of.step_key, status.asked ?? status.data, status.answer_schema as Schema | null | undefined);
}

/** Form and buttons of an open question, or how it ended. */
export function Answering({ of, status, onAnswered, keys = true }: { of: Asked; status: Status; onAnswered?: () => void; keys?: boolean }) {
  if (status.state !== "open") return <Ended status={status} />;
  return <Open key={status.question} of={of} status={status} onAnswered={onAnswered} keys={keys} />;
}

function Ended({ status }: { status: Status }) {
  const answer = status.answer as Json | undefined;
  const approved = typeof answer === "object" && answer !== null && !Array.isArray(answer) ? answer.approved : answer;
  return (
    <div class="col gap12">
      <div class={`note ${status.state === "answered" ? (approved === false ? "p-failed" : "p-completed") : "p-cancelled"}`} role="status">
        {status.state === "answered" ? <Check size={16} aria-hidden="true" /> : <X size={16} aria-hidden="true" />}
        <span>
          {status.state === "answered" ? (
            <>
              {approved === true ? "Approved" : approved === false ? "Rejected" : "Answered"} first by{" "}
              <b>
                <Shown text={status.answered_by ?? "another client"} />
              </b>
              {status.answered_at != null && (
                <>
                  , <Time at={status.answered_at} />
                </>
              )}
              . The first answer stands.
            </>
          ) : status.state === "expired" ? (
            "This question expired without an answer."
          ) : (
            "The execution went on or ended without an answer."
          )}
        </span>
      </div>
      {status.state === "answered" && answer != null && <Pairs of={[["Answer", answer]]} />}
    </div>
  );
}

function Open({ of, status, onAnswered, keys }: { of: Asked; status: Status; onAnswered?: (() => void) | undefined; keys: boolean }) {
  const form = useMemo(() => formOf(of, status), [status.question]);
  const [mode, setMode] = useState<"form" | "json">(form.schema === null ? "json" : "form");
  const [draft, setDraft] = useState<Draft>(form.initial);
  const [text, setText] = useState("");
  const [touched, setTouched] = useState<ReadonlySet<string>>(new Set());
  const [tried, setTried] = useState(false);
  const [sending, setSending] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const may = useMay("write");
  const blocked = useBlocked("write");
  const refresh = useRefresh();

  const decides = mode === "form" && form.decides;
  const filled = answerOf(form, draft, decides ? true : null);
  const shown = tried ? filled.problems : new Map([...filled.problems].filter(([path]) => touched.has(path)));
  const fault = mode === "json" ? faultOf(text) : null;
  const edited = decides && form.arguments !== null && typeof filled.value === "object" && filled.value !== null && "arguments" in filled.value;

  const submit = async (approved: boolean | null) => {
    if (blocked !== undefined || sending) return;
    setTried(true);
    const answer = mode === "json" ? { value: fault === null ? (JSON.parse(text) as Json) : undefined, problems: new Map<string, string>() } : answerOf(form, draft, approved);
    if (answer.value === undefined || answer.problems.size > 0) {
      const first = [...answer.problems.keys()][0];
      const at = first === undefined ? "textarea" : `[data-path="${CSS.escape(first)}"] :is(input, select, textarea, button)`;
      return document.querySelector<HTMLElement>(`.question ${at}`)?.focus();
    }
    setSending(true);
    setError(null);
    const path = `/api/v1/approvals/${encodeURIComponent(of.execution_id)}/${encodeURIComponent(of.step_key)}/submit`;
    try {
      await send("POST", path, { data: answer.value, ...(status.question == null ? {} : { question: status.question }) });
      toast(`${approved === null ? "Answered" : approved ? "Approved" : "Rejected"}: ${form.title}`);
      onAnswered?.();
    } catch (problem) {
      if (!(problem instanceof ApiError && problem.status === 409)) setError(problem);
      setSending(false);
    }
    refresh("/api/v1/approvals", "/api/v1/executions");
  };
  const edit = () => document.querySelector<HTMLElement>(".question :is(input, textarea, select, [role=switch])")?.focus();
  useCommands(
    keys
      ? [
          ...(decides
            ? [
                { title: "Approve", key: "a", run: () => void submit(true) },
                { title: "Reject", key: "d", run: () => void submit(false) },
              ]
            : []),
          { title: "Edit the answer", key: "e", run: edit },
          { title: decides ? "Approve with the edits" : "Send the answer", key: "mod+enter", everywhere: true, run: () => void submit(decides ? true : null) },
          { title: "Leave the field", key: "escape", everywhere: true, quiet: true, run: () => (document.activeElement as HTMLElement | null)?.blur() },
        ]
      : [],
  );
  const turn = (next: "form" | "json") => {
    if (next === "json") setText(JSON.stringify(filled.value ?? null, null, 2));
    setMode(next);
  };
  return (
    <form
      class="question"
      onSubmit={(event) => {
        event.preventDefault();
        if (!decides) void submit(null);
      }}
    >
      {mode === "form" && form.schema !== null && (
        <SchemaForm word="Answer" root={form.schema} draft={draft} was={form.initial} onChange={setDraft} problems={shown} onTouch={(path) => setTouched(new Set([...touched, path]))} />
      )}
      {mode === "json" && (
        <label class="field">
          <span>Answer as JSON</span>
          <textarea class="input" spellcheck={false} value={text} placeholder={'{"approved": true}'} onInput={(event) => setText(event.currentTarget.value)} />
          {(tried || text !== "") && fault !== null && <small class="bad">{fault}</small>}
          {form.schema === null && <small>Its code does not say which fields it expects.</small>}
        </label>
      )}
      {error !== null && <Problem error={error} />}
      {blocked !== undefined && <p class="dim">{may ? blocked : "You may not answer: it needs the role write."}</p>}
      <div class="row wrap buttons">
        {decides ? (
          <>
            <button type="button" class="btn ok" disabled={blocked !== undefined || sending} title={blocked} onClick={() => void submit(true)}>
              {may ? <Check size={14} aria-hidden="true" /> : <Lock size={13} aria-hidden="true" />}
              {edited ? "Approve with edits" : "Approve"} {keys && <Key keys="a" />}
            </button>
            <button type="button" class="btn" disabled={blocked !== undefined || sending} title={blocked} onClick={() => void submit(false)}>
              <X size={14} aria-hidden="true" />
              Reject {keys && <Key keys="d" />}
            </button>
          </>
        ) : (
          <button type="submit" class="btn pri" disabled={blocked !== undefined || sending} title={blocked}>
            {may ? <Send size={14} aria-hidden="true" /> : <Lock size={13} aria-hidden="true" />}
            Send the answer {keys && <Key keys="mod+enter" />}
          </button>
        )}
        <span class="grow" />
        {form.schema !== null && (
          <Segments
            label="Answer as"
            of={
              [
                ["form", "Form"],
                ["json", "JSON"],
              ] as const
            }
            value={mode}
            onChange={turn}
          />
        )}
      </div>
      <Follows of={of} form={form} expiresAt={status.expires_at ?? null} />
    </form>
  );
}

/** What happens after an answer, and without one: only what the engine guarantees. */
function Follows({ of, form, expiresAt }: { of: Asked; form: Form; expiresAt: string | null }) {
  const identity = useIdentity();
  return (
    <div class="note follows">
      <ArrowRight size={16} aria-hidden="true" />
      <span>
        <b>What happens next.</b> Your answer is recorded with the name{" "}
        <b>
          <Shown text={identity.name} />
        </b>
        . The first answer stands. {form.arguments !== null && "If you approve, the call runs once, with exactly these arguments. "}
        {expiresAt === null ? (
          "The question does not expire."
        ) : (
          <>
            Without an answer by <time title={exact(expiresAt)}>{exact(expiresAt).replace(/:\d\d [A-Z+].*$/, "")}</time>{" "}
            {form.arguments !== null ? "the call counts as denied." : <>the code of <Shown text={of.workflow_id} /> gets a TimeoutError.</>}
          </>
        )}
      </span>
    </div>
  );
}

/** `41 min left` */
export function timeLeft(expiresAt: string): string {
  const left = Date.parse(expiresAt) - now();
  return left <= 0 ? "expired" : `${roughly(left)} left`;
}

/** At most two units, none below a minute but where nothing else is left. */
export function roughly(ms: number): string {
  if (ms < 60_000) return `${Math.max(1, Math.floor(ms / 1_000))} s`;
  return ms < 3_600_000 ? `${Math.floor(ms / 60_000)} min` : duration(Math.floor(ms / 60_000) * 60_000);
}
