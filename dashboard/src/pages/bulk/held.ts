import { now, send, type Schemas } from "../../api/client";
import { ING, type Act } from "../../model/bulk";
import { count, counted } from "../../model/words";
import { toast } from "../../parts/toast";

export type Job = Schemas["BulkJob"];

/** Bulk jobs of pages wait so long before the first execution changes. */
export const HOLD_SECONDS = 30;

/** The time at which a held job starts. Null: it is not held. */
export function startOf(job: Job): number | null {
  const at = job.state === "running" && job.starts_at != null ? Date.parse(job.starts_at) : 0;
  return at > now() ? at : null;
}

/** Before its start a stop undoes a job, and a continuation starts it. */
export async function decide(job: Job, word: "stop" | "continue", open: () => void): Promise<void> {
  try {
    const after = (await send("POST", `/api/v1/bulk/${job.id}/${word}`)) as Job;
    if (word === "continue") say(after, open);
    else if (after.done === 0) toast("Undone: no execution has changed.");
    else toast(`Stopped. ${counted(after.done, "execution")} had changed already.`, { word: "Open the job", run: open });
  } catch (problem) {
    toast((problem as Error).message, { word: "Open the job", run: open });
  }
}

/** Says that a job has been started, with Undo while it is held. */
export function say(job: Job, open: () => void, refresh: () => void = () => {}): void {
  const words = `${ING[job.action as Act] ?? "Acting on"} ${job.at_least ? `at least ${count(job.total)} executions` : counted(job.total, "execution")}`;
  const start = startOf(job);
  if (start === null) toast(words, { word: "Open the job", run: open });
  else {
    const then = (word: "stop" | "continue") => () => void decide(job, word, open).then(refresh);
    toast(words, [{ word: "Undo", key: "mod+z", run: then("stop") }, { word: "Start now", run: then("continue") }], {
      until: start,
      begun: () => toast(words, { word: "Open the job", run: open }),
    });
  }
}
