import { expect, test } from "vitest";
import { NO_OPTIONS, optionProblems, startCall, startCommand, startPython, tagsOf } from "../../src/model/start";

const options = { ...NO_OPTIONS, key: "order 7", priority: "3", tags: "shop=berlin, eu=yes", budget: "0.5" };

test("a start is the same request, command and Python", () => {
  expect(startCall("a/b", { id: 7 }, options)).toEqual({
    method: "POST",
    path: "/api/v1/workflows/a%2Fb/run",
    body: { payload: { id: 7 }, key: "order 7", priority: 3, tags: { shop: "berlin", eu: "yes" }, budget: { usd: 0.5 } },
  });
  expect(startCommand("order", { note: "it's" }, options)).toBe(
    [`perdure run order`, `--input '{"note":"it'\\''s"}'`, `--key 'order 7'`, `--priority 3`, `--tag shop=berlin`, `--tag eu=yes`, `--budget usd=0.5`].join(" \\\n  "),
  );
  expect(startCommand("order", null, NO_OPTIONS)).toBe("perdure run order");
  expect(startCommand("order", null, { ...NO_OPTIONS, timeout: "5" })).toBeNull();
  expect(startPython("order", { gift: true, due: null }, NO_OPTIONS)).toBe('await client.start("order", {"gift": True, "due": None})');
  expect(startPython("order", 7, options)).toContain('    tags={"shop": "berlin", "eu": "yes"},\n    budget=Budget(usd=0.5),\n');
});

test("options that mean nothing are named", () => {
  expect(tagsOf("a=1,=2")).toBeNull();
  expect(Object.keys(optionProblems({ ...NO_OPTIONS, priority: "high", delay: "-1", tags: "x" }))).toEqual(["priority", "delay", "tags"]);
  expect(optionProblems(options)).toEqual({});
});
