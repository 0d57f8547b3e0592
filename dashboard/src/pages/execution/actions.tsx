import { useEffect, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import type { Schemas } from "../../api/client";
import { asPython, quoted } from "../../model/calls";
import { counted, shortId, visible } from "../../model/words";
import { pretty, rawAt } from "../../model/json";
import type { Span } from "../../model/timeline";
import { ActionDialog } from "../../parts/action";
import { LaterField } from "../../parts/later";
import { laterOptions, type Later } from "../../model/bulk";
import { toast } from "../../parts/toast";
import { useText } from "./data";
import { rowPath } from "./parts";

export type Execution = Schemas["ExecutionResponse"];
export type Pending = Schemas["PendingCallResponse"];
export type ActName = Schemas["ActRequest"]["action"];

export type Asked =
  | { what: "retry" }
  | { what: "fork"; step: string | null; edit?: string }
  | { what: "cancel" }
  | { what: "act"; action: ActName; pending: Pending };

interface Props {
  execution: Execution;
  asked: Asked;
  /** What a fork can give another value, as far as the journal is loaded. */
  recorded: readonly Span[];
  openChildren: number;
  /** The input as it was sent. */
  payload: string;
  onClose: () => void;
}

export function Action(props: Props) {
  const { asked } = props;
  if (asked.what === "retry") return <Retry {...props} />;
  if (asked.what === "fork") return <Fork {...props} step={asked.step} edit={asked.edit} />;
  if (asked.what === "cancel") return <Cancel {...props} />;
  return <Act {...props} action={asked.action} pending={asked.pending} />;
}

/** JSON that a user typed: its text, or what is wrong with it. An empty text is nothing. */
function checked(text: string, what: string): { invalid: string | null } {
  if (text.trim() === "") return { invalid: null };
  try {
    JSON.parse(text);
    if (/(?<![\w."])-?\d{16,}/.test(text)) return { invalid: `${what} has a number of more than 15 digits, which a page cannot send exactly. Copy the command instead.` };
    return { invalid: null };
  } catch (error) {
    return { invalid: `${what} is not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
}

const path = (execution: Execution, rest: string) => `/api/v1/executions/${execution.id}/${rest}`;

function flag(name: string, value: string): string {
  return value === "" ? "" : ` ${name} ${quoted(value)}`;
}

function keyword(name: string, value: unknown): string {
  return value === "" || value === null || value === undefined || value === false ? "" : `, ${name}=${asPython(value)}`;
}

function filled<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== "" && value !== null && value !== false && value !== undefined)) as Partial<T>;
}

function Note({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  return (
    <label class="field">
      <span>Note</span>
      <input class="input" value={value} placeholder="Why. The server keeps it beside your name." onInput={(event) => onChange(event.currentTarget.value)} />
    </label>
  );
}

function useOpened(): (answer: unknown) => void {
  const [, navigate] = useLocation();
  return (answer) => {
    const id = (answer as { execution_id: string }).execution_id;
    toast(`Started ${shortId(id)}.`);
    navigate(`/executions/${id}`);
  };
}

function Retry({ execution, onClose }: Props) {
  const [deployment, setDeployment] = useState("");
  const [note, setNote] = useState("");
  const [later, setLater] = useState<Later>("");
  const opened = useOpened();
  const body = { ...filled({ deployment_id: deployment, note }), ...laterOptions(later) };
  return (
    <ActionDialog
      title={`Retry ${visible(execution.workflow_id)}`}
      word="Retry"
      effects={[
        "A new execution keeps the recorded results and runs again from what failed.",
        execution.key == null ? "The steps that run again keep their idempotency keys." : `It takes over the key ${visible(execution.key)}. Idempotency keys stay the same.`,
        execution.parent_execution_id == null ? null : "Its parent has ended with the old result and does not get the new one.",
      ].filter((one) => one !== null)}
      call={{ method: "POST", path: path(execution, "retry"), body }}
      command={`perdure retry ${execution.id}${later === "" ? "" : ` --${later}-later`}${flag("--deployment", deployment)}${flag("--note", note)}`}
      python={`await client.retry(${asPython(execution.id)}${later === "" ? "" : `, ${later}_later=True`}${keyword("deployment_id", deployment)}${keyword("note", note)})`}
      onClose={onClose}
      onDone={opened}
    >
      <label class="field">
        <span>Deployment</span>
        <input class="input" value={deployment} placeholder="The current one" onInput={(event) => setDeployment(event.currentTarget.value)} />
      </label>
      <LaterField value={later} onChange={setLater} />
      <Note value={note} onChange={setNote} />
    </ActionDialog>
  );
}

/** Whether a fork can replace what is recorded of it. */
export function isEditable(span: Span): boolean {
  const outcomes = (span.seqs ?? []).length;
  return outcomes > (span.kind === "child" ? 1 : 0) && ["step", "answer", "event", "child"].includes(span.kind) && ["completed", "failed"].includes(span.state);
}

const OFFERED_MAX = 1_000;
const EDITED_BYTES_MAX = 65_536;

function Fork({ execution, step, edit, recorded, payload, onClose }: Props & { step: string | null; edit: string | undefined }) {
  /** New values by key, as they are typed; undefined: the recorded one is on its way. */
  const [values, setValues] = useState<Readonly<Record<string, string | undefined>>>(edit === undefined ? {} : { [edit]: undefined });
  const [from, setFrom] = useState(step ?? "");
  const [input, setInput] = useState("");
  const [key, setKey] = useState("");
  const [note, setNote] = useState("");
  const [fresh, setFresh] = useState(false);
  const opened = useOpened();
  const typed = Object.entries(values);
  const invalid =
    checked(input, "The input").invalid ??
    typed.map(([name, text]) => ((text ?? "").trim() === "" ? `Give a value for ${visible(name)}: null is one.` : checked(text!, `The value of ${visible(name)}`).invalid)).find((one) => one !== null) ??
    null;
  const steps = typed.length === 0 || invalid !== null ? undefined : Object.fromEntries(typed.map(([name, text]) => [name, JSON.parse(text!) as unknown]));
  const payloadGiven = input.trim() !== "" && invalid === null;
  const edits = steps === undefined && !payloadGiven ? undefined : { ...(payloadGiven && { payload: JSON.parse(input) as unknown }), ...(steps && { steps }) };
  const sets = typed.map(([name, text]) => flag("--set", `${name}=${(text ?? "").trim()}`)).join("");
  const body = filled({ from_step: from, edits, key, note, fresh_keys: fresh });
  return (
    <ActionDialog
      title={`Fork ${visible(execution.workflow_id)}`}
      word="Fork"
      effects={[
        from === "" && typed.length > 0 ? "A new execution keeps the results up to the last edited one and runs from there." : from === "" ? "A new execution runs from the start." : `A new execution keeps the results before ${visible(from)} and runs from there.`,
        "This execution does not change.",
        fresh ? "Services count the steps that run again as new requests." : "Steps that run again keep their idempotency keys: services count them as the same request.",
      ]}
      call={{ method: "POST", path: path(execution, "fork"), body }}
      command={`perdure fork ${execution.id}${flag("--from", from)}${flag("--payload", input.trim())}${sets}${flag("--key", key)}${fresh ? " --fresh-keys" : ""}${flag("--note", note)}`}
      python={`await client.fork(${asPython(execution.id)}${keyword("from_step", from)}${payloadGiven ? `, payload=${asPython(edits!.payload)}` : ""}${keyword("steps", steps)}${keyword("key", key)}${keyword("fresh_keys", fresh)}${keyword("note", note)})`}
      invalid={invalid}
      onClose={onClose}
      onDone={opened}
    >
      <label class="field">
        <span>First step that runs again</span>
        <input class="input" value={from} placeholder={typed.length > 0 ? "The one after the last edited result" : "The start"} onInput={(event) => setFrom(event.currentTarget.value)} />
      </label>
      <label class="field">
        <span>Another input (JSON)</span>
        <textarea class="input" value={input} placeholder="The same" spellcheck={false} onInput={(event) => setInput(event.currentTarget.value)} />
        {input === "" && payload.length < 65_536 && (
          <small>
            <button type="button" class="btn ghost sm" onClick={() => setInput(pretty(payload))}>
              Edit the input of this execution
            </button>
          </small>
        )}
      </label>
      {typed.map(([name, text]) => (
        <Edited
          key={name}
          execution={execution}
          span={recorded.find((one) => one.key === name)}
          name={name}
          text={text}
          onChange={(next) => setValues((all) => ({ ...all, [name]: next }))}
          onRemove={() => setValues((all) => Object.fromEntries(Object.entries(all).filter(([known]) => known !== name)))}
        />
      ))}
      {recorded.some((one) => !(one.key in values)) && (
        <label class="field">
          <span>Replace a recorded result</span>
          <select class="input" value="" onChange={(event) => setValues({ ...values, [event.currentTarget.value]: undefined })}>
            <option value="">Choose a step or a wait</option>
            {recorded
              .filter((one) => !(one.key in values))
              .slice(0, OFFERED_MAX)
              .map((one) => (
                <option key={`${one.kind} ${one.key}`} value={one.key}>
                  {visible(one.key)}
                </option>
              ))}
          </select>
        </label>
      )}
      <label class="field">
        <span>Key</span>
        <input class="input" value={key} placeholder="None" onInput={(event) => setKey(event.currentTarget.value)} />
      </label>
      <label class="row">
        <input type="checkbox" checked={fresh} onChange={(event) => setFresh(event.currentTarget.checked)} /> New idempotency keys
      </label>
      <Note value={note} onChange={setNote} />
    </ActionDialog>
  );
}

interface EditedProps {
  execution: Execution;
  span: Span | undefined;
  name: string;
  text: string | undefined;
  onChange: (text: string) => void;
  onRemove: () => void;
}

/** Another value for a recorded result. It begins with the recorded one. */
function Edited({ execution, span, name, text, onChange, onRemove }: EditedProps) {
  const seq = span?.seqs?.at(-1);
  const answer = useText(seq === undefined ? null : rowPath(execution.id, seq));
  useEffect(() => {
    if (text !== undefined || (answer.data === undefined && answer.error === null && seq !== undefined)) return;
    const value = span?.state !== "completed" || answer.data === undefined ? undefined : rawAt(answer.data, ["steps", 0, "value", ...(span.kind === "event" ? ["data"] : [])]);
    onChange(value === undefined || value.length > EDITED_BYTES_MAX ? "" : pretty(value));
  }, [answer.data, answer.error]);
  return (
    <div class="field">
      <span class="row">
        <label class="grow" for={`edited-${name}`}>
          Result of <code>{visible(name)}</code> (JSON)
        </label>
        <button type="button" class="btn ghost sm" aria-label={`Keep the recorded result of ${visible(name)}`} onClick={onRemove}>
          Keep the recorded one
        </button>
      </span>
      <textarea id={`edited-${name}`} class="input" rows={4} value={text ?? ""} disabled={text === undefined} spellcheck={false} onInput={(event) => onChange(event.currentTarget.value)} />
    </div>
  );
}

function Cancel({ execution, openChildren, onClose }: Props) {
  const [note, setNote] = useState("");
  return (
    <ActionDialog
      title={openChildren > 0 ? `Cancel this execution and ${counted(openChildren, "child", "children")}` : "Cancel this execution"}
      word="Cancel it"
      danger
      effects={[
        `${visible(execution.workflow_id)} ${visible(execution.key ?? shortId(execution.id))} ends as cancelled. Its clean-up runs, if the code has one.`,
        openChildren > 0 ? "Everything below it is cancelled, too." : "Executions below it are cancelled, too.",
        "This cannot be undone. Recorded results stay: a retry can go on from them.",
      ]}
      call={{ method: "POST", path: path(execution, "cancel"), body: filled({ note }) }}
      command={`perdure cancel ${execution.id}${flag("--note", note)}`}
      python={`await client.cancel(${asPython(execution.id)}${keyword("note", note)})`}
      onClose={onClose}
      done="Cancelling it."
    >
      <Note value={note} onChange={setNote} />
    </ActionDialog>
  );
}

const ACTS: Record<ActName, { word: string; effects: (key: string) => string[]; danger?: boolean }> = {
  try: { word: "Try it now", effects: (key) => [`${key} runs again now.`, "Its idempotency key stays the same."] },
  fire: { word: "End the wait", effects: (key) => [`The timer ${key} ends now, and the code goes on.`] },
  complete: { word: "Complete it", effects: (key) => [`${key} gets the value below as its result.`, "The code goes on as if the call had given it. The first outcome stands."] },
  fail: { word: "Fail it", danger: true, effects: (key) => [`${key} fails, and the code sees the error.`, "The first outcome stands."] },
  time_out: { word: "Time it out", danger: true, effects: (key) => [`The code that waits for ${key} gets a TimeoutError.`] },
};

export function actWord(action: ActName): string {
  return ACTS[action].word;
}

function Act({ execution, action, pending, onClose }: Props & { action: ActName; pending: Pending }) {
  const [value, setValue] = useState("");
  const [error, setError] = useState("");
  const [note, setNote] = useState("");
  const known = ACTS[action];
  const key = pending.key;
  const { invalid } = action === "complete" ? (value.trim() === "" ? { invalid: "Give a value: null is one." } : checked(value, "The value")) : { invalid: null };
  const given = action === "complete" && invalid === null ? (JSON.parse(value) as unknown) : undefined;
  const body = { action, ...(key === null ? {} : { key }), ...(given === undefined ? {} : { value: given }), ...filled({ error: action === "fail" ? error : "", note }) };
  const option = { try: "--try", fire: "--fire", complete: `--complete ${quoted(value)}`, fail: "--fail", time_out: "--time-out" }[action];
  const shown = visible(key ?? "the execution");
  return (
    <ActionDialog
      title={`${known.word}: ${shown}`}
      word={known.word}
      danger={known.danger === true}
      effects={[...known.effects(shown), "The journal keeps your name and the note."]}
      call={{ method: "POST", path: path(execution, "act"), body }}
      command={`perdure act ${execution.id}${key === null ? "" : ` ${quoted(key)}`} ${option}${action === "fail" ? flag("--error", error) : ""}${flag("--note", note)}`}
      python={`await client.act(${asPython(execution.id)}, ${asPython(action)}${keyword("key", key)}${given === undefined ? "" : `, value=${asPython(given)}`}${keyword("error", action === "fail" ? error : "")}${keyword("note", note)})`}
      invalid={invalid}
      onClose={onClose}
      done="Done."
    >
      {action === "complete" && (
        <label class="field">
          <span>Value (JSON)</span>
          <textarea class="input" value={value} spellcheck={false} autofocus onInput={(event) => setValue(event.currentTarget.value)} />
        </label>
      )}
      {action === "fail" && (
        <label class="field">
          <span>Error</span>
          <input class="input" value={error} placeholder="Its recorded error" onInput={(event) => setError(event.currentTarget.value)} />
        </label>
      )}
      <Note value={note} onChange={setNote} />
    </ActionDialog>
  );
}
