/** Filters of the list of executions: the address, the chips and the API have the same names and values. */

export interface Field {
  /** Of the API and of the address. */
  name: string;
  /** Begins a chip: "phase is". */
  word: string;
  relation: "is" | "begins with" | "has" | "contains" | "=" | "after" | "before";
  /** Several values are alternatives. */
  several?: boolean;
  /** The filter `not_…` leaves its values out. */
  negatable?: boolean;
  /** The field of `/executions/facets` that knows its values. */
  facet?: string;
  hint: string;
}

export const FIELDS: readonly Field[] = [
  { name: "phase", word: "phase", relation: "is", several: true, negatable: true, facet: "phase", hint: "failed, waiting, running, …" },
  { name: "workflow_id", word: "workflow", relation: "is", several: true, negatable: true, facet: "workflow_id", hint: "a workflow or an agent" },
  { name: "deployment_id", word: "deployment", relation: "is", several: true, negatable: true, facet: "deployment_id", hint: "a deployment" },
  { name: "queue_name", word: "queue", relation: "is", several: true, negatable: true, facet: "queue_name", hint: "a queue" },
  { name: "key", word: "key", relation: "is", hint: "the whole key" },
  { name: "key_part", word: "key part", relation: "begins with", hint: "the beginning of the key, or of a word in it" },
  { name: "tag", word: "tag", relation: "is", negatable: true, facet: "tag", hint: "name=value, or a name" },
  { name: "user_id", word: "user", relation: "is", facet: "user_id", hint: "a user id" },
  { name: "session_id", word: "session", relation: "is", facet: "session_id", hint: "a session id" },
  { name: "batch_id", word: "batch", relation: "is", facet: "batch_id", hint: "a batch id" },
  { name: "error", word: "error", relation: "contains", facet: "error_class", hint: "words of the error" },
  { name: "field", word: "field", relation: "=", hint: "payload.customer.id=7" },
  { name: "created_after", word: "created", relation: "after", hint: "noon, 2 h, 2026-11-29 10:08" },
  { name: "created_before", word: "created", relation: "before", hint: "noon, 2 h, 2026-11-29 10:08" },
  { name: "retried", word: "retried", relation: "is", hint: "true or false" },
  { name: "forked_from", word: "forked from", relation: "is", hint: "an execution id" },
  { name: "parent_execution_id", word: "parent", relation: "is", hint: "an execution id" },
  { name: "root_execution_id", word: "below", relation: "is", hint: "an execution id" },
];

const byName = new Map(FIELDS.map((field) => [field.name, field]));
const NOT = "not_";

/** The names of all filters, as the address has them. */
export const NAMES: readonly string[] = [...FIELDS.map((field) => field.name), ...FIELDS.flatMap((field) => (field.negatable === true ? [NOT + field.name] : [])), "status", "q"];

/** The field of a filter; one of `not_phase` is `phase`. */
export function fieldOf(name: string): Field | undefined {
  return byName.get(name) ?? (name.startsWith(NOT) ? byName.get(name.slice(NOT.length)) : undefined);
}

/** The beginning of a chip: "phase is", "phase is not". */
export function begins(name: string): string {
  const field = fieldOf(name);
  return field === undefined ? `${name} is` : `${field.word} ${field.relation}${name === field.name ? "" : " not"}`;
}

/** The same filter the other way around: without its values in place of with them. Null: it has no other way. */
export function negated(filters: Filters, name: string): Filters | null {
  const field = fieldOf(name);
  if (field?.negatable !== true) return null;
  const other = name === field.name ? NOT + name : field.name;
  const values = [...new Set([filters[other], filters[name]].flatMap((value) => (value === undefined ? [] : value.split(","))))];
  return { ...without(filters, name), [other]: field.several === true ? values.join(",") : filters[name]! };
}

/** What the address says, by the API's names. `q` has free words, `status` the five words of the contract. */
export type Filters = Record<string, string>;

export function readFilters(params: URLSearchParams): Filters {
  const given: Filters = {};
  for (const name of NAMES) {
    const value = params.getAll(name).join(",");
    if (value !== "") given[name] = value;
  }
  return given;
}

export interface Chip {
  name: string;
  value: string;
  /** "phase is". */
  says: string;
  /** The value, for people. */
  shows: string;
}

export function chips(filters: Filters, now: number): Chip[] {
  return Object.entries(filters).flatMap(([name, value]) => {
    if (name === "q") return [];
    const shows = name.startsWith("created_") ? moment(value, now) : (fieldOf(name)?.several ?? true) ? value.split(",").join(" or ") : value;
    return [{ name, value, says: begins(name), shows }];
  });
}

/** With one more value: another alternative, where a field takes several. */
export function withValue(filters: Filters, name: string, value: string): Filters {
  const known = filters[name];
  const several = fieldOf(name)?.several === true && known !== undefined;
  const values = several ? [...new Set([...known.split(","), value])].join(",") : value;
  return { ...filters, [name]: values };
}

export function without(filters: Filters, name: string): Filters {
  return Object.fromEntries(Object.entries(filters).filter(([known]) => known !== name));
}

