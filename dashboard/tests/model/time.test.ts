import { describe, expect, it } from "vitest";
import { duration, when } from "../../src/model/time";
import { money, share, shortId, splitError, visible } from "../../src/model/words";
import { asCurl, asPython } from "../../src/model/calls";

describe("durations", () => {
  it.each([
    [0, "0 ms"],
    [890, "890 ms"],
    [999.7, "1 s"],
    [4_900, "4.9 s"],
    [59_949, "59.9 s"],
    [59_950, "1 m"],
    [61_000, "1 m 1 s"],
    [3_600_000, "1 h"],
    [10_860_000, "3 h 1 m"],
    [86_399_999, "1 d"],
    [200_000_000, "2 d 8 h"],
  ])("%d ms is %s", (ms, text) => expect(duration(ms)).toBe(text));
});

it("names a time by its distance", () => {
  const now = Date.parse("2026-11-29T12:00:00");
  expect(when(new Date(now - 5_000).toISOString(), now)).toBe("5 s ago");
  expect(when(new Date(now - 420_000).toISOString(), now)).toBe("7 min ago");
  expect(when(new Date(now - 7_200_000).toISOString(), now)).toBe("10:00:00");
  expect(when(new Date(now + 90_000).toISOString(), now)).toBe("in 1 m 30 s");
});

it("spells out characters that nobody sees", () => {
  expect(visible("a\u202eb\nc\td\u0000")).toBe("a⟨U+202E⟩b\nc\td⟨U+0000⟩");
  expect(visible("plain – “text” 👩‍🚀")).toContain("plain – “text”");
});

it("words numbers", () => {
  expect(share(1, 0)).toBe("0 %");
  expect(share(99_999, 100_000)).toBe("99.9 %");
  expect(money(0.218)).toBe("$0.2180");
  expect(money(1_234.5)).toBe("$1,234.50");
  expect(shortId("019a-2a7d93e1-2a7d93e1")).toBe("…2a7d93e1");
});

it("copies a call so that a shell and Python read it as it was meant", () => {
  const body = { data: { note: "it's $HOME", n: null, ok: true } };
  const curl = asCurl({ method: "POST", path: "/api/v1/x", body }, "http://h", "p");
  expect(curl).toContain(`-d '{"data":{"note":"it'\\''s $HOME","n":null,"ok":true}}'`);
  expect(asPython(body)).toBe(`{"data": {"note": "it's $HOME", "n": None, "ok": True}}`);
});

describe("errors of failed executions", () => {
  it("name their class and step", () => {
    expect(splitError("StepFailed: step 'tax.quote' failed after 3 tries: ConnectionError: 503: gone")).toEqual(
      { type: "ConnectionError", message: "503: gone", step: "tax.quote", tries: 3 },
    );
    expect(splitError("ValueError: no stock")).toEqual({ type: "ValueError", message: "no stock", step: null, tries: 1 });
    expect(splitError("StepFailed: step 'pay' failed after … tries: Timeout: … s")).toEqual({ type: "Timeout", message: "… s", step: "pay", tries: 1 });
    expect(splitError("no stock")).toBeNull();
  });
});
