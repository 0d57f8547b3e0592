import { describe, expect, test } from "vitest";
import { conversationOf, heard, words, type Answer, type Live, type Span } from "../../src/model/conversation";
import { blocks, inline } from "../../src/model/markdown";

const T = (second: number) => new Date(second * 1_000).toISOString();
const response = (parts: unknown[]) => ({ kind: "response", model_name: "m", parts, usage: { input_tokens: 57, output_tokens: 4, cost: "0.0061" } }) as never;
const call = (name: string, id: string, args: unknown) => ({ part_kind: "tool-call", tool_name: name, tool_call_id: id, args });

describe("a run as a conversation", () => {
  const spans: Span[] = [
    { key: "model:1", name: "model.request", kind: "step", state: "completed", started_at: T(1), ended_at: T(3), seqs: [3], tries: [{ n: 1, ok: false, started_at: T(1), ended_at: T(2), error: { type: "Timeout", message: "slow" } }, { n: 2, ok: true, started_at: T(2), ended_at: T(3) }] },
    { key: "tool:find:find-1", name: "tool.find", kind: "step", state: "completed", started_at: T(4), ended_at: T(5), seqs: [4] },
    { key: "approve_refund_c_9", kind: "answer", state: "waiting", started_at: T(6) },
    { key: "sub", kind: "child", state: "running", started_at: T(7), child: { execution_id: "x", workflow_id: "policy", phase: "running" } },
    { key: "over-budget", kind: "answer", state: "completed", started_at: T(8), seqs: [9] },
  ];
  const values = new Map<number, never>([
    [3, response([{ part_kind: "text", content: "Let me look." }, { part_kind: "thinking", content: "hm" }, call("find", "find-1", '{"order": 7}'), call("refund", "c/9", { euros: 3 })])],
    [4, { usage: {}, value: { kind: "tool_return", result: { found: true } } } as never],
  ]);
  const entries = conversationOf(spans, values);
  test("has answers with their calls, results and questions", () => {
    const answer = entries[0] as Answer;
    expect(answer).toMatchObject({ model: "m", input: 57, output: 4, usd: 0.0061, ms: 1_000, texts: ["Let me look."], thinking: ["hm"], faults: [{ type: "Timeout", message: "slow" }] });
    expect(answer.calls[0]).toMatchObject({ name: "find", args: { order: 7 }, result: { found: true }, state: "completed", ms: 1_000 });
    expect(answer.calls[1]).toMatchObject({ name: "refund", state: "waiting", question: "approve_refund_c_9" });
  });
  test("and what belongs to no call beside them", () => {
    expect(entries.slice(1)).toMatchObject([
      { kind: "child", child: { workflow_id: "policy" } },
      { kind: "question", key: "over-budget", open: false },
    ]);
  });
});

test("a later try withdraws the words of an earlier one", () => {
  const live = new Map<string, Live>();
  const say = (attempt: number, kind: string, data: unknown) => heard(live, { execution_id: "x", key: "model:1", attempt, tries: 1, kind, data });
  say(1, "part_start", { part: { part_kind: "text", content: "Hel" } });
  say(1, "part_delta", { delta: { part_delta_kind: "text", content_delta: "lo" } });
  expect(live.get("x model:1")).toMatchObject({ text: "Hello", withdrawn: "" });
  say(2, "part_start", { part: { part_kind: "text", content: "Good" } });
  say(1, "part_delta", { delta: { part_delta_kind: "text", content_delta: "late" } });
  say(2, "part_start", 7);
  expect(live.get("x model:1")).toMatchObject({ text: "Good", withdrawn: "Hello" });
});

test("words of messages", () => {
  expect(words("a")).toBe("a");
  expect(words({ input: [{ content: "x" }, "y"] })).toBe("x\ny");
  expect(words(null)).toBe("");
});

describe("Markdown", () => {
  test("becomes blocks", () => {
    expect(blocks("# A\n\nb *c*\nd\n\n- x\n- y\n1. z\n```py\n*no*\n```\nend").map((one) => one.kind)).toEqual(["h", "p", "ul", "ol", "code", "p"]);
    expect(blocks("- x\n- y")).toEqual([{ kind: "ul", items: [["x"], ["y"]] }]);
    expect(blocks("```\nopen *end*")).toEqual([{ kind: "code", text: "open *end*" }]);
  });
  test("keeps links, HTML and half emphasis as text", () => {
    const text = "[a](javascript:alert(1)) <img src=x onerror=alert(1)> 2 * 3 * 4 snake_case_name **open";
    expect(inline(text)).toEqual([text]);
    expect(inline("a **b** `c*d*` _e_")).toEqual(["a ", { kind: "strong", text: "b" }, " ", { kind: "code", text: "c*d*" }, " ", { kind: "em", text: "e" }]);
  });
});