/** `10:08 today`, `29 Nov 10:08`. */
function moment(iso: string, now: number): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  const clock = `${String(at.getHours()).padStart(2, "0")}:${String(at.getMinutes()).padStart(2, "0")}`;
  if (at.toDateString() === new Date(now).toDateString()) return `${clock} today`;
  return `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock}`;
}

const UNITS: Record<string, number> = { s: 1e3, m: 6e4, min: 6e4, h: 36e5, d: 864e5, w: 6048e5 };

/** A moment that a person types: `2 h`, `noon`, `today`, `yesterday`, `10:08`, or a date. Null if it is none. */
export function parseMoment(text: string, now: number): string | null {
  const wanted = text.trim().toLowerCase().replace(/ ago$/, "");
  const ago = /^(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)$/.exec(wanted);
  if (ago !== null) return new Date(now - Number(ago[1]) * UNITS[ago[2]!]!).toISOString();
  const day = new Date(now);
  const at = (hours: number, minutes = 0, days = 0) => {
    day.setHours(hours, minutes, 0, 0);
    day.setDate(day.getDate() - days);
    return day.toISOString();
  };
  if (wanted === "today" || wanted === "midnight") return at(0);
  if (wanted === "noon") return at(12);
  if (wanted === "yesterday") return at(0, 0, 1);
  const clock = /^(\d{1,2}):(\d{2})(?: today)?$/.exec(wanted);
  if (clock !== null && Number(clock[1]) < 24 && Number(clock[2]) < 60) return at(Number(clock[1]), Number(clock[2]));
  if (!/^\d{4}-\d{2}-\d{2}/.test(wanted)) return null;
  const given = new Date(/^\d{4}-\d{2}-\d{2}$/.test(wanted) ? `${wanted}T00:00` : text.trim().replace(" ", "T"));
  return Number.isNaN(given.getTime()) ? null : given.toISOString();
}

export interface Suggestion {
  /** A field to choose, or a whole filter. */
  name: string;
  value?: string;
  text: string;
  hint?: string;
}

/** What may be meant by words that are typed: fields, a `field:value`, or free words. */
export function suggestFields(text: string): Suggestion[] {
  const wanted = text.trim().toLowerCase();
  const pair = /^([\w ]+?)\s*(!?)[:=]\s*(.+)$/.exec(text.trim());
  const found = FIELDS.filter((field) => `${field.word} ${field.relation}`.includes(wanted) || field.name.includes(wanted)).map(
    (field) => ({ name: field.name, text: `${field.word} ${field.relation}`, hint: field.hint }),
  );
  if (pair === null) return found;
  const field = FIELDS.find(({ word, name }) => word === pair[1]!.toLowerCase() || name === pair[1]!.toLowerCase());
  if (field === undefined) return found;
  const name = pair[2] === "!" && field.negatable === true ? NOT + field.name : field.name;
  return [{ name, value: pair[3]!, text: `${begins(name)} ${pair[3]!}` }];
}

/** A typed value as the API takes it, or why it is none. */
export function readValue(name: string, text: string, now: number): { value: string } | { wrong: string } {
  const value = text.trim();
  if (name.startsWith("created_")) {
    const at = parseMoment(value, now);
    return at === null ? { wrong: "Type a time: noon, 2 h, 10:08 or 2026-11-29 10:08." } : { value: at };
  }
  if (name === "field" && !value.includes("=")) return { wrong: "Type a path and a value: payload.customer.id=7." };
  if (name === "key_part" && value.length < 2) return { wrong: "Type 2 characters or more." };
  return { value };
}

export interface View {
  name: string;
  filters: Filters;
}

export const OPEN_PHASES = "queued,running,waiting,cancelling,blocked,held";

export function builtInViews(now: number): View[] {
  return [
    { name: "All", filters: {} },
    { name: "Open", filters: { phase: OPEN_PHASES } },
    { name: "Failed today", filters: { phase: "failed", created_after: parseMoment("today", now)! } },
  ];
}

export function sameFilters(one: Filters, other: Filters): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}

/** The body of a bulk job has lists where the list's address has commas. */
export function bulkFilters(filters: Filters): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(filters).map(([name, value]) => [
      name,
      name === "status" || name === "phase" || name === "not_phase" ? value.split(",") : name === "retried" ? value === "true" : value,
    ]),
  );
}

const FLAGS: Record<string, string> = {
  workflow_id: "workflow",
  deployment_id: "deployment",
  queue_name: "queue",
  session_id: "session",
  user_id: "user",
  batch_id: "batch",
  parent_execution_id: "parent",
  root_execution_id: "root",
  created_after: "since",
  created_before: "before",
};

/** As flags of `perdure ls` and `perdure bulk`; null if these lack one of the filters. */
export function asFlags(filters: Filters): string[] | null {
  if ("q" in filters || "forked_from" in filters || Object.keys(filters).some((name) => name.startsWith(NOT))) return null;
  return Object.entries(filters).flatMap(([name, value]) =>
    name === "retried" ? [value === "true" ? "--retried" : "--not-retried"] : [`--${FLAGS[name] ?? name.replaceAll("_", "-")}`, value],
  );
}

/** Filters show failures, so groups of errors help. */
export function showsFailures(filters: Filters): boolean {
  const named = filters["phase"] ?? filters["status"];
  return named === "failed" || (named === undefined && filters["error"] !== undefined);
}
