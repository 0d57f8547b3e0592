/** The journal of an execution as rows with bars. Pure: the page gives the time. */

import type { Schemas } from "../api/client";

/** Fields that are false are left out of answers. */
type Sent<T, Flags extends keyof T> = Omit<T, Flags> & Partial<Pick<T, Flags>>;

export type Span = Sent<Schemas["TimelineSpan"], "copied" | "quiet">;
export type Claim = Sent<Schemas["TimelineClaim"], "copied">;
export type Page = Omit<Schemas["TimelineResponse"], "spans" | "claims"> & { spans: Span[]; claims: Claim[] };
export type Mark = Schemas["TimelineMark"];

/** What is loaded of a timeline. Pages of one execution are merged into it by key and attempt. */
export interface Journal {
  id: string;
  lastSeq: number;
  /** All pages up to the server's newest row are here. */
  whole: boolean;
  spans: Map<string, Span>;
  claims: Map<number, Claim>;
  marks: Mark[];
  counts: Record<string, number>;
  lost: number;
  stepsRerun: number;
}

export function emptyJournal(id: string): Journal {
  return { id, lastSeq: 0, whole: false, spans: new Map(), claims: new Map(), marks: [], counts: {}, lost: 0, stepsRerun: 0 };
}

const LAST_WINS = ["state", "ended_at", "wait", "child", "error", "bytes", "usd", "tokens", "edited"] as const;
const FIRST_WINS = ["queued_at", "started_at", "name", "label", "quiet"] as const;

/** Adds a page that follows the rows that are known. Changes `known` and returns it. */
export function merge(known: Journal, page: Page): Journal {
  if (!page.has_more) {
    // The newest page lists again what is in flight or open; a call that it leaves out has ended without a row.
    const listed = new Set(page.spans.map((span) => `${span.kind} ${span.key}`));
    for (const [key, span] of known.spans) {
      if ((span.seqs ?? []).length === 0 && !listed.has(key)) known.spans.delete(key);
      else if (span.runs?.some((run) => run.lost_at == null)) {
        known.spans.set(key, { ...span, runs: span.runs.filter((run) => run.lost_at != null) });
      }
    }
  }
  for (const span of page.spans) {
    const id = `${span.kind} ${span.key}`;
    const old = known.spans.get(id);
    known.spans.set(id, old === undefined ? span : mergeSpans(old, span));
  }
  for (const claim of page.claims) known.claims.set(claim.attempt, { ...claim, ...present(known.claims.get(claim.attempt)) });
  known.marks.push(...page.marks);
  for (const [kind, n] of Object.entries(page.counts)) known.counts[kind] = (known.counts[kind] ?? 0) + (n as number);
  known.lost += page.proof.lost;
  known.stepsRerun += page.proof.steps_rerun;
  known.lastSeq = Math.max(known.lastSeq, page.last_seq);
  known.whole = !page.has_more;
  return known;
}

function present<T extends object>(given: T | undefined): Partial<T> {
  return Object.fromEntries(Object.entries(given ?? {}).filter(([, value]) => value != null)) as Partial<T>;
}

function mergeSpans(old: Span, later: Span): Span {
  const both: Span = {
    ...old,
    tries: [...(old.tries ?? []), ...(later.tries ?? [])],
    runs: [...(old.runs ?? []), ...(later.runs ?? [])],
    seqs: [...(old.seqs ?? []), ...(later.seqs ?? [])],
  };
  for (const name of LAST_WINS) if (later[name] != null) (both as Record<string, unknown>)[name] = later[name];
  for (const name of FIRST_WINS) if (both[name] == null && later[name] != null) (both as Record<string, unknown>)[name] = later[name];
  return both;
}

export type BarKind = "done" | "fail" | "lost" | "released" | "live" | "pause" | "wait" | "held" | "queue" | "child" | "dot";

export interface Bar {
  kind: BarKind;
  from: number;
  to: number;
  /** It goes on: `to` is now. */
  open?: boolean;
  /** The phase that colours it. */
  phase: string;
}

export interface Row {
  /** Unique within the page: the execution's id, the kind and the key. */
  id: string;
  depth: number;
  span: Span;
  /** The execution whose journal has it. */
  execution: string;
  bars: Bar[];
  from: number;
  to: number;
  open: boolean;
  /** Rows below it: the rows of a child, the children of a group, or small steps. */
  folds: "child" | "group" | "quiet" | null;
  unfolded: boolean;
  /** Of a group: its children or steps. */
  members: Span[];
}

export const MOST_BARS = 6;
const GROUP_FROM = 4;

