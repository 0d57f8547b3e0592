import { useState } from "preact/hooks";
import { rawAt } from "../../model/json";
import { framesOf, traceOf, type Trace } from "../../model/trace";
import { clock } from "../../model/time";
import { counted, visible } from "../../model/words";
import type { Schemas } from "../../api/client";
import { Json } from "../../parts/json";
import { Loaded, Problem } from "../../parts/state";
import { CopyButton } from "../../parts/text";
import { useGet } from "../../api/query";
import { useText } from "./data";

type Log = Schemas["LogResponse"];

export function rowPath(execution: string, seq: number): string {
  return `/api/v1/executions/${execution}/steps?after=${seq - 1}&limit=1`;
}

/** The recorded value of a journal row, as it was sent. */
export function RowValue({ execution, seq, what }: { execution: string; seq: number; what: string }) {
  const answer = useText(rowPath(execution, seq));
  return (
    <Loaded of={answer} rows={3}>
      {(text) => {
        const value = rawAt(text, ["steps", 0, "value"]);
        return value === undefined ? <Problem error={`Row ${seq} cannot be found.`} /> : <Json text={value} what={what} />;
      }}
    </Loaded>
  );
}

/** The error of a failed try: class, message, traceback with the own frames open. */
export function Failure({ execution, seq }: { execution: string; seq: number }) {
  const answer = useText(rowPath(execution, seq));
  return (
    <Loaded of={answer} rows={3}>
      {(text) => <ErrorShown raw={rawAt(text, ["steps", 0, "value"]) ?? "null"} />}
    </Loaded>
  );
}

interface Recorded {
  type?: unknown;
  message: string;
  detail?: unknown;
  frames?: unknown;
}

function errorIn(raw: string): Recorded | null {
  try {
    const value = JSON.parse(raw) as Partial<Recorded> | null;
    return value !== null && typeof value === "object" && typeof value.message === "string" ? (value as Recorded) : null;
  } catch {
    return null;
  }
}

export function ErrorShown({ raw }: { raw: string }) {
  const error = errorIn(raw);
  if (error === null) return <Json text={raw} what="error" />;
  const detail = typeof error.detail === "string" ? error.detail : null;
  const frames = framesOf(error.frames);
  const trace = frames.length > 0 ? { frames, rest: "" } : detail === null ? null : traceOf(detail);
  return (
    <div class="sect">
      <div class="hd">
        <b class="bad">{visible(String(error.type ?? "Error"))}</b>
        <span class="grow" />
        <CopyButton text={detail ?? error.message} what="error" />
      </div>
      <Lines text={error.message} />
      {trace !== null ? <Traceback trace={trace} /> : detail !== null && <pre class="box err trace">{visible(detail)}</pre>}
    </div>
  );
}

const LINES = 12;

/** The text of an error with its line breaks, folded after 12 lines. */
export function Lines({ text }: { text: string }) {
  const [all, setAll] = useState(false);
  const lines = text.split("\n");
  const more = lines.length - LINES;
  return (
    <>
      <div class="lines">{visible(all || more <= 0 ? text : lines.slice(0, LINES).join("\n"))}</div>
      {more > 0 && (
        <button type="button" class="btn ghost sm" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? `Fold after ${LINES} lines` : `Show ${counted(more, "more line")}`}
        </button>
      )}
    </>
  );
}

function Traceback({ trace }: { trace: Trace }) {
  const [all, setAll] = useState(false);
  const own = trace.frames.filter((frame) => frame.own);
  const shown = all || own.length === 0 ? trace.frames : own;
  const folded = trace.frames.length - shown.length;
  return (
    <div class="box err trace" tabIndex={0} role="group" aria-label="Traceback">
      {shown.map((frame, at) => (
        <div key={at}>
          <div class="fr">
            {visible(frame.file)}:{frame.line}, in {visible(frame.name)}
          </div>
          {frame.source.map((line, number) => (
            <div key={number} class={frame.own ? "own" : "fr"}>
              {"  "}
              {/^\s*[~^]+\s*$/.test(line) ? <span class="bad">{line}</span> : visible(line)}
            </div>
          ))}
        </div>
      ))}
      {trace.rest !== "" && <div class="bad">{visible(trace.rest)}</div>}
      {(folded > 0 || all) && (
        <button type="button" class="btn ghost sm" onClick={() => setAll(!all)}>
          {all ? "Fold the frames of libraries" : `${counted(folded, "frame")} of libraries ${folded === 1 ? "is" : "are"} folded`}
        </button>
      )}
    </div>
  );
}

export function LogLines({ logs }: { logs: Log[] }) {
  return (
    <div class="loglines">
      {logs.map((log) => (
        <div key={log.n} class={log.level >= 40 ? "lv-e" : log.level >= 30 ? "lv-w" : ""}>
          <span class="g">{clock(log.at, true)}</span>
          {visible(log.text)}
        </div>
      ))}
    </div>
  );
}

/** Log lines from two seconds before a stretch to two seconds after it. */
export function LogsNear({ execution, from, to }: { execution: string; from: number; to: number }) {
  const logs = useLogs(execution);
  const near = logs.data?.logs.filter((log) => Date.parse(log.at) >= from - 2_000 && Date.parse(log.at) <= to + 2_000) ?? [];
  if (near.length === 0) return null;
  return (
    <div class="sect">
      <div class="hd">
        <h3>Logs near it</h3>
      </div>
      <LogLines logs={near.slice(-60)} />
    </div>
  );
}

export function useLogs(execution: string, live = false) {
  return useGet("/api/v1/executions/{execution_id}/logs", { params: { path: { execution_id: execution }, query: { limit: 1_000 } } }, live ? { every: 3_000 } : {});
}
