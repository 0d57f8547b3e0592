/** The words beside a row's bars: only what the bars cannot say. */

import { duration } from "./time";
import { counted } from "./words";
import { FINAL, tookOf, type Row } from "./timeline";

const ORDINALS = ["", "1st", "2nd", "3rd"];

export function ordinal(n: number): string {
  return ORDINALS[n] ?? `${n}th`;
}

export interface Said {
  text: string;
  tone: "plain" | "bad" | "warn";
}

export function saidBeside(row: Row, slowest: string | null): Said | null {
  const { span } = row;
  if (row.folds === "quiet") return null;
  if (row.folds === "group") {
    const ended = row.members.filter((one) => FINAL.has(one.state));
    const failed = row.members.filter((one) => one.state === "failed").length;
    const text = `${ended.length} of ${row.members.length}`;
    return failed > 0 ? { text: `${text}, ${failed} failed`, tone: "bad" } : { text, tone: "plain" };
  }
  if (span.edited != null) return { text: `decided by hand: ${span.edited.replaceAll("_", " ")}`, tone: "warn" };
  if (span.wait?.by != null) return { text: `answered by ${span.wait.by}`, tone: "warn" };
  if (span.state === "failed") return { text: lastError(row), tone: "bad" };
  if (span.state === "held") return { text: `held: ${lastError(row)}`, tone: "bad" };
  const tries = span.tries ?? [];
  if (span.state === "paused") return { text: lastError(row), tone: "bad" };
  if ((span.runs ?? []).some((run) => run.lost_at != null)) {
    return span.state === "lost"
      ? { text: "lost with its worker", tone: "bad" }
      : { text: `${ordinal((span.runs ?? []).filter((run) => run.lost_at != null).length + 1)} run, same idempotency key`, tone: "plain" };
  }
  if (row.bars.some((bar) => bar.kind === "lost")) return { text: "its worker was lost", tone: "plain" };
  if (row.bars.some((bar) => bar.kind === "released")) return { text: "its worker handed it back", tone: "plain" };
  if (tries.length > 1) return { text: `${ordinal(tries.at(-1)!.n)} try`, tone: "plain" };
  if (span.kind === "child") {
    const queue = row.bars.find((bar) => bar.kind === "queue");
    if (queue !== undefined && queue.to - queue.from >= 500) return { text: `${duration(queue.to - queue.from)} in its queue`, tone: "plain" };
  }
  return row.id === slowest ? { text: "slowest step", tone: "plain" } : null;
}

function lastError(row: Row): string {
  const error = row.span.error ?? (row.span.tries ?? []).findLast((one) => one.error != null)?.error;
  return error == null ? "failed" : errorLine(error).slice(0, 120);
}

/** The first line of an error. Empty texts are left out of answers. */
export function errorLine(error: { type?: string; message?: string }): string {
  return error.message == null || error.message === "" ? (error.type ?? "failed") : error.message.split("\n", 1)[0]!;
}

/** The step that took longest, if there are enough to compare. */
export function slowestStep(rows: readonly Row[]): string | null {
  let best: Row | null = null;
  let steps = 0;
  for (const row of rows) {
    if (row.depth > 0 || row.folds !== null || row.span.kind !== "step" || row.open) continue;
    steps += 1;
    if (best === null || row.to - row.from > best.to - best.from) best = row;
  }
  return best !== null && steps >= 5 && best.to - best.from >= 500 ? best.id : null;
}

/** A row as it is read out: "charge_card, step, completed, 890 ms, 2nd run, same idempotency key". */
export function readOut(row: Row, said: Said | null): string {
  const took = tookOf(row);
  const name = row.folds === "group" ? counted(row.members.length, "child", "children") : row.folds === "quiet" ? counted(row.members.length, "small step") : row.span.kind;
  return [row.span.key, name, row.span.state, took === null ? null : duration(took), said?.text].filter((part) => part != null).join(", ");
}

const SHORTEST = 60; // pixels that still say something

/**
 * Where words of a length stand beside bars: behind the last one, else before the last one that has room there, else cut
 * behind the last one. They never stand over `labels`, those of folded waits.
 */
export function placeFor(length: number, bars: [from: number, to: number][], width: number, labels: [from: number, to: number][] = []): { at: number; left: boolean; most?: number } | null {
  const end = bars.at(-1)?.[1] ?? 0;
  const room = Math.min(width, ...labels.filter(([, to]) => to > end).map(([from]) => from)) - end;
  if (room >= length) return { at: end, left: false };
  for (let at = bars.length - 1; at >= 0; at--) {
    const from = bars[at]![0];
    const before = Math.max(bars[at - 1]?.[1] ?? 0, ...labels.filter((label) => label[0] < from).map(([, to]) => to));
    if (from - before >= length) return { at: from, left: true };
  }
  return room >= SHORTEST ? { at: end, left: false, most: room } : null;
}
