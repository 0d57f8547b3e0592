import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { Bot, Hand, Plus, Send, UserRound, Wrench } from "lucide-preact";
import { get, send, type Schemas } from "../../api/client";
import { useGet, useRefresh } from "../../api/query";
import { useCommands } from "../../keys";
import { conversationOf, words, type Answer, type Call, type Entry, type Live, type Span } from "../../model/conversation";
import { brief } from "../../model/questions";
import type { Json } from "../../model/schema";
import { duration } from "../../model/time";
import { FINAL } from "../../model/timeline";
import { count, counted, money } from "../../model/words";
import { KINDS, RaiseDialog, USED_UP } from "../../parts/budget";
import { Segments } from "../../parts/controls";
import { Markdown } from "../../parts/markdown";
import { Phase, PhaseIcon } from "../../parts/phase";
import { Answering, useQuestion } from "../../parts/question";
import { Loaded, Problem } from "../../parts/state";
import { Key, Shown, Time } from "../../parts/text";
import { Value } from "../../parts/value";
import { useBlocked } from "../../session";
import { useTimeline, type Timeline } from "../execution/data";
import { useStream } from "./stream";
import "./conversation.css";

export interface Run {
  id: string;
  workflow_id: string;
  session_id?: string | null;
  user_id?: string | null;
  payload?: unknown;
  result?: unknown;
  error?: string | null;
  phase?: string;
  status?: string;
  created_at?: string;
  progress?: unknown;
}

const PAGE = 1_000;
/** Rows whose values are read. */
const ROWS_MAX = 10_000;

/** The values of a journal's rows. Each is read once. */
function useValues(id: string, lastSeq: number): { values: ReadonlyMap<number, Json>; read: number; error: unknown; again: () => void } {
  const state = useRef({ values: new Map<number, Json>(), read: 0, wanted: 0, busy: false });
  const [, draw] = useReducer<number, void>((n) => n + 1, 0);
  const [error, setError] = useState<unknown>(null);
  const [tries, again] = useReducer<number, void>((n) => n + 1, 0);
  const ending = useRef<AbortController | null>(null);
  useEffect(() => {
    const { signal } = (ending.current = new AbortController());
    return () => ending.current?.abort(signal.reason);
  }, [id]);
  useEffect(() => {
    const known = state.current;
    known.wanted = Math.min(lastSeq, ROWS_MAX);
    const { signal } = ending.current!;
    const catchUp = async () => {
      while (known.read < known.wanted && !signal.aborted) {
        const page = await get("/api/v1/executions/{execution_id}/steps", { params: { path: { execution_id: id }, query: { after: known.read, limit: PAGE } } }, signal);
        for (const row of page.steps) known.values.set(row.seq, row.value as Json);
        known.read = page.steps.at(-1)?.seq ?? known.wanted;
      }
      setError(null);
      draw();
    };
    if (known.busy || known.read >= known.wanted) return;
    known.busy = true;
    catchUp()
      .catch((problem: unknown) => signal.aborted || setError(problem))
      .finally(() => (known.busy = false));
  }, [id, lastSeq, tries]);
  return { ...state.current, error, again };
}

interface Props {
  execution: Run;
  nested?: boolean;
  turn?: boolean;
  /** The rows, if the page follows them already. */
  timeline?: Timeline;
}

/** An agent's run: what was said and called, what it cost, and the field for the next message. */
export default function Conversation(props: Props) {
  return props.timeline === undefined ? <Followed {...props} /> : <Talk {...props} timeline={props.timeline} />;
}

const isOpen = (execution: Run) => !FINAL.has(execution.phase ?? execution.status ?? "");

function Followed(props: Props) {
  const open = isOpen(props.execution);
  return <Talk {...props} timeline={useTimeline(props.execution.id, open, open)} />;
}

