import { describe, expect, it } from "vitest";
import { asFlags, bulkFilters, chips, negated, parseMoment, readFilters, readValue, sameFilters, suggestFields, withValue } from "../../src/model/filters";
import { callFor, leftOut, NO_OPTIONS, selection, wrongOptions } from "../../src/model/bulk";
import { EventReader } from "../../src/model/sse";

const now = new Date(2026, 10, 29, 14, 30).getTime();

describe("filters", () => {
  it("come from the address, and other parameters stay out", () => {
    const filters = readFilters(new URLSearchParams("phase=failed&phase=held&peek=1&q=order&status="));
    expect(filters).toEqual({ phase: "failed,held", q: "order" });
    expect(chips(filters, now)).toEqual([{ name: "phase", value: "failed,held", says: "phase is", shows: "failed or held" }]);
  });
  it("take another alternative, once", () => {
    expect(withValue({ phase: "failed" }, "phase", "held")).toEqual({ phase: "failed,held" });
    expect(withValue({ phase: "failed" }, "phase", "failed")).toEqual({ phase: "failed" });
    expect(withValue({ key: "a" }, "key", "b")).toEqual({ key: "b" });
  });
  it("leave values out, and take them back", () => {
    const out = negated({ phase: "failed", not_phase: "held" }, "phase")!;
    expect(out).toEqual({ not_phase: "held,failed" });
    expect(chips(out, now)).toEqual([{ name: "not_phase", value: "held,failed", says: "phase is not", shows: "held or failed" }]);
    expect(negated(out, "not_phase")).toEqual({ phase: "held,failed" });
    expect(negated({ tag: "a=1,2" }, "tag")).toEqual({ not_tag: "a=1,2" });
    expect(negated({ key: "k" }, "key")).toBeNull();
    expect(withValue(out, "not_phase", "queued")).toEqual({ not_phase: "held,failed,queued" });
    expect(suggestFields("phase != failed")).toEqual([{ name: "not_phase", value: "failed", text: "phase is not failed" }]);
    expect(readFilters(new URLSearchParams("not_phase=held&not_key=k"))).toEqual({ not_phase: "held" });
    expect(bulkFilters(out)).toEqual({ not_phase: ["held", "failed"] });
    expect(asFlags(out)).toBeNull();
  });
  it("are suggested by field, and typed whole", () => {
    expect(suggestFields("work").map((one) => one.name)).toEqual(["workflow_id"]);
    expect(suggestFields("phase: failed")).toEqual([{ name: "phase", value: "failed", text: "phase is failed" }]);
    expect(suggestFields("session_id=s").map((one) => one.value)).toEqual(["s"]);
  });
  it.each([
    ["2 h", now - 7_200_000],
    ["90 min ago", now - 5_400_000],
    ["noon", new Date(2026, 10, 29, 12).getTime()],
    ["yesterday", new Date(2026, 10, 28).getTime()],
    ["9:05", new Date(2026, 10, 29, 9, 5).getTime()],
    ["2026-11-20", new Date(2026, 10, 20).getTime()],
    ["2026-11-20 10:08", new Date(2026, 10, 20, 10, 8).getTime()],
    ["2026-11-20T10:08:00Z", Date.UTC(2026, 10, 20, 10, 8)],
  ])("%s is a moment", (text, at) => expect(Date.parse(parseMoment(text, now)!)).toBe(at));
  it.each(["25:00", "soon", "", "12", "2026-13-45"])("%j is no moment", (text) => expect(parseMoment(text, now)).toBeNull());
  it("are refused with what to type", () => {
    expect(readValue("created_after", "soon", now)).toEqual({ wrong: "Type a time: noon, 2 h, 10:08 or 2026-11-29 10:08." });
    expect(readValue("key_part", "a", now)).toHaveProperty("wrong");
  });
  it("are the same in any order", () => {
    expect(sameFilters({ a: "1", b: "2" }, { b: "2", a: "1" })).toBe(true);
    expect(sameFilters({ a: "1" }, {})).toBe(false);
  });
  it("become lists and flags", () => {
    expect(bulkFilters({ phase: "failed,held", retried: "false", key: "k" })).toEqual({ phase: ["failed", "held"], retried: false, key: "k" });
    expect(asFlags({ phase: "failed,held", workflow_id: "w", retried: "false", created_after: "t" })).toEqual(
      ["--phase", "failed,held", "--workflow", "w", "--not-retried", "--since", "t"],
    );
    expect(asFlags({ q: "words" })).toBeNull();
  });
});

describe("actions on several executions", () => {
  it("say which they leave out", () => {
    expect(leftOut("retry", { id: "1", phase: "failed", retried_as: null })).toBeNull();
    expect(leftOut("retry", { id: "1", phase: "failed", retried_as: "2" })).toBe("retried already");
    expect(leftOut("cancel", { id: "1", phase: "completed", retried_as: null })).toBe("ended already");
    expect(leftOut("delete", { id: "1", phase: "waiting", retried_as: null })).toBe("still open");
  });
  it("send what was filled in", () => {
    expect(callFor("retry", "1", NO_OPTIONS)).toEqual({ method: "POST", path: "/api/v1/executions/1/retry", body: {} });
    expect(callFor("fork", "1", { ...NO_OPTIONS, payload: '{"n": 1}', fromStep: "charge", note: " why " }).body).toEqual(
      { from_step: "charge", edits: { payload: { n: 1 } }, note: "why" },
    );
    expect(callFor("cancel", "1", { ...NO_OPTIONS, note: "why" }).body).toEqual({ note: "why" });
    expect(callFor("resume", "1", { ...NO_OPTIONS, key: "a/b", data: "true" })).toEqual(
      { method: "POST", path: "/api/v1/executions/1/resume/a%2Fb", body: { data: true } },
    );
    expect(selection("resume", { phase: "waiting" }, { ...NO_OPTIONS, key: "k", data: "1" }, now)).toEqual(
      { action: "resume", filters: { phase: ["waiting"] }, options: { data: 1, key: "k" } },
    );
    expect(selection("cancel", {}, NO_OPTIONS, now)).toEqual({ action: "cancel", filters: { created_before: new Date(now).toISOString() } });
  });
  it("refuse options that cannot be sent", () => {
    expect(wrongOptions("resume", NO_OPTIONS)).toBe("Name the step that waits for an answer.");
    expect(wrongOptions("fork", { ...NO_OPTIONS, payload: "{" })).toBe("The input is not JSON.");
    expect(wrongOptions("fork", NO_OPTIONS)).toBeNull();
  });
});

describe("server-sent events", () => {
  it("are found whatever the pieces", () => {
    const text = ": hello\n\nid: 7\nevent: new\ndata: {\"count\":\ndata: 1}\n\ndata: x\r\n\r\n";
    const whole = new EventReader().read(text);
    expect(whole).toEqual([
      { event: "new", id: "7", data: '{"count":\n1}' },
      { event: "message", id: "7", data: "x" },
    ]);
    for (let at = 1; at < text.length; at++) {
      if (text[at - 1] === "\r") continue;
      const reader = new EventReader();
      expect([...reader.read(text.slice(0, at)), ...reader.read(text.slice(at))]).toEqual(whole);
    }
  });
});
