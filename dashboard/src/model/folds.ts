/** Where the timeline is drawn to scale, and where a wait is folded. */

import { duration } from "./time";
import type { Journal, Row } from "./timeline";

export interface Stretch {
  from: number;
  to: number;
  /** Why it is folded; `null`: drawn to scale. */
  cause: string | null;
  /** It lies before the execution: a fork took over its rows. */
  kept?: boolean;
}

/** When the execution itself began. */
export interface Beginning {
  created: number;
  /** Its first claim, or now: until then it was queued. */
  claimed: number;
  /** Of a fork: the words for the rows that it took over. */
  kept: string | null;
}

/** Bars of work: of everything else the execution waits. */
const WORK = new Set(["done", "fail", "lost", "released", "live"]);

/** The shortest wait that folds: two seconds, or 20 times the median step. */
export function shortestFold(rows: readonly Row[]): number {
  const steps: number[] = [];
  for (const row of rows) for (const bar of row.bars) if (bar.kind === "done") steps.push(bar.to - bar.from);
  steps.sort((a, b) => a - b);
  return Math.max(2_000, 20 * (steps[steps.length >> 1] ?? 0));
}

/**
 * The time from the creation to the end, or to now, in stretches. A stretch in which nothing worked is folded, if it is long
 * enough. A child whose rows are not loaded counts as work. `shown` are the starts of folds that the user opened. What a fork
 * took over is one stretch before all others.
 */
export function stretches(
  rows: readonly Row[],
  journal: Journal,
  loaded: ReadonlyMap<string, Journal>,
  now: number,
  live: boolean,
  shown: ReadonlySet<number> = new Set(),
  begun?: Beginning,
): Stretch[] {
  const own = begun?.kept == null ? Number.NEGATIVE_INFINITY : begun.created;
  let before = Number.POSITIVE_INFINITY;
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  const work: [number, number][] = [];
  for (const row of rows) {
    for (const bar of row.bars) {
      if (bar.from < own) before = Math.min(before, bar.from);
      if (bar.to < own) continue;
      from = Math.min(from, Math.max(bar.from, own));
      to = Math.max(to, bar.to);
      if (WORK.has(bar.kind)) work.push([Math.max(bar.from, own), bar.to]);
      else if (bar.kind === "dot") work.push([bar.from, bar.from]);
      else if (bar.kind === "child" && row.folds === "child") {
        const child = loaded.get(row.span.child!.execution_id);
        if (child === undefined) work.push([bar.from, bar.to]);
        else for (const [start, end] of heldBy(child, now)) work.push([Math.max(start, bar.from), Math.min(end, bar.to)]);
      } else if (bar.kind === "child" && !row.unfolded) work.push([bar.from, bar.to]); // a folded group
    }
  }
  for (const claim of journal.claims.values()) {
    if (claim.copied === true) continue;
    if (claim.from != null) from = Math.min(from, Date.parse(claim.from));
    if (claim.to != null) to = Math.max(to, Date.parse(claim.to));
  }
  if (begun !== undefined) {
    from = Math.min(from, begun.created);
    to = Math.max(to, begun.claimed);
    work.push([begun.claimed, begun.claimed]); // the queue ends here, and a fold of it
  }
  if (live) to = Math.max(to, now);
  if (!(to >= from)) return [];
  const shortest = shortestFold(rows);
  const found: Stretch[] = before < from ? [{ from: before, to: from, cause: begun!.kept, kept: true }] : [];
  let start = from;
  const pushGap = (gapFrom: number, gapTo: number) => {
    if (gapTo - gapFrom < shortest || shown.has(gapFrom)) return;
    if (gapFrom > start) found.push({ from: start, to: gapFrom, cause: null });
    found.push({ from: gapFrom, to: gapTo, cause: begun !== undefined && gapTo <= begun.claimed ? "in the queue" : causeOf(rows, journal, gapFrom, gapTo, now) });
    start = gapTo;
  };
  let end = from;
  for (const [workFrom, workTo] of work.filter(([a, b]) => b >= a).sort((a, b) => a[0] - b[0])) {
    if (workFrom > end) pushGap(end, workFrom);
    end = Math.max(end, workTo);
  }
  if (to > end) pushGap(end, to);
  if (to > start || found.length === 0 || found.at(-1)!.kept === true) found.push({ from: start, to, cause: null });
  return found;
}

/** When a worker held the execution, and so worked on it. */
function heldBy(child: Journal, now: number): [number, number][] {
  return [...child.claims.values()].flatMap((claim): [number, number][] =>
    claim.from == null ? [] : [[Date.parse(claim.from), claim.to == null ? now : Date.parse(claim.to)]],
  );
}

/** What lay over the stretch: the wait that began last before it and did not end within it. */
function causeOf(rows: readonly Row[], journal: Journal, from: number, to: number, now: number): string {
  let best: { words: string; rank: number } | null = null;
  for (const row of rows) {
    for (const bar of row.bars) {
      // Some milliseconds of a wait may pass before it is recorded, and after its end.
      if (Math.min(bar.to, to) - Math.max(bar.from, from) < 0.9 * (to - from)) continue;
      const words = wordsOf(row, bar.kind);
      const rank = words === null ? 0 : { wait: 3, held: 5, pause: 4, queue: 2, child: 1 }[bar.kind as string] ?? 0;
      if (words !== null && (best === null || rank > best.rank)) best = { words, rank };
    }
  }
  if (best !== null) return best.words;
  const claims = [...journal.claims.values()];
  if (claims.some((claim) => claim.how === "lost" && claim.to != null && Date.parse(claim.to) >= from && Date.parse(claim.to) <= to + 1)) return "its worker was lost";
  const held = covered(heldBy(journal, now), from, to);
  if (held >= 0.99 * (to - from)) return "no step recorded";
  return held === 0 ? "no worker held it" : `a worker held it for ${duration(held)}; no step recorded`;
}

