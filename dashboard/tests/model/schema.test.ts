import { expect, test } from "vitest";
import { draftOf, faultOf, fieldOf, read, type Schema } from "../../src/model/schema";

const order: Schema = {
  $ref: "#/$defs/Order",
  $defs: {
    Order: {
      type: "object",
      required: ["order_id", "lines"],
      properties: {
        order_id: { type: "integer" },
        lines: { type: "array", items: { $ref: "#/$defs/Line" }, minItems: 1 },
        ship: { $ref: "#/$defs/Ship", default: "standard" },
        gift: { type: "boolean", default: false },
        due: { anyOf: [{ type: "string", format: "date" }, { type: "null" }], default: null },
        note: { type: "string", maxLength: 3 },
        address: { $ref: "#/$defs/Address" },
        more: { type: "object" },
      },
    },
    Line: { type: "object", required: ["sku", "count"], properties: { sku: { type: "string" }, count: { type: "integer", minimum: 1 } } },
    Ship: { enum: ["express", "standard"] },
    Address: { type: "object", required: ["city"], properties: { city: { type: "string", minLength: 1 } } },
  },
};

test("a form that is filled in is the value, without what was left out", () => {
  const draft = draftOf(order, order) as Record<string, never>;
  expect(draft).toMatchObject({ lines: [], ship: '"standard"', gift: false, due: null, address: undefined });
  const { value, problems } = read(order, { ...draft, order_id: "48300", lines: [{ sku: "lamp", count: "2" }] });
  expect([...problems]).toEqual([]);
  expect(value).toEqual({ order_id: 48300, lines: [{ sku: "lamp", count: 2 }], ship: "standard", gift: false, due: null });
});

test("problems name the path of their field", () => {
  const { problems } = read(order, {
    order_id: "many",
    lines: [{ sku: "lamp", count: "1" }, { sku: "bulb", count: "0" }, { sku: "x", count: "1.5" }],
    note: "long",
    address: {},
    more: "{",
  });
  expect(Object.fromEntries(problems)).toMatchObject({
    order_id: "Not a number",
    "lines[1].count": "At least 1",
    "lines[2].count": "Needs a whole number",
    note: "At most 3 characters",
    "address.city": "Needs a value",
    more: expect.stringMatching(/^Not JSON/),
  });
  expect(Object.fromEntries(read(order, draftOf(order, order)).problems)).toEqual({ order_id: "Needs a value", lines: "At least 1" });
});

test("a value fills the form and comes back the same", () => {
  const value = { order_id: 1, lines: [{ sku: "a", count: 1 }], ship: "express", gift: true, due: "2026-12-01", address: { city: "Rome" }, more: { a: [1, null] } };
  expect(read(order, draftOf(order, order, value)).value).toEqual(value);
});

test("an input that is not an object is a form of one field", () => {
  for (const [schema, text, value] of [
    [{ type: "integer" }, "7", 7],
    [{ type: "string" }, "", ""],
    [{ type: ["number", "null"] }, "", null],
    [{}, '{"a": 1}', { a: 1 }],
    [{ anyOf: [{ type: "integer" }, { type: "string" }] }, '"x"', "x"],
  ] as [Schema, string, unknown][]) {
    expect(read(schema, text)).toEqual({ value, problems: new Map() });
  }
});

test("a type that contains itself ends in a field for JSON", () => {
  const tree: Schema = { $ref: "#/$defs/T", $defs: { T: { type: "object", properties: { next: { $ref: "#/$defs/T" } } } } };
  expect(fieldOf(tree, tree, 9).kind).toBe("json");
  expect(read(tree, draftOf(tree, tree)).value).toEqual({});
  const loop: Schema = { $ref: "#/$defs/A", $defs: { A: { $ref: "#/$defs/A" } } };
  expect(fieldOf(loop, loop).kind).toBe("json");
});

test("whole numbers that a browser would change are refused", () => {
  expect(read({ type: "integer" }, "9007199254740993").problems.size).toBe(1);
  expect(faultOf('{"id": 9007199254740993}')).not.toBeNull();
  expect(faultOf('{"id": "9007199254740993", "pi": 3.141592653589793238}')).toBeNull();
});
