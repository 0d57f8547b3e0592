import { describe, expect, test } from "vitest";
import { scaleOf, stretches, ticks, spentOf } from "../../src/model/folds";
import { placeFor, saidBeside } from "../../src/model/says";
import { stateAt } from "../../src/model/then";
import { barsOf, cells, emptyJournal, holdings, losses, merge, MOST_BARS, rowsOf, type Journal, type Page, type Span } from "../../src/model/timeline";

const T0 = Date.parse("2026-11-29T08:00:00Z");
const iso = (ms: number) => new Date(T0 + ms).toISOString();
const CLOSED = { has: () => false };

function page(spans: Span[], rest: Partial<Page> = {}): Page {
  return { execution_id: "x", last_seq: 100, has_more: false, spans, claims: [], marks: [], counts: {}, proof: { lost: 0, steps_rerun: 0 }, ...rest };
}

function step(key: string, seq: number, from: number, to: number): Span {
  return {
    key, name: key, kind: "step", state: "completed", started_at: iso(from), ended_at: iso(to),
    tries: [{ n: 1, seq, attempt: 1, started_at: iso(from), ended_at: iso(to), ok: true }], seqs: [seq],
  };
}

function wait(key: string, kind: "event" | "timer" | "answer", from: number, to: number | null): Span {
  return { key, kind, state: to === null ? "waiting" : "completed", started_at: iso(from), ended_at: to === null ? undefined : iso(to), wait: { for: kind }, seqs: to === null ? [] : [50] };
}

/** The same numbers on each run. */
function random(seed: number): () => number {
  return () => ((seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) / 2 ** 31);
}

/** A journal with all kinds of rows, some of them late, torn or out of order. */
function anyJournal(seed: number): Journal {
  const next = random(seed);
  const some = (most: number) => Math.floor(next() * most);
  const spans: Span[] = [];
  let seq = 1;
  let at = 0;
  for (let index = 0; index < 30; index += 1) {
    const from = at + some(3_000);
    const kind = some(5);
    if (kind === 0) spans.push(wait(`w${index}`, "event", from, some(4) === 0 ? null : from + some(1e7)));
    else if (kind === 1) {
      spans.push({ key: `c${index}`, name: `c${index}`, kind: "child", state: "completed", queued_at: iso(from), started_at: iso(from + some(2_000)), ended_at: iso(from + 2_000 + some(9_000)), child: { execution_id: `e${index}`, workflow_id: "c" }, seqs: [seq++, seq++] });
    } else {
      const tries: NonNullable<Span["tries"]> = [];
      let start = from;
      const count = 1 + some(12);
      for (let n = 1; n <= count; n += 1) {
        const end = start + some(900);
        const ok = n === count;
        tries.push({ n, seq: seq++, attempt: 1, started_at: iso(start), ended_at: iso(end), ok, ...(ok ? {} : { retry_at: iso(end + some(500)) }) });
        start = end + some(700) - 100; // clocks of two workers differ
      }
      const runs = some(3) === 0 ? [{ attempt: 1, worker: "w", n: 1, started_at: iso(from - some(500)), lost_at: iso(from + some(500)) }] : [];
      spans.push({ key: `s${index}`, name: "s", kind: "step", state: "completed", started_at: iso(from), ended_at: tries.at(-1)!.ended_at, tries, runs, seqs: tries.map((one) => one.seq) });
    }
    at = from + some(5) * some(4_000);
  }
  return merge(emptyJournal("x"), page(spans, { last_seq: seq }));
}

describe("any journal", () => {
  test.each(Array.from({ length: 200 }, (_, seed) => seed + 1))("seed %i", (seed) => {
    const now = T0 + 2e7;
    const journal = anyJournal(seed);
    const rows = rowsOf(journal, now, CLOSED, new Map());
    for (const row of rows) {
      expect(row.bars.length).toBeLessThanOrEqual(MOST_BARS);
      for (const [index, bar] of row.bars.entries()) {
        expect(bar.to).toBeGreaterThanOrEqual(bar.from);
        if (index > 0) expect(bar.from).toBeGreaterThanOrEqual(row.bars[index - 1]!.to);
      }
    }
    const found = stretches(rows, journal, new Map(), now, false);
    const { worked, waited } = spentOf(found);
    const all = Math.max(...rows.map((row) => row.to)) - Math.min(...rows.map((row) => row.from));
    expect(worked + waited).toBeCloseTo(all, 3);
    for (const [index, one] of found.entries()) if (index > 0) expect(one.from).toBe(found[index - 1]!.to);
    const scale = scaleOf(found, 900);
    let last = -1;
    for (let share = 0; share <= 40; share += 1) {
      const x = scale.x(found[0]!.from + (all * share) / 40);
      expect(x).toBeGreaterThanOrEqual(last);
      expect(x).toBeLessThanOrEqual(900);
      last = x;
    }
  });
});