/** How much of a stretch the spans cover. */
function covered(spans: [number, number][], from: number, to: number): number {
  let sum = 0;
  let end = from;
  for (const [a, b] of spans.sort((one, other) => one[0] - other[0])) {
    sum += Math.max(0, Math.min(b, to) - Math.max(a, end));
    end = Math.max(end, b);
  }
  return sum;
}

function wordsOf(row: Row, kind: string): string | null {
  if (kind === "wait") {
    if (row.span.kind === "timer") return "asleep";
    return row.span.kind === "answer" ? `waiting for an answer: ${row.span.key}` : `waiting for ${row.span.wait?.topic ?? row.span.name ?? row.span.key}`;
  }
  if (kind === "held") return `held at ${row.span.key}`;
  if (kind === "pause") return `pause before the next try of ${row.span.key}`;
  if (kind === "queue") return `${row.span.name ?? row.span.key} was queued`;
  return kind === "child" ? `waiting for ${row.span.name ?? row.span.key}` : null;
}

export interface Placed extends Stretch {
  /** In pixels of the bars' column. */
  left: number;
  width: number;
}

export interface Scale {
  stretches: Placed[];
  /** The place of a moment, in pixels. */
  x: (at: number) => number;
  /** The moment at a place. */
  at: (x: number) => number;
  /** How many milliseconds a pixel of the stretches to scale shows. */
  msPerPixel: number;
}

const FOLD = 52;
const EDGE = 6;

/** Folds have a fixed width, all other stretches share one scale. */
export function scaleOf(found: readonly Stretch[], width: number): Scale {
  const folds = found.filter((one) => one.cause !== null).length;
  const fold = folds === 0 ? 0 : Math.max(4, Math.min(FOLD, ((width - 2 * EDGE) * 0.45) / folds));
  const drawn = found.reduce((sum, one) => sum + (one.cause === null ? one.to - one.from : 0), 0);
  const room = Math.max(1, width - 2 * EDGE - folds * fold);
  const msPerPixel = Math.max(drawn, 1) / room;
  let left = EDGE;
  const placed = found.map((one) => {
    const wide = one.cause === null ? (one.to - one.from) / msPerPixel : fold;
    const here = { ...one, left, width: wide };
    left += wide;
    return here;
  });
  const find = (test: (one: Placed) => boolean) => {
    let low = 0;
    let high = placed.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (test(placed[middle]!)) high = middle;
      else low = middle + 1;
    }
    return placed[low];
  };
  return {
    stretches: placed,
    msPerPixel,
    x: (when) => {
      const one = find((stretch) => when <= stretch.to);
      if (one === undefined) return EDGE;
      const share = one.to > one.from ? Math.min(1, Math.max(0, (when - one.from) / (one.to - one.from))) : 0;
      return one.left + share * one.width;
    },
    at: (x) => {
      const one = find((stretch) => x <= stretch.left + stretch.width);
      if (one === undefined) return 0;
      const share = one.width > 0 ? Math.min(1, Math.max(0, (x - one.left) / one.width)) : 0;
      return one.from + share * (one.to - one.from);
    },
  };
}

/** How long the execution was in the queue before its first claim, and then how long the drawn stretches are together, and
 * how long the folded ones. */
export function spentOf(found: readonly Stretch[], begun?: Beginning): { queued: number; worked: number; waited: number } {
  const queued = begun === undefined ? 0 : Math.max(0, begun.claimed - begun.created);
  const claimed = begun?.claimed ?? Number.NEGATIVE_INFINITY;
  let worked = 0;
  let waited = 0;
  for (const one of found) {
    if (one.kept === true) continue;
    const took = Math.max(0, one.to - Math.max(one.from, claimed));
    if (one.cause === null) worked += took;
    else waited += took;
  }
  return { queued, worked, waited };
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000, 172_800_000, 604_800_000, 2_592_000_000];

export interface Tick {
  at: number;
  x: number;
  /** From the start of its stretch; `null`: the start itself, shown as a time of day. */
  since: number | null;
}

/** Marks on the clock's ruler, at least 84 pixels apart. */
/** The ticks between two places in pixels. */
export function ticks(scale: Scale, left = 0, right = Number.POSITIVE_INFINITY): Tick[] {
  const found: Tick[] = [];
  let last = Number.NEGATIVE_INFINITY;
  const step = STEPS.find((one) => one / scale.msPerPixel >= 84) ?? STEPS.at(-1)!;
  for (const one of scale.stretches) {
    if (one.cause !== null || one.width < 24 || one.left + one.width < left || one.left > right) continue;
    if (one.left - last >= 62 && one.left >= left) {
      found.push({ at: one.from, x: one.left, since: null });
      last = one.left;
    }
    const first = Math.max(1, Math.ceil(((left - one.left) * scale.msPerPixel) / step));
    for (let since = first * step; one.from + since < one.to; since += step) {
      const x = one.left + since / scale.msPerPixel;
      if (x > right) break;
      if (x < left || x - last < 62 || one.left + one.width - x < 40) continue;
      found.push({ at: one.from + since, x, since: found.length === 0 ? null : since }); // the first one in view names the time
      last = x;
    }
  }
  return found;
}
