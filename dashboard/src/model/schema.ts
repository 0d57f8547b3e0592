/** Forms from a JSON Schema: which field stands for which part, what its text means as JSON, and what is wrong with it. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string | string[];
  title?: string;
  /** In place of the name of a field, where a form and not a type asks for it. */
  label?: string;
  description?: string;
  default?: Json;
  const?: Json;
  enum?: Json[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  format?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema | boolean;
  prefixItems?: Schema[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  minItems?: number;
  maxItems?: number;
}

export type Field = { schema: Schema; nullable: boolean } & (
  | { kind: "text"; input: "text" | "date" | "datetime-local" | "time" }
  | { kind: "number"; whole: boolean }
  | { kind: "switch" }
  | { kind: "choice"; values: Json[]; words?: (string | undefined)[] }
  | { kind: "object"; of: { name: string; schema: Schema; required: boolean }[] }
  | { kind: "list"; items: Schema }
  | { kind: "json" }
);

/** What a form holds: texts for text, numbers and JSON; undefined: left out. */
export type Draft = undefined | null | string | boolean | Draft[] | { [name: string]: Draft };

const DEEPEST = 6; // below it, or where a type contains itself, a field takes JSON

/** The schema itself in place of references and of wrappers that add nothing. */
export function resolved(schema: Schema, root: Schema): { schema: Schema; nullable: boolean } {
  let nullable = false;
  let found = schema;
  for (let step = 0; step < 20; step++) {
    if (found.$ref !== undefined) {
      const name = /^#\/\$defs\/(.+)$/.exec(found.$ref)?.[1]?.replaceAll("~1", "/").replaceAll("~0", "~");
      const { $ref: _, ...around } = found;
      found = { ...root.$defs?.[name ?? ""], ...around };
    } else if (found.allOf?.length === 1) {
      const { allOf, ...around } = found;
      found = { ...allOf[0]!, ...around };
    } else {
      const choices = found.anyOf ?? found.oneOf;
      const some = choices?.filter((one) => one.type !== "null");
      if (choices === undefined || some?.length !== 1) break;
      nullable ||= some.length < choices.length;
      const { anyOf: _a, oneOf: _o, ...around } = found;
      found = { ...some[0]!, ...around };
    }
  }
  if (Array.isArray(found.type)) {
    const types = found.type.filter((type) => type !== "null");
    nullable ||= types.length < found.type.length;
    if (types.length === 1) found = { ...found, type: types[0]! };
  }
  return { schema: found, nullable };
}

export function fieldOf(given: Schema, root: Schema, depth = 0): Field {
  const { schema, nullable } = resolved(given, root);
  const named = schema.oneOf?.every((one) => one.const !== undefined) === true ? schema.oneOf : undefined;
  if (named !== undefined) return { kind: "choice", values: named.map((one) => one.const!), words: named.map((one) => one.title), schema, nullable };
  const values = schema.enum ?? (schema.const === undefined ? undefined : [schema.const]);
  if (values !== undefined) return { kind: "choice", values: values.filter((one) => one !== null), schema, nullable: nullable || values.includes(null) };
  switch (schema.type) {
    case "string": {
      const inputs = { date: "date", "date-time": "datetime-local", time: "time" } as const;
      return { kind: "text", input: inputs[schema.format as keyof typeof inputs] ?? "text", schema, nullable };
    }
    case "integer":
    case "number":
      return { kind: "number", whole: schema.type === "integer", schema, nullable };
    case "boolean":
      return { kind: "switch", schema, nullable };
    case "object":
      if (schema.properties === undefined || depth >= DEEPEST) break;
      return {
        kind: "object",
        of: Object.entries(schema.properties).map(([name, of]) => ({ name, schema: of, required: schema.required?.includes(name) ?? false })),
        schema,
        nullable,
      };
    case "array":
      if (typeof schema.items !== "object" || schema.prefixItems !== undefined || depth >= DEEPEST) break;
      return { kind: "list", items: schema.items, schema, nullable };
  }
  return { kind: "json", schema, nullable };
}

/** What the form shows for a value; without one, for the defaults of the schema. */
export function draftOf(given: Schema, root: Schema, value?: Json, depth = 0): Draft {
  const field = fieldOf(given, root, depth);
  if (value === undefined) value = field.schema.default;
  if (value === null) return null;
  switch (field.kind) {
    case "object": {
      if (value !== undefined && (typeof value !== "object" || Array.isArray(value))) return {};
      const known = (value ?? {}) as Record<string, Json>;
      return Object.fromEntries(
        field.of.map(({ name, schema, required }) => {
          const inner = fieldOf(schema, root, depth + 1);
          const absent = known[name] === undefined && (!required || inner.nullable) && inner.schema.default === undefined;
          return [name, absent ? undefined : draftOf(schema, root, known[name], depth + 1)];
        }),
      );
    }
    case "list":
      return Array.isArray(value) ? value.map((one) => draftOf(field.items, root, one, depth + 1)) : [];
    case "switch":
      return typeof value === "boolean" ? value : undefined;
    case "choice":
      return value === undefined ? (field.values.length === 1 ? JSON.stringify(field.values[0]) : undefined) : JSON.stringify(value);
    case "json":
      return value === undefined ? undefined : JSON.stringify(value, null, 2);
    case "number":
      return value === undefined ? undefined : String(value);
    case "text":
      return value === undefined ? undefined : field.input === "datetime-local" ? local(String(value)) : String(value);
  }
}

function local(iso: string): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

export interface Read {
  /** undefined: left out. */
  value: Json | undefined;
  /** By the path of the field: `lines[1].count`. The whole form has the path "". */
  problems: Map<string, string>;
}

/** The JSON that a draft stands for. */
export function read(schema: Schema, draft: Draft): Read {
  const problems = new Map<string, string>();
  return { value: part(schema, schema, draft, "", true, problems, 0), problems };
}

export function below(path: string, name: string | number): string {
  return typeof name === "number" ? `${path}[${name}]` : path === "" ? name : `${path}.${name}`;
}

function part(given: Schema, root: Schema, draft: Draft, path: string, required: boolean, problems: Map<string, string>, depth: number): Json | undefined {
  const field = fieldOf(given, root, depth);
  const { schema } = field;
  const wrong = (text: string) => void problems.set(path, text);
  if (draft === null && field.nullable) return null;
  if (draft === undefined || draft === null || (draft === "" && (field.kind !== "text" || !required || field.nullable || field.input !== "text"))) {
    if (!required) return undefined;
    if (field.nullable) return null;
    if (field.kind === "text" && field.input === "text") draft = "";
    else if (field.kind === "switch") return false;
    else return void wrong(field.kind === "choice" ? "Choose one" : "Needs a value");
  }
  switch (field.kind) {
    case "object": {
      const found: Record<string, Json> = {};
      for (const one of field.of) {
        const value = part(one.schema, root, (draft as Record<string, Draft>)[one.name], below(path, one.name), one.required, problems, depth + 1);
        if (value !== undefined) found[one.name] = value;
      }
      return found;
    }
    case "list": {
      const items = draft as Draft[];
      if (items.length < (schema.minItems ?? 0)) wrong(`At least ${schema.minItems}`);
      if (items.length > (schema.maxItems ?? Infinity)) wrong(`At most ${schema.maxItems}`);
      return items.map((one, at) => part(field.items, root, one, below(path, at), true, problems, depth + 1) ?? null);
    }
    case "switch":
      return draft === true;
    case "choice":
      return JSON.parse(draft as string) as Json;
    case "json": {
      const fault = faultOf(draft as string);
      if (fault !== null) return void wrong(fault);
      return JSON.parse(draft as string) as Json;
    }
    case "number": {
      const text = (draft as string).trim();
      const value = Number(text);
      if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) || !Number.isFinite(value)) return void wrong("Not a number");
      if (field.whole && !Number.isInteger(value)) return void wrong("Needs a whole number");
      if (field.whole && !Number.isSafeInteger(value)) return void wrong(TOO_LARGE);
      if (value < (schema.minimum ?? -Infinity)) wrong(`At least ${schema.minimum}`);
      if (value > (schema.maximum ?? Infinity)) wrong(`At most ${schema.maximum}`);
      if (value <= (schema.exclusiveMinimum ?? -Infinity)) wrong(`More than ${schema.exclusiveMinimum}`);
      if (value >= (schema.exclusiveMaximum ?? Infinity)) wrong(`Less than ${schema.exclusiveMaximum}`);
      return value;
    }
    case "text": {
      const text = draft as string;
      if (field.input === "datetime-local") {
        const at = new Date(text);
        return Number.isNaN(at.getTime()) ? void wrong("Not a time") : at.toISOString();
      }
      const length = [...text].length;
      if (length < (schema.minLength ?? 0)) wrong(schema.minLength === 1 ? "Needs a value" : `At least ${schema.minLength} characters`);
      else if (length > (schema.maxLength ?? Infinity)) wrong(`At most ${schema.maxLength} characters`);
      else if (schema.pattern !== undefined && !matches(text, schema.pattern)) wrong(`Must match ${schema.pattern}`);
      return text;
    }
  }
}

/** A pattern of another dialect than the browser's decides nothing; the worker checks it again. */
function matches(text: string, pattern: string): boolean {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    return true;
  }
}

const TOO_LARGE = "A browser cannot hold so large a number. Use perdure run or Python";

/** What is wrong with a text as JSON, or null. */
export function faultOf(text: string): string | null {
  try {
    JSON.parse(text);
  } catch (error) {
    return `Not JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
  const numbers = text.replaceAll(/"(?:[^"\\]|\\.)*"/g, "").match(/-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/gi) ?? [];
  return numbers.some((one) => /^-?\d+$/.test(one) && !Number.isSafeInteger(Number(one))) ? TOO_LARGE : null;
}
