import { describe, expect, it } from "vitest";
import { headline, heat, identity, labels, niceTop } from "../../src/model/overview";

describe("the Overview", () => {
  it("answers in its headline", () => {
    expect([0, 1, 3].map(headline)).toEqual(["Nothing needs attention", "1 item needs attention", "3 items need attention"]);
  });
  it("knows an item again after its times changed", () => {
    const item = (at: string, error: string) => ({ kind: "failures", count: 1, details: { error, nearest_expiry_at: at } });
    expect(identity(item("1", "a"))).toBe(identity(item("2", "a")));
    expect(identity(item("1", "a"))).not.toBe(identity(item("1", "b")));
  });
  it("colours strips by the share that failed", () => {
    expect(heat([0, 100, 50, 100], [0, 1, 1, 8])).toEqual([
      null,
      { height: 1, phase: "completed" },
      { height: 0.5, phase: "waiting" },
      { height: 1, phase: "failed" },
    ]);
  });
  it.each([
    [0, 2],
    [3, 4],
    [11, 20],
    [799, 1_000],
    [1_000, 1_000],
  ])("%d fits below %d", (most, top) => expect(niceTop(most)).toBe(top));
  it("has at most eight labels on its axis", () => {
    for (const hours of [1, 6, 24, 168, 720]) {
      const found = labels(Date.UTC(2026, 10, 28, 9, 7), hours * 3_600_000);
      expect(found.length).toBeGreaterThan(2);
      expect(found.length).toBeLessThan(9);
    }
  });
});