test("a failed try, its pause and the next one are three bars", () => {
  const span: Span = {
    ...step("tax", 3, 0, 100), state: "completed", started_at: iso(0), ended_at: iso(2_000), seqs: [2, 3],
    tries: [
      { n: 1, seq: 2, attempt: 1, started_at: iso(0), ended_at: iso(300), ok: false, error: { type: "E", message: "503" }, retry_at: iso(1_000) },
      { n: 2, seq: 3, attempt: 1, started_at: iso(1_050), ended_at: iso(2_000), ok: true },
    ],
  };
  expect(barsOf(span, T0).map((bar) => [bar.kind, bar.from - T0, bar.to - T0])).toEqual([["fail", 0, 300], ["pause", 300, 1_050], ["done", 1_050, 2_000]]);
});

test("a run that was lost before a beat named its step is torn in the row of the step that came next", () => {
  const claims = [{ attempt: 1, worker: "a", from: iso(0), seq: 1, to: iso(4_000), to_seq: 5, how: "lost" as const }, { attempt: 2, worker: "b", from: iso(4_200), seq: 6 }];
  const journal = merge(emptyJournal("x"), page([step("first", 4, 100, 900), step("charge", 7, 4_300, 5_000)], { claims, proof: { lost: 1, steps_rerun: 0 } }));
  const [first, charge] = rowsOf(journal, T0 + 6_000, CLOSED, new Map());
  expect(first!.bars.map((bar) => bar.kind)).toEqual(["done"]);
  expect(charge!.bars).toMatchObject([{ kind: "lost", from: T0 + 900, to: T0 + 4_000 }, { kind: "done" }]);
  expect(saidBeside(charge!, null)?.text).toBe("its worker was lost");
});

test("a zoomed scale has ticks for its view only", () => {
  const scale = scaleOf([{ from: 0, to: 10_000, cause: null }], 1_000_000);
  const shown = ticks(scale, 500_000, 501_000);
  expect(shown.length).toBeGreaterThan(5);
  expect(shown.every((tick) => tick.x > 499_000 && tick.x <= 501_000)).toBe(true);
});

test("a lost run is torn, the next run follows in its row, and the row says so", () => {
  const span: Span = { ...step("charge", 9, 5_000, 6_000), runs: [{ attempt: 1, worker: "a", n: 1, started_at: iso(1_000), lost_at: iso(2_500) }] };
  const journal = merge(emptyJournal("x"), page([span]));
  const [row] = rowsOf(journal, T0, CLOSED, new Map());
  expect(row!.bars.map((bar) => bar.kind)).toEqual(["lost", "done"]);
  expect(saidBeside(row!, null)?.text).toBe("2nd run, same idempotency key");
});

test("an error without a message is named by its class", () => {
  const span: Span = { ...step("s", 2, 0, 10), state: "failed", error: { type: "TimeoutError" } as never, tries: [] };
  const [row] = rowsOf(merge(emptyJournal("x"), page([span])), T0, CLOSED, new Map());
  expect(saidBeside(row!, null)).toEqual({ text: "TimeoutError", tone: "bad" });
});

test("a long wait folds with its cause, a short one is drawn", () => {
  const journal = merge(emptyJournal("x"), page([step("a", 2, 0, 100), wait("approve", "answer", 140, 7_999_970), step("b", 4, 8_000_000, 8_000_100), wait("scan", "event", 8_000_100, 8_001_000), step("c", 6, 8_001_000, 8_001_100)]));
  const rows = rowsOf(journal, T0, CLOSED, new Map());
  const found = stretches(rows, journal, new Map(), T0, false);
  expect(found.map((one) => one.cause)).toEqual([null, "waiting for an answer: approve", null]);
  expect(spentOf(found).waited).toBe(7_999_900);
  expect(stretches(rows, journal, new Map(), T0, false, new Set([found[1]!.from])).map((one) => one.cause)).toEqual([null]);
  const marks = ticks(scaleOf(found, 900));
  expect(marks.every((mark, index) => index === 0 || mark.x - marks[index - 1]!.x >= 60)).toBe(true);
});

