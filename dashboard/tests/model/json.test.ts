import { expect, test } from "vitest";
import { isContainer, linesOf, nodeAt, openAtFirst, pathOf, pretty, rawAt, treeOf } from "../../src/model/json";
import { traceOf } from "../../src/model/trace";

const ANSWER = String.raw`{"steps":[{"seq":1,"key":"a\"]}","value":{"n":123456789012345678901234567890,"x":1.10,"s":"a,]}\\"}},{"value":[ ]}],"has_more":false}`;

test("a value of an answer is found as it was sent", () => {
  expect(rawAt(ANSWER, ["steps", 0, "value"])).toBe(String.raw`{"n":123456789012345678901234567890,"x":1.10,"s":"a,]}\\"}`);
  expect(rawAt(ANSWER, ["steps", 0, "value", "n"])).toBe("123456789012345678901234567890");
  expect(rawAt(ANSWER, ["steps", 1, "value"])).toBe("[ ]");
  expect(rawAt(ANSWER, ["has_more"])).toBe("false");
  expect(rawAt(ANSWER, ["steps", 2])).toBeUndefined();
  expect(rawAt(ANSWER, ["nothing"])).toBeUndefined();
  expect(rawAt(String.raw`{"\u0061":1}`, ["a"])).toBe("1");
});

test("the tree has every value, with its path", () => {
  const tree = treeOf('{"a": [1, {"b c": null}], "d": {}, "e": "x"}');
  const paths = Array.from({ length: tree.count }, (_, node) => pathOf(tree, node));
  expect(paths).toEqual(["$", "$.a", "$.a[0]", "$.a[1]", '$.a[1]["b c"]', "$.d", "$.e"]);
  expect(pathOf(tree, nodeAt(tree, tree.text.indexOf("null")))).toBe('$.a[1]["b c"]');
  expect([isContainer(tree, 0), isContainer(tree, 5)]).toEqual([true, false]);
});

test("laid out, it reads as JSON.stringify writes it", () => {
  for (const value of [1, "x", null, [], {}, [[], {}], { a: { b: [1, 2, { c: "ü\n" }] }, d: [] }, [{ x: 1 }, [2, [3]]]]) {
    expect(pretty(JSON.stringify(value))).toBe(JSON.stringify(value, null, 2));
  }
});

test("a folded list is one line, and large lists begin folded", () => {
  const large = JSON.stringify({ few: [1, 2], many: Array.from({ length: 1_000 }, (_, n) => n) });
  const tree = treeOf(large);
  expect(linesOf(tree, new Set())).toHaveLength(1);
  expect(linesOf(tree, openAtFirst(tree))).toHaveLength(7);
  expect(linesOf(tree, new Set([0, 1, nodeAt(tree, large.indexOf('"many"'))]))).toHaveLength(1_008);
});

test("8 MiB are read in one go", () => {
  const text = JSON.stringify(Array.from({ length: 90_000 }, (_, n) => ({ id: n, name: `thing ${n}`, list: [1, 2, 3], text: "x".repeat(40) })));
  const began = performance.now();
  const tree = treeOf(text);
  const lines = linesOf(tree, openAtFirst(tree));
  console.info(`${(text.length / 1_048_576).toFixed(1)} MiB, ${tree.count} values: ${Math.round(performance.now() - began)} ms`);
  expect(tree.count).toBe(1 + 90_000 * 8);
  expect(lines.length).toBeGreaterThan(90_000);
}, 60_000);

test("broken text ends", () => {
  for (const text of ["", "{", '{"a', '{"a":', "[1,", '"', "]", "{}}", "nul", '{"a" 1}']) expect(treeOf(text).count).toBeLessThan(5);
});

test("a traceback is read in frames, the user's told from those of libraries", () => {
  const trace = traceOf(
    'Traceback (most recent call last):\n  File "/v/lib/python3.11/asyncio/tasks.py", line 5, in wait\n    x()\n  File "/shop/app.py", line 20, in tax\n    raise E("503")\n    ^^^^^^\napp.E: 503\n',
  )!;
  expect(trace.frames.map((frame) => [frame.name, frame.own])).toEqual([["wait", false], ["tax", true]]);
  expect([trace.frames[1]!.source, trace.rest]).toEqual([['raise E("503")', "^^^^^^"], "app.E: 503"]);
  expect(traceOf("no trace")).toBeNull();
});
