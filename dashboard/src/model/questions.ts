/** Questions of suspended steps: what they show, the form that their data or the type of the answer asks for, and the answer. */

import { draftOf, fieldOf, read, resolved, type Draft, type Json, type Schema } from "./schema";

export type QuestionKind = "agent" | "workflow" | "limit";

export interface Form {
  title: string;
  description: string | null;
  /** What the question shows, by name. */
  context: [string, Json][];
  kind: QuestionKind;
  tool: string | null;
  /** Null: the answer is any JSON. */
  schema: Schema | null;
  initial: Draft;
  /** The arguments of a tool call, which the answer may replace. */
  arguments: { [name: string]: Json } | null;
  /** Two buttons set `approved`. */
  decides: boolean;
}

type Dict = { [name: string]: Json };

export const APPROVED = "approved";
const OURS = new Set(["_form", "_notify", "_source", "_tool", "_approval_url"]);
const CALL = new Set(["tool", "tool_call_id", "arguments"]);
const FIELDS_MAX = 50;
const TEXT_MAX = 100_000;

export function isDict(value: unknown): value is Dict {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(value: Json | undefined): string | null {
  return typeof value === "string" && value.trim() !== "" ? value : null;
}

/** The form of a question. Its data comes from workers and models: what does not fit is left out, never trusted. */
export function questionForm(stepKey: string, data: unknown, answerSchema?: Schema | null): Form {
  const shown: Dict = isDict(data) ? data : {};
  const form: Dict = isDict(shown._form) ? shown._form : {};
  const notify = isDict(shown._notify) ? shown._notify : {};
  const call = isDict(shown.arguments) && typeof shown.tool_call_id === "string" ? shown.arguments : null;
  const rest = Object.entries(shown).filter(([name]) => !OURS.has(name) && !(call !== null && CALL.has(name)));
  const context: [string, Json][] = isDict(form.context) ? Object.entries(form.context) : form.context == null ? [] : [["Context", form.context]];
  if (!isDict(data) && data !== null && data !== undefined) context.push(["Data", data as Json]);
  const tool = textOf(shown._tool) ?? textOf(shown.tool);
  const said = fieldsSchema(form.fields, call);
  const answer = said ?? answerSchema ?? null;
  const { schema, decides } = answer === null ? { schema: null, decides: false } : withoutDecision(answer);
  const titled = textOf(form.title) !== null ? null : ["question", "title"].find((name) => textOf(shown[name]) !== null);
  const limit = shown._source === "watchdog" || "budget" in shown;
  const title = call !== null && said !== null && tool !== null && /^Allow .*\?$/s.test(textOf(form.title) ?? "") ? `${tool}(${brief(call)})` : null;
  return {
    title: title ?? textOf(form.title) ?? textOf(shown.question) ?? textOf(shown.title) ?? stepKey,
    description: textOf(notify.message) ?? textOf(form.description),
    context: [...context, ...rest.filter(([name]) => name !== titled)].filter(([, value]) => value !== null && value !== form.title),
    kind: limit ? "limit" : shown._source === "agent" ? "agent" : "workflow",
    tool,
    schema,
    initial: schema === null ? undefined : draftOf(schema, schema),
    arguments: said === null ? null : call,
    decides,
  };
}

/** How an address names a question. */
export function nameOf(item: { execution_id: string; step_key: string }): string {
  return `${item.execution_id}/${item.step_key}`;
}

/** `Approved by Ann: note=fine` */
export function verdict(answer: unknown, by: string): string {
  const said = isDict(answer) ? answer[APPROVED] : answer;
  const decided = typeof said === "boolean";
  const rest = isDict(answer) ? Object.fromEntries(Object.entries(answer).filter(([name]) => name !== APPROVED || !decided)) : answer;
  const none = isDict(rest) ? Object.keys(rest).length === 0 : decided;
  return `${decided ? (said ? "Approved" : "Rejected") : "Answered"} by ${by}${none ? "" : `: ${brief((rest ?? null) as Json)}`}`;
}

/** `order=48213, euros=48`, cut. */
export function brief(value: Json, most = 90): string {
  const text = isDict(value)
    ? Object.entries(value)
        .map(([name, one]) => `${name}=${typeof one === "string" ? one : JSON.stringify(one)}`)
        .join(", ")
    : typeof value === "string"
      ? value
      : JSON.stringify(value);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** `_form.fields` as a JSON Schema; null if they are no valid fields. */
function fieldsSchema(fields: Json | undefined, call: Dict | null): Schema | null {
  if (!Array.isArray(fields) || fields.length < 1 || fields.length > FIELDS_MAX) return null;
  const properties: Record<string, Schema> = {};
  const required: string[] = [];
  for (const one of fields) {
    if (!isDict(one) || typeof one.key !== "string" || Object.hasOwn(properties, one.key) || one.key === "__proto__") return null;
    const label = textOf(one.label) ?? one.key;
    if (one.key === "arguments" && call !== null) {
      properties[one.key] = { ...schemaOfValue(call), label: "Arguments", default: call };
      required.push(one.key);
      continue;
    }
    const found = fieldSchema(one);
    if (found === null) return null;
    if (textOf(one.description) !== null) found.description = one.description as string;
    if (one.default !== undefined && one.default !== null) found.default = one.default;
    properties[one.key] = { ...found, label };
    if (one.required === true) required.push(one.key);
  }
  return { type: "object", properties, required };
}

function fieldSchema(one: Dict): Schema | null {
  const given = one.options ?? [];
  if (!Array.isArray(given) || given.some((option) => isDict(option) && !("value" in option))) return null;
  const options = given.map((option): Schema => {
    const value = isDict(option) ? option.value! : option;
    const label = isDict(option) ? textOf(option.label) : null;
    return { const: value, title: label ?? (typeof value === "string" ? value : JSON.stringify(value)) };
  });
  const min = one.required === true ? { minLength: 1 } : {};
  switch (String(one.type).toLowerCase()) {
    case "boolean":
    case "bool":
    case "checkbox":
      return { type: "boolean" };
    case "number":
    case "float":
      return { type: "number" };
    case "integer":
    case "int":
      return { type: "integer" };
    case "date":
      return { type: "string", format: "date" };
    case "select":
    case "enum":
    case "choice":
    case "radio":
      return options.length === 0 ? null : { oneOf: options };
    case "multiselect":
    case "multi_select":
    case "checkboxes":
      return options.length === 0 ? null : { type: "array", items: { oneOf: options }, ...(one.required === true ? { minItems: 1 } : {}) };
    case "textarea":
    case "multiline":
      return { type: "string", maxLength: TEXT_MAX, ...min };
    default:
      return options.length > 0 ? { oneOf: options } : { type: "string", ...min };
  }
}

/** The schema of values that look like this one, so that each has its field. */
export function schemaOfValue(value: Json): Schema {
  if (typeof value === "boolean") return { type: "boolean" };
  if (typeof value === "number") return { type: "number" };
  if (typeof value === "string") return { type: "string", ...(value.length > 60 || value.includes("\n") ? { maxLength: TEXT_MAX } : {}) };
  if (!isDict(value) || Object.hasOwn(value, "__proto__")) return {};
  return { type: "object", properties: Object.fromEntries(Object.entries(value).map(([name, one]) => [name, schemaOfValue(one)])), required: Object.keys(value) };
}

/** `approved` is not a field: the buttons say it. */
function withoutDecision(schema: Schema): { schema: Schema; decides: boolean } {
  const found = resolved(schema, schema).schema;
  const approved = found.properties?.[APPROVED];
  if (found.type !== "object" || approved === undefined || fieldOf(approved, schema).kind !== "switch") return { schema, decides: false };
  const { [APPROVED]: _, ...properties } = found.properties!;
  const { $ref: _r, ...around } = found;
  return {
    schema: { ...around, ...(schema.$defs === undefined ? {} : { $defs: schema.$defs }), properties, required: found.required?.filter((name) => name !== APPROVED) },
    decides: true,
  };
}

export interface Answer {
  value: Json | undefined;
  problems: Map<string, string>;
}

/** What is sent. `approved` is null where the question is not a decision. */
export function answerOf(form: Form, draft: Draft, approved: boolean | null): Answer {
  if (form.schema === null) return { value: undefined, problems: new Map() };
  const { value, problems } = read(form.schema, draft);
  if (approved === null) return { value, problems };
  const said: Dict = isDict(value) ? { ...value } : {};
  if (form.arguments !== null) {
    if (!approved) {
      problems.clear();
      delete said.arguments;
    } else if (same(said.arguments, form.arguments)) delete said.arguments;
  }
  return { value: { [APPROVED]: approved, ...said }, problems };
}

function same(a: Json | undefined, b: Json): boolean {
  return a !== undefined && sorted(a) === sorted(b);
}

function sorted(value: Json): string {
  return JSON.stringify(value, (_, one: Json) => (isDict(one) ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1))) : one));
}

/** How near the end of a question is: `red` under ten minutes, `amber` under an hour. */
export function urgency(expiresAt: string | null | undefined, now: number): "red" | "amber" | null {
  if (expiresAt == null) return null;
  const left = Date.parse(expiresAt) - now;
  return left < 600_000 ? "red" : left < 3_600_000 ? "amber" : null;
}
