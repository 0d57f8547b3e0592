/** Time travel: the state of an execution right after a row of its journal, computed from the rows that are loaded. */

import { FINAL, type Journal, type Span } from "./timeline";

export interface Then {
  seq: number;
  /** When the row was recorded, in milliseconds. */
  at: number;
  phase: string;
  /** The worker that held it. */
  worker: string | null;
  inFlight: { key: string; since: number; n: number }[];
  waits: Span[];
  childrenOpen: number;
  childrenEnded: number;
  usd: number;
  /** Spans with a recorded outcome, the newest first. */
  results: { seq: number; span: Span }[];
  /** What the row itself recorded, in words. */
  row: string;
  next: string | null;
}

interface Moment {
  at: number;
  words: string;
}

/** When each loaded row was recorded, and what it says. */
export function moments(journal: Journal): Map<number, Moment> {
  const found = new Map<number, Moment>();
  const put = (seq: number | null | undefined, iso: string | null | undefined, words: string) => {
    if (seq != null && iso != null) found.set(seq, { at: Date.parse(iso), words });
  };
  for (const claim of journal.claims.values()) {
    put(claim.seq, claim.from, `Worker ${short(claim.worker)} claimed it`);
    put(claim.to_seq, claim.to, claim.how === "lost" ? `Worker ${short(claim.worker)} was lost` : `Worker ${short(claim.worker)} let it go: ${claim.how ?? "released"}`);
  }
  for (const mark of journal.marks) put(mark.seq, mark.at, `${mark.kind}${mark.key == null ? "" : ` ${mark.key}`}`);
  for (const span of journal.spans.values()) {
    const seqs = span.seqs ?? [];
    const tried = new Set((span.tries ?? []).map((one) => one.seq));
    for (const one of span.tries ?? []) put(one.seq, one.ended_at, one.ok ? `${span.key} recorded its result` : `Try ${one.n} of ${span.key} failed`);
    seqs.forEach((seq, index) => {
      if (tried.has(seq)) return;
      const first = span.kind === "child" && index === 0;
      put(seq, first ? (span.queued_at ?? span.started_at) : (span.ended_at ?? span.started_at), first ? `Started the child ${span.key}` : `${span.key} ended: ${span.state}`);
    });
  }
  return found;
}

export function short(worker: string | null | undefined): string {
  return worker == null || worker === "" ? "unknown" : worker.replaceAll("-", "").slice(-4);
}

/** The seq of the row that gave the span its outcome; infinite while it has none. */
function outcomeSeq(span: Span): number {
  if (!FINAL.has(span.state)) return Number.POSITIVE_INFINITY;
  const tries = span.tries ?? [];
  if (tries.length > 0) return tries.at(-1)!.seq;
  const seqs = span.seqs ?? [];
  if (span.kind === "child" && seqs.length < 2) return Number.POSITIVE_INFINITY;
  return seqs.at(-1) ?? Number.POSITIVE_INFINITY;
}

export function stateAt(journal: Journal, seq: number): Then {
  const all = moments(journal);
  let at = Number.NaN;
  for (let row = seq; row >= 1 && Number.isNaN(at); row -= 1) at = all.get(row)?.at ?? Number.NaN;
  const claims = [...journal.claims.values()];
  const holder = claims.find((one) => (one.seq ?? Number.POSITIVE_INFINITY) <= seq && (one.to_seq ?? Number.POSITIVE_INFINITY) > seq);
  const before = claims.filter((one) => (one.to_seq ?? Number.POSITIVE_INFINITY) <= seq).sort((a, b) => b.to_seq! - a.to_seq!)[0];
  const started = (iso: string | null | undefined) => iso != null && Date.parse(iso) <= at;

  const inFlight: Then["inFlight"] = [];
  const waits: Span[] = [];
  const results: Then["results"] = [];
  let childrenOpen = 0;
  let childrenEnded = 0;
  let usd = 0;
  for (const span of journal.spans.values()) {
    const outcome = outcomeSeq(span);
    if (outcome <= seq) {
      results.push({ seq: outcome, span });
      usd += span.usd ?? 0;
    }
    if (span.kind === "child") {
      if (outcome <= seq) childrenEnded += 1;
      else if ((span.seqs?.[0] ?? Number.POSITIVE_INFINITY) <= seq) childrenOpen += 1;
    } else if (span.wait != null) {
      if (outcome > seq && started(span.started_at)) waits.push(span);
    } else if (span.kind === "step" && holder !== undefined) {
      const running = (span.tries ?? []).find((one) => one.seq > seq && started(one.started_at));
      const torn = (span.runs ?? []).find((one) => started(one.started_at) && (one.lost_at == null || Date.parse(one.lost_at) > at));
      if (running !== undefined) inFlight.push({ key: span.key, since: Date.parse(running.started_at!), n: running.n });
      else if (torn !== undefined && outcome > seq) inFlight.push({ key: span.key, since: Date.parse(torn.started_at), n: torn.n });
    }
  }
  results.sort((a, b) => b.seq - a.seq);
  const ended = journal.marks.filter((mark) => mark.seq <= seq).sort((a, b) => b.seq - a.seq);
  const last = ended.find((mark) => ["completed", "failed", "cancelled", "held", "blocked", "retried", "forked", "unblocked"].includes(mark.kind));
  return {
    seq,
    at,
    phase: phaseThen(last, holder !== undefined, before?.how ?? null, before?.to_seq ?? 0),
    worker: holder?.worker ?? null,
    inFlight,
    waits,
    childrenOpen,
    childrenEnded,
    usd,
    results,
    row: all.get(seq)?.words ?? `Row ${seq}`,
    next: all.get(seq + 1)?.words ?? null,
  };
}

function phaseThen(last: Journal["marks"][number] | undefined, held: boolean, how: string | null, howSeq: number): string {
  if (last !== undefined && ["completed", "failed", "cancelled"].includes(last.kind)) return last.kind;
  if (held) return "running";
  if (how !== null && ["completed", "failed", "cancelled"].includes(how)) return how;
  if (last !== undefined && last.seq >= howSeq && (last.kind === "held" || last.kind === "blocked")) return last.kind;
  if (how === "held" || how === "blocked") return how;
  return how === "waiting" ? "waiting" : "queued";
}