function Talk({ execution, nested = false, turn = false, timeline }: Props & { timeline: Timeline }) {
  const open = isOpen(execution);
  const { journal, version } = timeline;
  const { values, read, error, again } = useValues(execution.id, journal.lastSeq);
  const live = useStream(execution.id, open && !nested, (item) => {
    if (["question", "function_tool_result", "final_result"].includes(item.kind)) timeline.look();
  });
  const entries = useMemo(() => conversationOf([...journal.spans.values()] as Span[], values as Map<number, Json>), [version, read]);
  const loaded = read > 0 || (journal.whole && journal.lastSeq === 0);
  return (
    <div class={turn ? "talk turnof" : "talk"}>
      <div class="said" aria-label="Conversation">
        <Loaded of={{ data: loaded ? entries : undefined, error: timeline.error ?? error, refetch: () => (timeline.look(), again()) }}>
          {(entries) => (
            <>
              <Messages execution={execution} entries={entries} live={live} nested={nested} open={open} />
              {journal.lastSeq > ROWS_MAX && <p class="dim">The conversation is longer than this page shows. The journal has the rest.</p>}
            </>
          )}
        </Loaded>
        {!nested && !turn && <NextMessage execution={execution} />}
      </div>
      {!nested && !turn && (
        <aside aria-label="About this run">
          <BudgetPart id={execution.id} open={open} />
          <UsagePart id={execution.id} />
          <Turns execution={execution} />
          <Tools agent={execution.workflow_id} />
        </aside>
      )}
    </div>
  );
}

function Messages({ execution, entries, live, nested, open }: { execution: Run; entries: Entry[]; live: ReadonlyMap<string, Live>; nested: boolean; open: boolean }) {
  const asked = words(execution.payload as Json);
  const said = entries.some((one) => one.kind === "answer" && one.texts.length > 0);
  const early = open ? null : (execution.progress as { stopped?: string; text?: string } | null | undefined);
  const known = new Set(entries.filter((one) => one.kind === "answer" && (one.texts.length > 0 || one.calls.length > 0)).map((one) => `${execution.id} ${(one as Answer).key}`));
  const streams = open ? [...live].filter(([name, one]) => name.startsWith(execution.id) && !known.has(name) && (one.text !== "" || one.withdrawn !== "")) : [];
  return (
    <>
      {asked !== "" && <UserMessage text={asked} at={execution.created_at ?? null} by={execution.user_id ?? null} />}
      {entries.map((entry, at) => {
        switch (entry.kind) {
          case "message":
            return <UserMessage key={at} text={entry.text} at={entry.at} by={null} />;
          case "question":
            return <Question key={`q ${entry.key}`} execution={execution} stepKey={entry.key} title={entry.key} startsOpen={entry.open} />;
          case "child":
            return <SubAgent key={`c ${entry.key}`} child={entry.child} nested={nested} />;
          default:
            return (entry.texts.length > 0 || entry.calls.length > 0 || entry.faults.length > 0 || entry.thinking.length > 0) && <AnswerPart key={entry.key} answer={entry} execution={execution} nested={nested} />;
        }
      })}
      {streams.map(([name, one]) => (
        <div class="msg" key={name}>
          <span class="who">
            <Bot size={15} aria-hidden="true" />
          </span>
          <div class="col" aria-live="off">
            {one.withdrawn !== "" && (
              <s class="withdrawn" title="A worker was lost or the call failed. These words are withdrawn.">
                <Shown text={one.withdrawn} />
              </s>
            )}
            <div class="txt">
              <Markdown text={one.text} />
              <span class="caret" aria-label="It is writing" role="img" />
            </div>
          </div>
          <span class="meta">streams</span>
        </div>
      ))}
      {execution.error != null && execution.phase === "failed" && <Problem error={execution.error} />}
      {early?.stopped !== undefined && (
        <p class="note">
          <span>
            The run <Shown text={early.text ?? ""} />
          </span>
        </p>
      )}
      {execution.result != null && (typeof execution.result !== "string" || !said) && (
        <div class="tool">
          <div class="kv">
            <b>Result</b>
            <Value value={execution.result as Json} />
          </div>
        </div>
      )}
    </>
  );
}

function UserMessage({ text, at, by }: { text: string; at: string | null; by: string | null }) {
  return (
    <div class="msg">
      <span class="who">
        <UserRound size={15} aria-hidden="true" />
      </span>
      <div class="col">
        <div class="bubble txt">
          <Shown text={text} />
        </div>
      </div>
      <span class="meta">
        {at !== null && <Time at={at} />}{" "}
        {by !== null && (
          <span class="trunc">
            <Shown text={by} />
          </span>
        )}
      </span>
    </div>
  );
}

