/** An agent's run as a conversation: the journal's spans and values, and the words that stream before they are recorded. */

import type { Json } from "./schema";

type Dict = { [name: string]: Json };

/** A span of `GET /executions/{id}/timeline`, as far as this needs it. */
export interface Span {
  key: string;
  name?: string | null;
  kind: string;
  state: string;
  started_at?: string | null;
  ended_at?: string | null;
  tries?: { n: number; ok: boolean; started_at?: string | null; ended_at: string; error?: { type: string; message: string } | null }[];
  child?: { execution_id: string; workflow_id: string; phase: string } | null;
  error?: { type: string; message: string } | null;
  seqs?: number[];
}

export interface Fault {
  type: string;
  message: string;
}

export interface Call {
  id: string;
  name: string;
  args: Json;
  /** undefined: not known yet. */
  result: Json | undefined;
  state: "open" | "running" | "completed" | "failed" | "waiting";
  ms: number | null;
  tries: number;
  error: Fault | null;
  /** The step that asks a person about it. */
  question: string | null;
  child: { execution_id: string; workflow_id: string; phase: string } | null;
}

export interface Answer {
  kind: "answer";
  key: string;
  at: string | null;
  model: string | null;
  input: number;
  output: number;
  usd: number | null;
  ms: number | null;
  faults: Fault[];
  texts: string[];
  thinking: string[];
  calls: Call[];
  state: string;
  summary: boolean;
}

export type Entry =
  | Answer
  | { kind: "message"; at: string | null; text: string }
  | { kind: "question"; key: string; at: string | null; open: boolean }
  | { kind: "child"; key: string; at: string | null; child: NonNullable<Span["child"]> };

const ANSWERS = new Set(["model.request", "conversation.summarize"]);

function dict(value: unknown): Dict {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Dict) : {};
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

/** A part of a step's key, as the agent makes it of names and ids of calls. */
function part(value: string): string {
  return value.replaceAll(/[^\w.-]/g, "_");
}

function took(span: Span): number | null {
  const last = span.tries?.at(-1);
  const [from, to] = [last?.started_at ?? span.started_at, last?.ended_at ?? span.ended_at];
  return from == null || to == null ? null : Date.parse(to) - Date.parse(from);
}

/** The words of a message, whose content may have parts. Everything else is JSON. */
export function words(value: Json | undefined): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(words).join("\n");
  const said = dict(value);
  for (const name of ["input", "message", "content", "prompt", "text"]) if (said[name] !== undefined && said[name] !== null) return words(said[name]);
  return JSON.stringify(value, null, 2);
}

function faultsOf(span: Span): Fault[] {
  const tries = (span.tries ?? []).filter((one) => !one.ok && one.error != null).map((one) => one.error!);
  return tries.length > 0 ? tries : span.error != null ? [span.error] : [];
}