test("pages are merged by key, and what ran before is dropped when the newest page leaves it out", () => {
  const journal = emptyJournal("x");
  merge(journal, page([{ key: "s", kind: "step", name: "s", state: "paused", started_at: iso(0), tries: [{ n: 1, seq: 2, attempt: 1, started_at: iso(0), ended_at: iso(5), ok: false }], seqs: [2] }, { key: "timer", kind: "timer", state: "waiting", wait: { for: "timer" }, started_at: iso(0) }], { last_seq: 2, counts: { step_failed: 1 } }));
  merge(journal, page([{ key: "s", kind: "step", state: "running", runs: [{ attempt: 2, worker: "w", n: 2, started_at: iso(9) }] }], { last_seq: 2 }));
  expect(journal.spans.get("timer timer")).toBeUndefined();
  merge(journal, page([{ key: "s", kind: "step", state: "completed", ended_at: iso(20), tries: [{ n: 2, seq: 3, attempt: 2, started_at: iso(9), ended_at: iso(20), ok: true }], seqs: [3] }], { last_seq: 3, counts: { step: 1 } }));
  const span = journal.spans.get("step s")!;
  expect([span.state, span.name, span.seqs, span.tries!.length, span.runs]).toEqual(["completed", "s", [2, 3], 2, []]);
  expect(journal.counts).toEqual({ step_failed: 1, step: 1 });
});

test("children of one name are a group, and unfold", () => {
  const kids = Array.from({ length: 500 }, (_, index): Span => ({ key: `k#${index}`, name: "k", kind: "child", state: index === 7 ? "failed" : "completed", queued_at: iso(0), started_at: iso(index), ended_at: iso(1_000 + index), child: { execution_id: `e${index}`, workflow_id: "k" }, seqs: [index + 2] }));
  const journal = merge(emptyJournal("x"), page(kids));
  expect(rowsOf(journal, T0, CLOSED, new Map())).toHaveLength(1);
  const shown = rowsOf(journal, T0, { has: (id) => id.includes(" group ") }, new Map());
  expect(shown).toHaveLength(1 + 1 + 20);
  expect(shown.some((row) => row.span.state === "failed")).toBe(true);
});

test("time travel: what had happened after a row, and nothing of what came later", () => {
  const journal = merge(
    emptyJournal("x"),
    page([step("a", 2, 0, 100), step("b", 3, 100, 900), wait("approve", "answer", 910, 5_000), step("c", 52, 5_000, 6_000)], {
      last_seq: 54,
      claims: [
        { attempt: 1, worker: "aaaa1111", from: iso(0), to: iso(910), how: "waiting", seq: 1, to_seq: 4 },
        { attempt: 2, worker: "bbbb2222", from: iso(5_000), to: iso(6_100), how: "completed", seq: 51, to_seq: 53 },
      ],
      marks: [{ seq: 53, at: iso(6_100), kind: "completed" }],
    }),
  );
  const atTwo = stateAt(journal, 2);
  expect([atTwo.phase, atTwo.worker, atTwo.results.map((one) => one.span.key), atTwo.inFlight.map((one) => one.key)]).toEqual(["running", "aaaa1111", ["a"], ["b"]]);
  const waiting = stateAt(journal, 4);
  expect([waiting.phase, waiting.worker, waiting.waits.map((span) => span.key)]).toEqual(["waiting", null, ["approve"]]);
  const end = stateAt(journal, 54);
  expect([end.phase, end.results.map((one) => one.span.key)]).toEqual(["completed", ["c", "approve", "b", "a"]]);
});

test("losses name the worker that went on, and cells have one word a row", () => {
  const journal = merge(emptyJournal("x"), page([step("a", 4, 50, 60)], { last_seq: 5, claims: [{ attempt: 1, worker: "w1", from: iso(0), seq: 1, to: iso(30), to_seq: 2, how: "lost" }, { attempt: 2, worker: "w2", from: iso(42), seq: 3 }], proof: { lost: 1, steps_rerun: 0 } }));
  expect(losses(journal)).toEqual([{ at: T0 + 30, worker: "w1", next: { worker: "w2", at: T0 + 42 } }]);
  expect(cells(journal)).toEqual(["mark", "failed", "mark", "completed", "mark"]);
});

test("100,000 rows are laid out fast enough to scroll", () => {
  const spans = Array.from({ length: 100_000 }, (_, index) => step(`s${index}`, index + 2, index * 10, index * 10 + 8));
  const journal = merge(emptyJournal("x"), page(spans, { last_seq: 100_001 }));
  const began = performance.now();
  const rows = rowsOf(journal, T0, CLOSED, new Map());
  const found = stretches(rows, journal, new Map(), T0, false);
  const took = performance.now() - began;
  expect([rows.length, found.length]).toEqual([100_000, 1]);
  console.info(`100,000 rows: ${Math.round(took)} ms`);
}, 60_000);

test("words stand behind the bars, else before one with room, else cut or nowhere", () => {
  expect(placeFor(100, [[10, 50]], 200)).toEqual({ at: 50, left: false });
  expect(placeFor(100, [[10, 20], [150, 190]], 200)).toEqual({ at: 150, left: true });
  expect(placeFor(100, [[120, 130], [150, 190]], 200)).toEqual({ at: 120, left: true });
  expect(placeFor(100, [[10, 190]], 200)).toBeNull();
  expect(placeFor(100, [[10, 120]], 200)).toEqual({ at: 120, left: false, most: 80 });
});

