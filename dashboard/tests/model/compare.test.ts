import { expect, test } from "vitest";
import { align, differing, folded } from "../../src/model/compare";
import { rawItems } from "../../src/model/json";

const one = (key: string, value = "1", ok = true) => ({ key, kind: "step", ok, value });

test("outcomes are paired by key, and equal neighbours fold", () => {
  const pairs = align([one("a"), one("b"), one("c"), one("d")], [one("a"), one("b"), one("new"), one("d", "2")]);
  expect(pairs.map((pair) => [pair.key, pair.left !== null, pair.right !== null, pair.same])).toEqual([
    ["a", true, true, true],
    ["b", true, true, true],
    ["new", false, true, false],
    ["c", true, false, false],
    ["d", true, true, false],
  ]);
  expect(folded(pairs).map((shown) => ("same" in shown ? shown.same.length : shown.pair.key))).toEqual([2, "new", "c", "d"]);
});

test("a failure differs from a success of the same value", () => {
  expect(align([one("a", "1", false)], [one("a")])[0]!.same).toBe(false);
});

test("lines that the other side lacks are marked", () => {
  expect(differing('{\n  "a": 1,\n  "b": 2\n}', '{\n  "a": 1,\n  "b": 3\n}').map((set) => [...set])).toEqual([[2], [2]]);
});

test("the items of a list are read as they were sent", () => {
  expect(rawItems('[{"a": [1,2]}, 12345678901234567890 ,"x,]"]')).toEqual(['{"a": [1,2]}', "12345678901234567890", '"x,]"']);
  expect(rawItems("[]")).toEqual([]);
});