function AnswerPart({ answer, execution, nested }: { answer: Answer; execution: Run; nested: boolean }) {
  return (
    <div class="msg">
      <span class="who">
        <Bot size={15} aria-hidden="true" />
      </span>
      <div class="col">
        {answer.faults.map((fault, at) => (
          <div class="box err" key={at}>
            <b>Try {at + 1} failed:</b> <Shown text={`${fault.type}: ${fault.message}`} />
          </div>
        ))}
        {answer.thinking.length > 0 && (
          <details>
            <summary class="dim">Thinking</summary>
            <p class="dim valtext">
              <Shown text={answer.thinking.join("\n\n")} />
            </p>
          </details>
        )}
        {answer.summary && <span class="tag">Summary of earlier messages</span>}
        {answer.texts.map((one, at) => (
          <div class="txt" key={at}>
            <Markdown text={one} />
          </div>
        ))}
        {answer.calls.map((call) =>
          call.question !== null && call.state === "waiting" ? (
            <Question key={call.id} execution={execution} stepKey={call.question} title={call.name} startsOpen />
          ) : (
            <CallPart key={call.id} call={call} nested={nested} />
          ),
        )}
      </div>
      <span class="meta">
        {answer.model !== null && (
          <span class="trunc">
            <Shown text={answer.model} />
          </span>
        )}
        {answer.input + answer.output > 0 && (
          <span title="Tokens in → out">
            {count(answer.input)} → {count(answer.output)}
          </span>
        )}
        {(answer.usd !== null || answer.ms !== null) && <span>{[answer.usd === null ? null : money(answer.usd), answer.ms === null ? null : duration(answer.ms)].filter((one) => one !== null).join(" · ")}</span>}
      </span>
    </div>
  );
}

const STATES = { open: "queued", running: "running", completed: "completed", failed: "failed", waiting: "waiting" } as const;

function CallPart({ call, nested }: { call: Call; nested: boolean }) {
  const child = call.child;
  return (
    <details class="tool" open={call.state === "failed" || call.error !== null}>
      <summary>
        {child === null ? <Wrench size={14} class="dim3" aria-hidden="true" /> : <Bot size={14} class="dim3" aria-hidden="true" />}
        <b>
          <Shown text={call.name} />
        </b>
        <code class="grow trunc dim">
          <Shown text={brief(call.args, 120)} />
        </code>
        {call.tries > 1 && <span class="tag">{call.tries} tries</span>}
        {call.question !== null && <span class="tag">{call.state === "failed" && call.result === undefined && call.error === null ? "denied" : "approved"}</span>}
        {call.ms !== null && <span class="dim num">{duration(call.ms)}</span>}
        <span class={`ph p-${STATES[call.state]}`} title={call.state}>
          <PhaseIcon phase={STATES[call.state]} />
        </span>
      </summary>
      <div class="kv">
        <small class="dim3">Arguments</small>
        <Value value={call.args} />
        {call.result !== undefined && (
          <>
            <small class="dim3">Result</small>
            <Value value={call.result} />
          </>
        )}
        {call.error !== null && (
          <div class="box err">
            <Shown text={`${call.error.type}: ${call.error.message}`} />
          </div>
        )}
        {child !== null && <SubAgent child={child} nested={nested} />}
      </div>
    </details>
  );
}

/** A sub-agent's own conversation, one level deep. */
function SubAgent({ child, nested }: { child: NonNullable<Call["child"]>; nested: boolean }) {
  const [shown, setShown] = useState(false);
  const found = useGet("/api/v1/executions/{execution_id}", { params: { path: { execution_id: child.execution_id } } }, { enabled: shown });
  const head = (
    <>
      <Bot size={14} class="dim3" aria-hidden="true" />
      <b>
        <Shown text={child.workflow_id} />
      </b>
      <span class="grow dim">child</span>
      <Phase phase={child.phase} />
    </>
  );
  if (nested) {
    return (
      <div class="row">
        {head} <Link href={`/executions/${child.execution_id}`}>Open</Link>
      </div>
    );
  }
  return (
    <details class="tool" onToggle={(event) => event.currentTarget.open && setShown(true)}>
      <summary>{head}</summary>
      <div class="kv">
        <Link href={`/executions/${child.execution_id}`} class="accent">
          Open its execution
        </Link>
        {shown && <Loaded of={found}>{(execution) => <Conversation execution={execution} nested />}</Loaded>}
      </div>
    </details>
  );
}