test("words never stand over the label of a folded wait", () => {
  expect(placeFor(100, [[120, 150]], 400, [[170, 186]])).toEqual({ at: 120, left: true });
  expect(placeFor(100, [[250, 260]], 400, [[170, 186]])).toEqual({ at: 260, left: false });
  expect(placeFor(100, [[250, 310]], 400, [[170, 186]])).toEqual({ at: 310, left: false, most: 90 });
  expect(placeFor(100, [[20, 90]], 400, [[170, 186]])).toEqual({ at: 90, left: false, most: 80 });
  expect(placeFor(100, [[20, 150]], 400, [[170, 186]])).toBeNull();
});

test("a stretch that several claims cover is not one without a worker", () => {
  const claim = (attempt: number, from: number, to: number) => ({ attempt, worker: "a", from: iso(from), seq: attempt, to: iso(to), to_seq: attempt, how: "failed" as const });
  const claims = [claim(2, 0, 100_000), claim(3, 100_200, 300_000), claim(4, 310_000, 400_000)];
  const journal = merge(emptyJournal("x"), page([step("late", 9, 400_100, 400_200)], { claims }));
  const rows = rowsOf(journal, T0 + 400_300, CLOSED, new Map());
  const [fold] = stretches(rows, journal, new Map(), T0 + 400_300, false);
  expect(fold!.cause).toBe("a worker held it for 6 m 30 s; no step recorded");
});

test("runs that workers handed back are drawn in the row of their step, also if it runs now", () => {
  const claim = (attempt: number, from: number, to: number) => ({ attempt, worker: "a", from: iso(from), seq: attempt, to: iso(to), to_seq: attempt + 1, how: "released" as const });
  const claims = [claim(2, 1_000, 61_000), claim(4, 61_100, 361_000)];
  const running: Span = { key: "long", name: "long", kind: "step", state: "running", started_at: iso(361_100), runs: [{ attempt: 6, worker: "b", n: 1, started_at: iso(361_100) }] };
  const bars = [{ kind: "released", from: T0 + 1_000, to: T0 + 61_000 }, { kind: "released", from: T0 + 61_100, to: T0 + 361_000 }];
  for (const [last, kind] of [[running, "live"], [step("long", 9, 361_100, 400_000), "done"]] as const) {
    const journal = merge(emptyJournal("x"), page([step("first", 1, 0, 500), last], { claims }));
    const rows = rowsOf(journal, T0 + 400_000, CLOSED, new Map());
    expect(rows[1]!.bars).toMatchObject([...bars, { kind, from: T0 + 361_100 }]);
    const found = stretches(rows, journal, new Map(), T0 + 400_000, false);
    expect(found.every((one) => one.cause === null)).toBe(true);
    expect(saidBeside(rows[1]!, null)?.text).toBe("its worker handed it back");
  }
});

test("a fork counts from its own start, and what it kept is one stretch before", () => {
  const copied = { ...step("plan", 2, 0, 600_000), copied: true };
  const begun = { created: T0 + 900_000, claimed: T0 + 900_400, kept: "kept from 0199" };
  const journal = merge(emptyJournal("x"), page([copied, step("draft", 5, 900_500, 901_000)], { claims: [{ attempt: 1, worker: "a", from: iso(0), to: iso(600_000), how: "lost", copied: true }, { attempt: 2, worker: "b", from: iso(900_400), seq: 4 }] }));
  const now = T0 + 901_000;
  const found = stretches(rowsOf(journal, now, CLOSED, new Map()), journal, new Map(), now, true, new Set(), begun);
  expect(found[0]).toEqual({ from: T0, to: begun.created, cause: "kept from 0199", kept: true });
  expect(spentOf(found, begun)).toEqual({ queued: 400, worked: 600, waited: 0 });
  expect([losses(journal), holdings(journal, now, 10).map((one) => one.worker)]).toEqual([[], ["b"]]);
});

test("the time before the first claim is the queue's: folded if it is long, and no work", () => {
  const begun = { created: T0 - 50_000, claimed: T0, kept: null };
  const journal = merge(emptyJournal("x"), page([step("a", 2, 10, 100)], { claims: [{ attempt: 1, worker: "a", from: iso(0), seq: 1, to: iso(120), how: "completed" }] }));
  const found = stretches(rowsOf(journal, T0, CLOSED, new Map()), journal, new Map(), T0, false, new Set(), begun);
  expect(found.map((one) => one.cause)).toEqual(["in the queue", null]);
  expect(spentOf(found, begun)).toEqual({ queued: 50_000, worked: 120, waited: 0 });
  const queued = stretches([], emptyJournal("y"), new Map(), T0, true, new Set(), begun);
  expect(spentOf(queued, begun)).toMatchObject({ queued: 50_000, worked: 0, waited: 0 });
});
