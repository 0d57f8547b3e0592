/** The Overview: its headline, what is hidden, heat strips and the axis of its chart. */

import { counted } from "./words";

export function headline(n: number): string {
  return n === 0 ? "Nothing needs attention" : counted(n, "item needs attention", "items need attention");
}

interface Item {
  kind: string;
  count: number;
  filter?: Record<string, string> | null;
  details: Record<string, unknown>;
}

/** The same item after its numbers and times have changed. */
export function identity(item: Item): string {
  const named = Object.entries(item.details).filter(([name]) => !name.endsWith("_at") && !name.endsWith("_count"));
  return `${item.kind} ${JSON.stringify(named)}`;
}

const HIDDEN = "perdure.hidden";

function hidden(): Record<string, number> {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(HIDDEN) ?? "{}");
    return typeof kept === "object" && kept !== null ? (kept as Record<string, number>) : {};
  } catch {
    return {};
  }
}

/** Hide an item in this browser until it has grown by half. */
export function dismiss(item: Item): void {
  const kept = Object.entries({ ...hidden(), [identity(item)]: item.count }).slice(-50);
  localStorage.setItem(HIDDEN, JSON.stringify(Object.fromEntries(kept)));
}

export function keepShown(item: Item): boolean {
  const then = hidden()[identity(item)];
  return then === undefined || item.count >= then * 1.5;
}

export interface Cell {
  /** 0 to 1. */
  height: number;
  phase: "completed" | "waiting" | "failed";
}

/** A cell for each slot; null: nothing ended in it. Steps of colour at 2 % and 8 % failed. */
export function heat(ended: readonly number[], failed: readonly number[]): (Cell | null)[] {
  const most = Math.max(1, ...ended);
  return ended.map((n, at) => {
    if (n === 0) return null;
    const share = (failed[at] ?? 0) / n;
    return { height: Math.max(0.2, n / most), phase: share >= 0.08 ? "failed" : share >= 0.02 ? "waiting" : "completed" };
  });
}

/** The top of an axis: 2, 4, 10, 20, 40, 100, … so that its half is a whole number. */
export function niceTop(most: number): number {
  for (let power = 1; ; power *= 10) for (const step of [2, 4, 10]) if (step * power >= most) return step * power;
}

const HOUR = 3_600_000;

/** Whole hours or days along an axis, at most seven. */
export function labels(from: number, span: number): { at: number; text: string }[] {
  const step = [HOUR / 6, HOUR / 4, HOUR, 2 * HOUR, 4 * HOUR, 24 * HOUR, 5 * 24 * HOUR].find((one) => span / one <= 7) ?? 30 * 24 * HOUR;
  const shift = new Date(from).getTimezoneOffset() * 60_000;
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at < from + span; at += step) {
    const day = new Date(at);
    const text = step >= 24 * HOUR ? day.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : `${String(day.getHours()).padStart(2, "0")}:${String(day.getMinutes()).padStart(2, "0")}`;
    found.push({ at, text });
  }
  return found;
}