const at = (iso: string | null | undefined): number => (iso == null ? Number.NaN : Date.parse(iso));

export const FINAL = new Set(["completed", "failed", "cancelled", "closed"]);

export function phaseOf(span: Span): string {
  if (span.kind === "child" && span.child?.phase != null && !FINAL.has(span.state)) return span.child.phase;
  return { closed: "cancelled", lost: "failed", paused: "waiting" }[span.state as string] ?? span.state;
}

const known = new WeakMap<Span, Bar[]>();

/** The bars of a span, from left to right. They never overlap, and there are at most six. */
export function barsOf(span: Span, now: number): Bar[] {
  const before = known.get(span);
  if (before !== undefined) return before;
  const bars = layOut(span, now);
  if (FINAL.has(span.state)) known.set(span, bars);
  return bars;
}

function layOut(span: Span, now: number): Bar[] {
  const phase = phaseOf(span);
  const done = FINAL.has(span.state);
  const end = done ? at(span.ended_at) : now;
  const bars: Bar[] = [];
  if (span.kind === "child") {
    const queued = at(span.queued_at);
    const started = at(span.started_at);
    if (!Number.isNaN(queued) && (Number.isNaN(started) || started > queued)) {
      bars.push({ kind: "queue", from: queued, to: Number.isNaN(started) ? end : started, open: Number.isNaN(started) && !done, phase: "queued" });
    }
    if (!Number.isNaN(started)) bars.push({ kind: "child", from: started, to: end, open: !done, phase });
  } else if (span.wait != null) {
    const from = at(span.started_at);
    bars.push({ kind: "wait", from, to: end, open: !done, phase: "waiting" });
  } else if (span.kind === "step") {
    const tries = [...(span.tries ?? [])].sort((a, b) => a.seq - b.seq);
    tries.forEach((one, index) => {
      const to = at(one.ended_at);
      bars.push({ kind: one.ok ? "done" : "fail", from: Number.isNaN(at(one.started_at)) ? to : at(one.started_at), to, phase: one.ok ? "completed" : "failed" });
      if (one.ok || one.retry_at == null) return;
      const next = tries[index + 1];
      const until = next === undefined ? at(one.retry_at) : at(next.started_at);
      const open = next === undefined && span.state === "paused";
      bars.push({ kind: "pause", from: to, to: open ? Math.max(until, now) : until, open, phase: "waiting" });
    });
    for (const run of span.runs ?? []) {
      const from = at(run.started_at);
      if (run.lost_at != null) bars.push({ kind: "lost", from, to: at(run.lost_at), phase: "failed" });
      else bars.push({ kind: "live", from, to: now, open: true, phase: "running" });
    }
    if (span.state === "held" && bars.length > 0) bars.push({ kind: "held", from: Math.max(...bars.map((bar) => bar.to)), to: now, open: true, phase: "held" });
  } else {
    const when = Number.isNaN(at(span.started_at)) ? at(span.ended_at) : at(span.started_at);
    bars.push({ kind: "dot", from: when, to: when, phase });
  }
  return fewer(apart(bars.filter((bar) => !Number.isNaN(bar.from) && !Number.isNaN(bar.to))));
}

/** In order, each begins where the one before ends, or later. */
function apart(bars: Bar[]): Bar[] {
  const order = bars.sort((a, b) => a.from - b.from || a.to - b.to);
  const kept: Bar[] = [];
  let end = Number.NEGATIVE_INFINITY;
  for (const bar of order) {
    const from = Math.max(bar.from, end);
    const to = Math.max(bar.to, from);
    if (bar.kind === "pause" && to === from) continue; // the next try began at once
    kept.push({ ...bar, from, to });
    end = to;
  }
  return kept;
}

/** Many tries: the first and the last ones, and one bar for those between. */
function fewer(bars: Bar[]): Bar[] {
  if (bars.length <= MOST_BARS) return bars;
  const head = bars.slice(0, 1);
  const tail = bars.slice(bars.length - (MOST_BARS - 2));
  const between = bars.slice(1, bars.length - (MOST_BARS - 2));
  return [...head, { kind: "fail", from: between[0]!.from, to: between.at(-1)!.to, phase: "failed" }, ...tail];
}

export interface Open {
  /** Ids of rows that the user folded out or in, against the default. */
  has: (id: string) => boolean;
}

