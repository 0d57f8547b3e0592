import { describe, expect, test } from "vitest";
import { answerOf, questionForm, urgency, verdict } from "../../src/model/questions";
import { fieldOf } from "../../src/model/schema";

const CALL = {
  tool: "refund",
  tool_call_id: "c1",
  arguments: { order: 7, euros: 48, reason: "broken" },
  _form: {
    title: "Allow refund?",
    fields: [
      { key: "approved", type: "boolean", required: true },
      { key: "arguments", type: "textarea", default: "{}" },
      { key: "feedback", type: "textarea", label: "Feedback" },
    ],
  },
  _source: "agent",
  _tool: "refund",
};

describe("a question about a tool call", () => {
  const form = questionForm("approve_refund_c1", CALL);
  test("has a field for each argument, and its call as the title", () => {
    expect(form).toMatchObject({ kind: "agent", decides: true, tool: "refund", title: "refund(order=7, euros=48, reason=broken)", context: [] });
    expect(form.initial).toEqual({ arguments: { order: "7", euros: "48", reason: "broken" }, feedback: undefined });
  });
  test("sends arguments only if they changed", () => {
    expect(answerOf(form, form.initial, true).value).toEqual({ approved: true });
    const edited = { arguments: { order: "7", euros: "45", reason: "broken" }, feedback: "less" };
    expect(answerOf(form, edited, true).value).toEqual({ approved: true, arguments: { order: 7, euros: 45, reason: "broken" }, feedback: "less" });
    const wrong = { arguments: { order: "7", euros: "x", reason: "" }, feedback: "no" };
    expect(answerOf(form, wrong, true).problems.get("arguments.euros")).toBe("Not a number");
    expect(answerOf(form, wrong, false)).toEqual({ value: { approved: false, feedback: "no" }, problems: new Map() });
  });
});

test("fields of a form become fields with labels and choices", () => {
  const form = questionForm("k", { _form: { title: "Which?", fields: [{ key: "size", type: "select", label: "Size", options: [{ value: 1, label: "small" }, 2], required: true }] } });
  const size = form.schema!.properties!.size!;
  expect(size.label).toBe("Size");
  expect(fieldOf(size, form.schema!)).toMatchObject({ kind: "choice", values: [1, 2], words: ["small", "2"] });
  expect(form.decides).toBe(false);
  expect(answerOf(form, { size: "2" }, null).value).toEqual({ size: 2 });
  expect(answerOf(form, {}, null).problems.get("size")).toBe("Choose one");
});

test("the type of the answer is the form where the data has none", () => {
  const schema = { $ref: "#/$defs/A", $defs: { A: { type: "object", properties: { approved: { type: "boolean" }, total: { type: "number" } }, required: ["approved", "total"] } } };
  const form = questionForm("approve_total", { total: 12 }, schema);
  expect(form).toMatchObject({ title: "approve_total", kind: "workflow", decides: true, context: [["total", 12]] });
  expect(answerOf(form, { total: "9.5" }, true).value).toEqual({ approved: true, total: 9.5 });
});

test.each([[null], ["text"], [{ _form: 3 }], [{ _form: { fields: [{ key: 1 }] } }], [{ _form: { fields: [{ key: "a", type: "select" }] } }], [[1, 2]]])("%j asks for JSON", (data) => {
  expect(questionForm("k", data).schema).toBeNull();
});

test("a budget and a watchdog ask about limits", () => {
  expect(questionForm("over-budget", { budget: "x", _form: {} }).kind).toBe("limit");
  expect(questionForm("w", { _source: "watchdog" }).kind).toBe("limit");
});

test("a question turns amber and red before it expires", () => {
  expect(urgency(null, 0)).toBeNull();
  expect(urgency("1970-01-01T02:00:00Z", 0)).toBeNull();
  expect(urgency("1970-01-01T00:59:00Z", 0)).toBe("amber");
  expect(urgency("1970-01-01T00:09:00Z", 0)).toBe("red");
});

test("the type of an answer makes the form of data without fields", () => {
  const schema = { $ref: "#/$defs/S", $defs: { S: { type: "object", properties: { way: { enum: ["air", "land"] }, approved: { type: "boolean" } }, required: ["way"] } } };
  const form = questionForm("choose", { title: "How?", weight: 2 }, schema);
  expect(form).toMatchObject({ title: "How?", context: [["weight", 2]], decides: true });
  expect(answerOf(form, { way: '"air"' }, true).value).toEqual({ approved: true, way: "air" });
  const bare = questionForm("sure", { question: "Sure?", title: "A title" }, { type: "integer", maximum: 3 });
  expect(bare).toMatchObject({ title: "Sure?", context: [["title", "A title"]], decides: false });
  expect(answerOf(bare, "2", null).value).toBe(2);
  expect([...answerOf(bare, "4", null).problems]).toEqual([["", "At most 3"]]);
});

test("who answered what, in a line", () => {
  expect(verdict({ approved: true }, "Ann")).toBe("Approved by Ann");
  expect(verdict({ approved: false, note: "no" }, "Ann")).toBe("Rejected by Ann: note=no");
  expect(verdict({ way: "air" }, "Ann")).toBe("Answered by Ann: way=air");
  expect(verdict(false, "Ann")).toBe("Rejected by Ann");
  expect(verdict("yes", "Ann")).toBe("Answered by Ann: yes");
  expect(verdict(null, "Ann")).toBe("Answered by Ann: null");
});