/** `values`: of the journal's rows, by their number. */
export function conversationOf(spans: readonly Span[], values: ReadonlyMap<number, Json>): Entry[] {
  const found: Entry[] = [];
  const calls = new Map<string, Call>();
  const at = (span: Span) => span.started_at ?? span.ended_at ?? null;
  const order = [...spans].sort((a, b) => (Date.parse(at(a) ?? "") || 0) - (Date.parse(at(b) ?? "") || 0));
  const value = (span: Span) => values.get(span.seqs?.at(-1) ?? -1);
  for (const span of order) {
    const name = span.name ?? "";
    if (span.kind === "step" && ANSWERS.has(name)) {
      const answer = answerFrom(span, dict(value(span)));
      for (const call of answer.calls) calls.set(part(call.id), call);
      found.push(answer);
    } else if (span.kind === "step" && /^(tool|mcp)\./.test(name) && !name.endsWith(".validate")) {
      const call = calls.get(callId(span.key, name));
      if (call !== undefined) settle(call, span, value(span));
    } else if (span.kind === "answer") {
      const call = /^(approve|ask_user|call|watchdog)_/.test(span.key) ? [...calls].find(([id]) => span.key.replace(/#\d+$/, "").endsWith(`_${id}`))?.[1] : undefined;
      if (call === undefined) found.push({ kind: "question", key: span.key, at: at(span), open: span.state === "waiting" });
      else {
        if (span.state === "waiting") call.state = "waiting";
        else if (!span.key.startsWith("approve_")) [call.state, call.result] = ["completed", value(span)];
        else if (dict(value(span)).approved !== true) call.state = "failed";
        call.question = span.key;
      }
    } else if (span.kind === "child" && span.child != null) {
      const call = [...calls].find(([id]) => span.key.includes(id))?.[1];
      if (call === undefined) found.push({ kind: "child", key: span.key, at: at(span), child: span.child });
      else {
        call.child = span.child;
        call.ms = took(span);
        if (call.state === "open") call.state = span.state === "completed" ? "completed" : span.state === "failed" ? "failed" : "running";
      }
    } else if (span.kind === "message") {
      const said = words(value(span));
      if (said !== "") found.push({ kind: "message", at: at(span), text: said });
    }
  }
  return found;
}

function callId(key: string, name: string): string {
  const own = key.slice(key.lastIndexOf("/") + 1);
  const rest = own.slice(own.indexOf(":") + 1);
  const tool = name.slice(name.indexOf(".") + 1);
  return (rest.startsWith(`${tool}:`) ? rest.slice(tool.length + 1) : rest).replace(/[:#]\d+$/, "");
}

function settle(call: Call, span: Span, value: Json | undefined): void {
  call.ms = took(span);
  call.tries = span.tries?.length ?? 0;
  const outer = dict(value);
  const said = "usage" in outer && "value" in outer && Object.keys(outer).length === 2 ? dict(outer.value) : outer;
  const result = dict(said.result);
  switch (true) {
    case span.state === "running" || span.state === "paused" || span.state === "lost":
      call.state = "running";
      call.error = faultsOf(span).at(-1) ?? null;
      break;
    case span.state === "failed":
      call.state = "failed";
      call.error = faultsOf(span).at(-1) ?? null;
      break;
    case said.kind === "approval_required" || said.kind === "call_deferred":
      call.state = "waiting";
      break;
    case said.kind === "tool_return" || said.kind === "tool_content_result":
      call.state = "completed";
      call.result = result.kind === "tool-return" ? result.return_value : said.result;
      break;
    default:
      call.state = said.kind === undefined ? "completed" : "failed";
      call.result = said.kind === undefined ? value : undefined;
      if (said.kind !== undefined) call.error = { type: String(said.kind), message: text(said.message) ?? text(said.title) ?? "" };
  }
}

function answerFrom(span: Span, said: Dict): Answer {
  const usage = dict(said.usage);
  const parts = Array.isArray(said.parts) ? said.parts.map(dict) : [];
  const number = (name: string) => (typeof usage[name] === "number" ? usage[name] : 0);
  const cost = usage.cost == null || usage.cost === "" ? Number.NaN : Number(usage.cost);
  return {
    kind: "answer",
    key: span.key,
    at: span.started_at ?? null,
    model: text(said.model_name),
    input: number("input_tokens"),
    output: number("output_tokens"),
    usd: Number.isFinite(cost) ? cost : null,
    ms: took(span),
    faults: faultsOf(span),
    texts: parts.filter((one) => one.part_kind === "text").map((one) => text(one.content) ?? "").filter((one) => one.trim() !== ""),
    thinking: parts.filter((one) => one.part_kind === "thinking").map((one) => text(one.content) ?? "").filter((one) => one !== ""),
    calls: parts.filter((one) => one.part_kind === "tool-call" && text(one.tool_name) !== null).map(callFrom),
    state: span.state,
    summary: span.name === "conversation.summarize",
  };
}

function callFrom(one: Dict): Call {
  let args = one.args ?? null;
  if (typeof args === "string") {
    try {
      args = JSON.parse(args) as Json;
    } catch {
      // a model may write what is no JSON
    }
  }
  return { id: text(one.tool_call_id) ?? "call", name: String(one.tool_name), args, result: undefined, state: "open", ms: null, tries: 0, error: null, question: null, child: null };
}

/** An item of `GET /executions/{id}/stream`. */
export interface StreamItem {
  execution_id: string;
  key: string;
  attempt: number;
  tries: number;
  kind: string;
  data: unknown;
}

export interface Live {
  attempt: number;
  tries: number;
  text: string;
  /** What a lost worker or a failed try had said; the words after it replace it. */
  withdrawn: string;
}

const LIVE_MAX = 200_000;

/** The words of each step that streams, by execution and key. */
export function heard(live: Map<string, Live>, item: StreamItem): void {
  const data = dict(item.data);
  const name = `${item.execution_id} ${item.key}`;
  let known = live.get(name);
  if (known !== undefined && (item.attempt > known.attempt || (item.attempt === known.attempt && item.tries > known.tries))) {
    live.set(name, (known = { attempt: item.attempt, tries: item.tries, text: "", withdrawn: known.text || known.withdrawn }));
  }
  let said = "";
  if (item.kind === "part_start") said = dict(data.part).part_kind === "text" ? (text(dict(data.part).content) ?? "") : "";
  else if (item.kind === "part_delta") said = dict(data.delta).part_delta_kind === "text" ? (text(dict(data.delta).content_delta) ?? "") : "";
  else if (item.kind === "token" && typeof item.data === "string") said = item.data;
  if (said === "" || (known !== undefined && item.attempt < known.attempt)) return;
  known ??= { attempt: item.attempt, tries: item.tries, text: "", withdrawn: "" };
  live.set(name, { ...known, text: (known.text + said).slice(-LIVE_MAX) });
}
