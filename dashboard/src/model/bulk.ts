/** Actions on several executions: what each takes, what it does, and its requests. */

import type { Call } from "./calls";
import { bulkFilters, type Filters } from "./filters";
import { counted } from "./words";

export type Act = "retry" | "fork" | "cancel" | "resume" | "delete";

/** What becomes of steps that the code called after the failure, such as refunds. */
export type Later = "" | "keep" | "redo";

export interface Options {
  fromStep: string;
  later: Later;
  /** JSON: the input of forks. */
  payload: string;
  deployment: string;
  freshKeys: boolean;
  /** The step that waits for an answer. */
  key: string;
  /** JSON: the answer. */
  data: string;
  note: string;
}

export const NO_OPTIONS: Options = { fromStep: "", later: "", payload: "", deployment: "", freshKeys: false, key: "", data: "", note: "" };

export const VERB: Record<Act, string> = { retry: "Retry", fork: "Fork", cancel: "Cancel", resume: "Answer", delete: "Delete" };
export const ING: Record<Act, string> = { retry: "Retrying", fork: "Forking", cancel: "Cancelling", resume: "Answering", delete: "Deleting" };

const FINAL = ["completed", "failed", "cancelled"];

interface Row {
  id: string;
  phase: string;
  retried_as: string | null;
}

/** Why the action leaves an execution as it is; null if it takes it. */
export function leftOut(act: Act, row: Row): string | null {
  const final = FINAL.includes(row.phase);
  if (act === "retry") return final ? (row.retried_as === null ? null : "retried already") : "still open";
  if (act === "delete") return final ? null : "still open";
  if (act === "cancel") return final ? "ended already" : row.phase === "cancelling" ? "being cancelled already" : null;
  if (act === "resume") return final ? "ended already" : null;
  return null;
}

/** What happens, one sentence a line, the worst last. `n`: of executions that the action takes. */
export function effects(act: Act, n: number): string[] {
  const each = n === 1 ? "The execution" : `Each of ${counted(n, "execution")}`;
  return {
    retry: [
      `${each} gets a new one that keeps its recorded results and takes over its key.`,
      "The step that failed runs again, with the same idempotency key.",
    ],
    fork: [`${each} gets a fork that keeps the results before the chosen step.`, "Steps from there on run again; models may cost money again."],
    cancel: [`${each} ends after its cleanup, with everything below it.`, "Work that a step has done stays done. Cancelling has no undo."],
    resume: [`${each} that waits under this step gets the answer and goes on.`, "An answer has no undo."],
    delete: [`${each} goes, with its journal and everything below it.`, "Deleting has no undo."],
  }[act];
}

function parsed(text: string): unknown {
  return text.trim() === "" ? undefined : JSON.parse(text);
}

/** Why the options cannot be sent as they stand. */
export function wrongOptions(act: Act, options: Options): string | null {
  if (act === "resume" && options.key.trim() === "") return "Name the step that waits for an answer.";
  try {
    parsed(act === "fork" ? options.payload : act === "resume" ? options.data : "");
  } catch {
    return act === "fork" ? "The input is not JSON." : "The answer is not JSON.";
  }
  return null;
}

export function laterOptions(later: Later): { keep_later?: true; redo_later?: true } {
  return later === "" ? {} : later === "keep" ? { keep_later: true } : { redo_later: true };
}

/** Without what was left empty. */
function body(act: Act, options: Options): Record<string, unknown> {
  if (act === "retry" || act === "fork") {
    const payload = act === "fork" ? parsed(options.payload) : undefined;
    return {
      ...(options.fromStep.trim() === "" ? {} : { from_step: options.fromStep.trim() }),
      ...(act === "retry" ? laterOptions(options.later) : {}),
      ...(payload === undefined ? {} : { edits: { payload } }),
      ...(options.deployment.trim() === "" ? {} : { deployment_id: options.deployment.trim() }),
      ...(options.freshKeys ? { fresh_keys: true } : {}),
    };
  }
  return act === "resume" ? { data: parsed(options.data) ?? null } : {};
}

/** The request for one execution. */
export function callFor(act: Act, id: string, options: Options): Call {
  const path = `/api/v1/executions/${encodeURIComponent(id)}`;
  const note = options.note.trim() === "" ? {} : { note: options.note.trim() };
  if (act === "delete") return { method: "DELETE", path };
  if (act === "cancel") return { method: "POST", path: `${path}/cancel`, body: note };
  if (act === "resume") return { method: "POST", path: `${path}/resume/${encodeURIComponent(options.key.trim())}`, body: body(act, options) };
  return { method: "POST", path: `${path}/${act}`, body: { ...body(act, options), ...note } };
}

/** The body of `POST /bulk/preview`. A job needs a filter: of `now` takes all. */
export function selection(act: Act, filters: Filters, options: Options, now: number): Record<string, unknown> {
  const given = Object.keys(filters).length === 0 ? { created_before: new Date(now).toISOString() } : filters;
  const chosen = { ...body(act, options), ...(act === "resume" ? { key: options.key.trim() } : {}) };
  return { action: act, filters: bulkFilters(given), ...(Object.keys(chosen).length === 0 ? {} : { options: chosen }) };
}