function Question({ execution, stepKey, title, startsOpen }: { execution: Run; stepKey: string; title: string; startsOpen: boolean }) {
  const of = { execution_id: execution.id, step_key: stepKey, workflow_id: execution.workflow_id };
  const status = useQuestion(of);
  const open = status.data?.state === "open";
  return (
    <details class={open ? "tool ask" : "tool"} open={startsOpen}>
      <summary>
        <Hand size={14} aria-hidden="true" />
        <b>
          <Shown text={title} />
        </b>
        <span class="grow dim">{open ? "Requests an answer" : "Asked"}</span>
        {status.data?.answered_by != null && (
          <span class="dim">
            <Shown text={status.data.answered_by} />
          </span>
        )}
      </summary>
      <div class="kv">
        <Loaded of={status} rows={3}>
          {(found) => <Answering of={of} status={found} />}
        </Loaded>
      </div>
    </details>
  );
}

/** Sends the next message: a turn of its own, or part of the open one. */
export function NextMessage({ execution, onSent }: { execution: Pick<Run, "workflow_id" | "session_id" | "user_id">; onSent?: (id: string) => void }) {
  const [text, setText] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [sending, setSending] = useState(false);
  const key = useMemo(() => crypto.randomUUID(), [text]);
  const [, navigate] = useLocation();
  const blocked = useBlocked("write");
  const refresh = useRefresh();
  const say = async () => {
    if (text.trim() === "" || sending || blocked !== undefined) return;
    setSending(true);
    setError(null);
    try {
      const body = { payload: text, session_id: execution.session_id ?? undefined, user_id: execution.user_id ?? undefined, on_conflict: execution.session_id == null ? undefined : "deliver" };
      const started = (await send("POST", `/api/v1/workflows/${encodeURIComponent(execution.workflow_id)}/run`, body, key)) as { execution_id: string };
      setText("");
      refresh("/api/v1/executions", "/api/v1/sessions");
      if (onSent === undefined) navigate(`/executions/${started.execution_id}`);
      else onSent(started.execution_id);
    } catch (problem) {
      setError(problem);
    }
    setSending(false);
  };
  return (
    <form
      class="col gap6"
      onSubmit={(event) => {
        event.preventDefault();
        void say();
      }}
    >
      {error !== null && <Problem error={error} />}
      <div class="say">
        <textarea
          class="input grow"
          rows={1}
          aria-label="Message"
          placeholder={execution.session_id == null ? "Start a conversation" : "Say something to this session"}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              void say();
            }
          }}
        />
        <button type="submit" class="btn pri" disabled={blocked !== undefined || sending || text.trim() === ""} title={blocked}>
          <Send size={14} aria-hidden="true" /> Send
        </button>
      </div>
    </form>
  );
}

function BudgetPart({ id, open }: { id: string; open: boolean }) {
  const budget = useGet("/api/v1/executions/{execution_id}/budget", { params: { path: { execution_id: id } } }).data;
  const [raising, setRaising] = useState(false);
  useCommands(budget === undefined || !open ? [] : [{ title: "Raise the budget", key: "b", run: () => setRaising(true) }]);
  if (budget === undefined) return null;
  const limited = KINDS.filter(([name]) => budget[name].limit != null);
  return (
    <section class="col gap6">
      <div class="row">
        <h3>Budget</h3>
        <span class="tag">{USED_UP[budget.on_exceed]}</span>
        <span class="grow" />
        {open && (
          <button type="button" class="btn sm" onClick={() => setRaising(true)}>
            <Plus size={13} aria-hidden="true" /> Raise <Key keys="b" />
          </button>
        )}
      </div>
      {limited.map(([name, , shown]) => {
        const { spent, reserved, limit } = budget[name];
        return (
          <div key={name} class="col gap4">
            <span class="num">
              <b>{shown(spent)}</b> <span class="dim">of {shown(limit!)}</span>
              {reserved > 0 && <span class="dim"> · {shown(reserved)} reserved</span>}
            </span>
            <div class="meter" role="meter" aria-label={`Budget of ${name}`} aria-valuenow={spent} aria-valuemin={0} aria-valuemax={limit!}>
              <i class="used" style={{ width: `${Math.min(100, (100 * spent) / limit!)}%` }} />
              <i class="held" style={{ width: `${Math.min(100, (100 * reserved) / limit!)}%` }} />
            </div>
          </div>
        );
      })}
      {raising && <RaiseDialog of={budget} title="Raise the budget" spenders="this execution and all that spend with it" onClose={() => setRaising(false)} />}
    </section>
  );
}