/** The rows of a journal, with those of unfolded children and groups below theirs. */
export function rowsOf(journal: Journal, now: number, unfolded: Open, children: ReadonlyMap<string, Journal>, depth = 0): Row[] {
  const rows: Row[] = [];
  // A timer that only bounds another wait ends at the same time; that wait's row says it.
  const bounds = new Set<string>();
  for (const span of journal.spans.values()) if (span.kind !== "timer" && span.wait?.until != null) bounds.add(span.wait.until);
  const spans = [...journal.spans.values()].filter((span) => span.kind !== "timer" || span.wait?.until == null || !bounds.has(span.wait.until));
  for (let index = 0; index < spans.length; ) {
    const span = spans[index]!;
    const alike: ((other: Span) => boolean) | null =
      span.kind === "child" ? (other) => other.kind === "child" && other.name === span.name : isQuiet(span) ? isQuiet : null;
    let last = index + 1;
    if (alike !== null) while (last < spans.length && alike(spans[last]!)) last += 1;
    const members = spans.slice(index, last);
    const quiet = span.kind !== "child";
    index = last;
    if (members.length < (quiet ? 2 : GROUP_FROM)) {
      for (const one of members) addRow(rows, journal, one, now, unfolded, children, depth);
      continue;
    }
    const bars = members.flatMap((one) => barsOf(one, now));
    const from = Math.min(...bars.map((bar) => bar.from));
    const to = Math.max(...bars.map((bar) => bar.to));
    const open = members.some((one) => !FINAL.has(one.state));
    const phase = worst(members.map(phaseOf));
    const id = `${journal.id} group ${span.key}`;
    const shown = unfolded.has(id) !== (!quiet && members.length <= 12);
    rows.push({
      id,
      depth,
      span,
      execution: journal.id,
      from,
      to,
      open,
      folds: quiet ? "quiet" : "group",
      unfolded: shown,
      members,
      bars: bars.length === 0 ? [] : [{ kind: quiet ? "done" : "child", from, to, open, phase }],
    });
    if (shown) for (const one of quiet ? members : interesting(members)) addRow(rows, journal, one, now, unfolded, children, depth + 1);
  }
  return rows;
}

/** Small steps that went well fold into one row. */
function isQuiet(span: Span): boolean {
  return span.quiet === true && span.state === "completed" && (span.tries ?? []).length === 1;
}

/** Of a large group: those that failed, those that are open, and the slowest. */
export function interesting(members: Span[]): Span[] {
  if (members.length <= 120) return members;
  const took = (span: Span) => at(span.ended_at) - at(span.started_at);
  const failed = members.filter((one) => one.state === "failed").slice(0, 50);
  const open = members.filter((one) => !FINAL.has(one.state)).slice(0, 50);
  const slowest = members.filter((one) => one.state === "completed").sort((a, b) => took(b) - took(a)).slice(0, 20);
  const shown = new Set([...failed, ...open, ...slowest]);
  return members.filter((one) => shown.has(one));
}

export function worst(phases: string[]): string {
  for (const phase of ["failed", "blocked", "held", "running", "cancelling", "waiting", "queued", "cancelled"]) if (phases.includes(phase)) return phase;
  return "completed";
}

/**
 * Runs that broke off and that no row names, by the row of their step: those that a worker handed back, and those that were
 * lost before a beat named the step. The code is deterministic, so a run was on its way from the last outcome to the step
 * that came next, or that is in flight now.
 */
function unnamedRuns({ claims, spans }: Journal): ReadonlyMap<string, Bar[]> {
  const found = new Map<string, Bar[]>();
  for (const claim of claims.values()) {
    if ((claim.how !== "lost" && claim.how !== "released") || claim.to_seq == null || claim.copied === true) continue;
    const to = at(claim.to);
    let from = at(claim.from);
    let next: { id: string; seq: number } | null = null;
    let isNamed = false;
    for (const [id, span] of spans) {
      isNamed ||= (span.runs ?? []).some((run) => run.attempt === claim.attempt && run.lost_at != null);
      const seq = span.seqs?.[0] ?? (span.state === "running" ? Number.POSITIVE_INFINITY : undefined);
      if (seq === undefined) continue;
      if (seq < claim.to_seq) from = at(span.ended_at) <= to ? Math.max(from, at(span.ended_at)) : from;
      else if (span.kind === "step" && (next === null || seq < next.seq)) next = { id, seq };
    }
    if (isNamed || next === null || !(from < to)) continue;
    const bar: Bar = claim.how === "lost" ? { kind: "lost", from, to, phase: "failed" } : { kind: "released", from, to, phase: "queued" };
    found.set(next.id, [...(found.get(next.id) ?? []), bar]);
  }
  return found;
}

const NO_BARS: readonly Bar[] = [];
const torn = new WeakMap<Journal, { seq: number; spans: number; bars: ReadonlyMap<string, Bar[]> }>();

