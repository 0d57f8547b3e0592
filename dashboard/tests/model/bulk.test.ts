import { expect, test } from "vitest";
import { callFor, NO_OPTIONS, selection } from "../../src/model/bulk";

test("a retry says what becomes of steps after the failure only if it was chosen", () => {
  expect(callFor("retry", "x", NO_OPTIONS).body).toEqual({});
  expect(callFor("retry", "x", { ...NO_OPTIONS, later: "keep" }).body).toEqual({ keep_later: true });
  expect(selection("retry", { status: "failed" }, { ...NO_OPTIONS, later: "redo" }, 0)["options"]).toEqual({ redo_later: true });
  expect(callFor("fork", "x", { ...NO_OPTIONS, later: "redo" }).body).toEqual({});
});