type Used = Schemas["UsageResponse"]["calls"][number];

const USED_MAX = 12;

function UsagePart({ id }: { id: string }) {
  const usage = useGet("/api/v1/executions/{execution_id}/usage", { params: { path: { execution_id: id } } }).data;
  const [chosen, setBy] = useState<"cost" | "tokens" | "time" | null>(null);
  if (usage === undefined || usage.calls.length === 0) return null;
  const priced = usage.total.unpriced < usage.total.calls;
  const by = chosen ?? (priced ? "cost" : "tokens");
  const size = (call: Used) => (by === "cost" ? (call.usd ?? 0) : by === "time" ? (call.ms ?? 0) : call.input_tokens + call.output_tokens);
  const most = Math.max(...usage.calls.map(size), 1e-9);
  const { total } = usage;
  return (
    <section class="col gap6">
      <div class="row">
        <h3 class="grow">Usage</h3>
        <Segments
          label="Usage by"
          of={
            [
              ["cost", "Cost"],
              ["tokens", "Tokens"],
              ["time", "Time"],
            ] as const
          }
          value={by}
          onChange={setBy}
        />
      </div>
      <p class="row">
        <b class="spent num">{priced ? money(total.usd) : counted(total.input_tokens + total.output_tokens, "token")}</b>
        <span class="dim num">
          {usage.exact ? "" : "at least "}
          {counted(total.calls, "call")}
          {priced ? ` · ${counted(total.input_tokens + total.output_tokens, "token")}` : " · price not known"}
        </span>
      </p>
      {usage.calls
        .toSorted((a, b) => size(b) - size(a))
        .slice(0, USED_MAX)
        .map((call) => (
          <div class="usageline" key={`${call.execution_id} ${call.seq}`}>
            <span class="trunc">
              <Shown text={call.key} />
            </span>
            <span class="meter">
              <i class="used" style={{ width: `${(100 * size(call)) / most}%` }} />
            </span>
            <span class="num">{by === "tokens" ? count(call.input_tokens + call.output_tokens) : call.usd == null ? "no price" : money(call.usd)}</span>
            <span class="num dim3">{call.ms == null ? "" : duration(call.ms)}</span>
          </div>
        ))}
    </section>
  );
}

function Turns({ execution }: { execution: Run }) {
  const session = execution.session_id ?? "";
  const found = useGet("/api/v1/executions/summaries", { params: { query: { session_id: session, limit: 20 } } }, { enabled: session !== "", every: 30_000 });
  const turns = (found.data?.executions ?? []).filter((one) => one.parent_execution_id === null);
  if (session === "" || turns.length < 2) return null;
  return (
    <section class="col gap4">
      <div class="row">
        <h3>Session</h3>
        <code class="dim3 trunc grow">
          <Shown text={session} />
        </code>
        <Link href={`/sessions/${turns[0]!.id}`} class="accent">
          Open
        </Link>
      </div>
      {turns.toReversed().map((turn) => (
        <Link key={turn.id} href={`/executions/${turn.id}`} class="turn" aria-current={turn.id === execution.id ? "true" : undefined}>
          <Phase phase={turn.phase} />
          <span class="grow trunc dim">{turn.id === execution.id ? "this turn" : turn.phase === "queued" ? "waits for its turn" : ""}</span>
          <Time at={turn.created_at} />
        </Link>
      ))}
    </section>
  );
}

interface ToolShown {
  name: string;
  requires_approval?: boolean;
}

export function Tools({ agent }: { agent: string }) {
  const found = useGet("/api/v1/agents/{agent_id}", { params: { path: { agent_id: agent } } }).data;
  const tools = (Array.isArray(found?.tools) ? found.tools : []) as ToolShown[];
  if (tools.length === 0) return null;
  return (
    <section class="col gap6">
      <h3>Tools</h3>
      <p class="row wrap gap6">
        {tools.map((tool) => (
          <span key={tool.name} class={tool.requires_approval === true ? "tag p-waiting" : "tag"} title={tool.requires_approval === true ? "Needs an approval" : undefined}>
            {tool.requires_approval === true && <Hand size={12} aria-hidden="true" />}
            <Shown text={String(tool.name)} />
          </span>
        ))}
      </p>
    </section>
  );
}