function tornBars(journal: Journal, key: string): readonly Bar[] {
  let known = torn.get(journal);
  if (known?.seq !== journal.lastSeq || known.spans !== journal.spans.size) {
    torn.set(journal, (known = { seq: journal.lastSeq, spans: journal.spans.size, bars: unnamedRuns(journal) }));
  }
  return known.bars.get(key) ?? NO_BARS;
}

function addRow(rows: Row[], journal: Journal, span: Span, now: number, unfolded: Open, children: ReadonlyMap<string, Journal>, depth: number): void {
  const id = `${journal.id} ${span.kind} ${span.key}`;
  const broken = tornBars(journal, `${span.kind} ${span.key}`);
  const whole = barsOf(span, now);
  const overlaps = (bar: Bar) => broken.some((one) => bar.from < one.to && bar.to > one.from);
  const bars = broken.length === 0 ? whole : fewer(apart([...broken, ...whole.filter((bar) => bar.kind !== "pause" || !overlaps(bar))]));
  const child = span.kind === "child" && span.child != null ? span.child.execution_id : null;
  const shown = child !== null && unfolded.has(id);
  rows.push({
    id, depth, span, execution: journal.id, bars,
    from: bars[0]?.from ?? Number.NaN,
    to: bars.at(-1)?.to ?? Number.NaN,
    open: !FINAL.has(span.state),
    folds: child === null ? null : "child",
    unfolded: shown,
    members: [],
  });
  const below = child === null ? undefined : children.get(child);
  if (shown && below !== undefined && depth < 8) rows.push(...rowsOf(below, now, unfolded, children, depth + 1));
}

/** How long a row took, without its pauses between tries: `null` for moments. */
export function tookOf(row: Row): number | null {
  if (row.bars.length === 0 || row.bars[0]!.kind === "dot") return null;
  return row.to - row.from;
}

export interface Holding {
  worker: string;
  from: number;
  to: number;
  lost: boolean;
  /** It holds the execution now. */
  open: boolean;
}

/** Which worker held the execution when. Holdings of one worker with short gaps are one. */
export function holdings(journal: Journal, now: number, gap: number): Holding[] {
  const found: Holding[] = [];
  for (const claim of [...journal.claims.values()].sort((a, b) => a.attempt - b.attempt)) {
    const from = at(claim.from);
    if (Number.isNaN(from) || claim.copied === true) continue;
    const to = claim.to == null ? now : at(claim.to);
    const last = found.at(-1);
    const worker = claim.worker ?? "";
    if (last !== undefined && last.worker === worker && !last.lost && from - last.to <= gap) {
      last.to = Math.max(last.to, to);
      last.open = claim.to == null;
      last.lost = claim.how === "lost";
    } else found.push({ worker, from, to: Math.max(from, to), lost: claim.how === "lost", open: claim.to == null });
  }
  return found;
}

export interface Loss {
  at: number;
  worker: string;
  /** The worker that went on, and when. */
  next: { worker: string; at: number } | null;
}

/** Lost workers. Where a run is known to have broken off, the line is there; else where the server noticed. */
export function losses(journal: Journal): Loss[] {
  const claims = [...journal.claims.values()].sort((a, b) => a.attempt - b.attempt);
  return claims.flatMap((claim, index) => {
    if (claim.how !== "lost" || claim.to == null || claim.copied === true) return [];
    const next = claims.slice(index + 1).find((one) => one.from != null);
    return [{ at: at(claim.to), worker: claim.worker ?? "", next: next === undefined ? null : { worker: next.worker ?? "", at: at(next.from) } }];
  });
}

/** One word a journal row, by its number: what the ribbon's cells show. */
export function cells(journal: Journal): string[] {
  const found: string[] = Array.from({ length: journal.lastSeq }, () => "mark");
  const put = (seq: number | null | undefined, phase: string) => {
    if (seq != null && seq >= 1 && seq <= found.length) found[seq - 1] = phase;
  };
  for (const span of journal.spans.values()) {
    const phase = span.wait != null || span.kind === "child" ? (FINAL.has(span.state) && span.kind === "child" ? phaseOf(span) : "waiting") : phaseOf(span);
    for (const seq of span.seqs ?? []) put(seq, phase);
    for (const one of span.tries ?? []) put(one.seq, one.ok ? "completed" : "failed");
  }
  for (const claim of journal.claims.values()) if (claim.how === "lost") put(claim.to_seq, "failed");
  for (const mark of journal.marks) put(mark.seq, { failed: "failed", completed: "completed", cancelled: "cancelled", blocked: "blocked", held: "held" }[mark.kind as string] ?? "mark");
  return found;
}
