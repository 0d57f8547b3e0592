import { expect, test } from "vitest";
import { rowsOf, type Span } from "../../src/model/spans";

const span = (id: string, parent: string | null, from: number, to: number | null): Span => ({ id, parent, name: id, kind: "step", from, to, failed: false });

test("children come below their parents, by their beginning", () => {
  const { rows, from, to } = rowsOf([span("late", "root", 60, 100), span("root", null, 0, 100), span("leaf", "early", 20, 30), span("early", "root", 10, 50)], 999);
  expect(rows.map((row) => [row.id, row.depth])).toEqual([
    ["root", 0],
    ["early", 1],
    ["leaf", 2],
    ["late", 1],
  ]);
  expect([from, to]).toEqual([0, 100]);
  expect(rows[3]).toMatchObject({ left: 0.6, width: 0.4 });
});

test("open spans reach to now, and lost parents and circles lose no span", () => {
  const { rows, to } = rowsOf([span("open", "gone", 100, null), span("a", "b", 110, 120), span("b", "a", 111, 112), span("self", "self", 130, 131)], 200);
  expect(to).toBe(200);
  expect(rows.map((row) => row.id).sort()).toEqual(["a", "b", "open", "self"]);
  expect(rows.find((row) => row.id === "open")).toMatchObject({ depth: 0, left: 0, width: 1 });
  expect(rowsOf([], 5).rows).toEqual([]);
});
