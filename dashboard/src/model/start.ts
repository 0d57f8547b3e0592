/** A start of a workflow as a request, a `perdure` command and Python. */

import { asPython, quoted, type Call } from "./calls";
import type { Json } from "./schema";

/** What the fields of the form hold, as text. */
export interface StartOptions {
  key: string;
  queue: string;
  concurrencyKey: string;
  priority: string;
  delay: string;
  session: string;
  user: string;
  tags: string;
  deployment: string;
  timeout: string;
  budget: string;
}

export const NO_OPTIONS: StartOptions = { key: "", queue: "", concurrencyKey: "", priority: "", delay: "", session: "", user: "", tags: "", deployment: "", timeout: "", budget: "" };

/** `name=value`, with commas between. */
export function tagsOf(text: string): Record<string, string> | null {
  const found: Record<string, string> = {};
  for (const one of text.split(",").map((part) => part.trim())) {
    if (one === "") continue;
    const at = one.indexOf("=");
    if (at < 1) return null;
    found[one.slice(0, at).trim()] = one.slice(at + 1).trim();
  }
  return found;
}

const NUMBERS = [
  ["priority", /^-?\d+$/, "Needs a whole number"],
  ["delay", /^\d+(\.\d+)?$/, "Needs a number of seconds"],
  ["timeout", /^\d+$/, "Needs a whole number of seconds"],
  ["budget", /^\d+(\.\d+)?$/, "Needs an amount in dollars"],
] as const;

export function optionProblems(options: StartOptions): Partial<Record<keyof StartOptions, string>> {
  const found: Partial<Record<keyof StartOptions, string>> = {};
  for (const [name, form, words] of NUMBERS) if (options[name] !== "" && !form.test(options[name])) found[name] = words;
  if (tagsOf(options.tags) === null) found.tags = "Write name=value, with commas between";
  return found;
}

export function startCall(workflow: string, payload: Json, options: StartOptions): Call {
  const tags = tagsOf(options.tags) ?? {};
  const text = (value: string) => (value === "" ? undefined : value);
  const number = (value: string) => (value === "" || Number.isNaN(Number(value)) ? undefined : Number(value));
  return {
    method: "POST",
    path: `/api/v1/workflows/${encodeURIComponent(workflow)}/run`,
    body: {
      payload,
      key: text(options.key),
      queue_name: text(options.queue),
      concurrency_key: text(options.concurrencyKey),
      priority: number(options.priority),
      delay_seconds: number(options.delay),
      session_id: text(options.session),
      user_id: text(options.user),
      tags: Object.keys(tags).length === 0 ? undefined : tags,
      deployment_id: text(options.deployment),
      run_timeout_seconds: number(options.timeout),
      budget: options.budget === "" ? undefined : { usd: number(options.budget) },
    },
  };
}

/** Null: the command has no option for one of these. */
export function startCommand(workflow: string, payload: Json, options: StartOptions): string | null {
  if (options.timeout !== "") return null;
  const given: [string, string][] = [
    ["--key", options.key],
    ["--queue", options.queue],
    ["--concurrency-key", options.concurrencyKey],
    ["--priority", options.priority],
    ["--delay", options.delay],
    ["--session", options.session],
    ["--user", options.user],
    ...Object.entries(tagsOf(options.tags) ?? {}).map(([name, value]): [string, string] => ["--tag", `${name}=${value}`]),
    ["--deployment", options.deployment],
    ["--budget", options.budget === "" ? "" : `usd=${options.budget}`],
  ];
  const parts = [`perdure run ${quoted(workflow)}`];
  if (payload !== null) parts.push(`--input ${quoted(JSON.stringify(payload))}`);
  for (const [name, value] of given) if (value !== "") parts.push(`${name} ${quoted(value)}`);
  return parts.join(" \\\n  ");
}

export function startPython(workflow: string, payload: Json, options: StartOptions): string {
  const tags = tagsOf(options.tags) ?? {};
  const given: [string, string][] = [
    ["key", options.key && asPython(options.key)],
    ["queue", options.queue && asPython(options.queue)],
    ["concurrency_key", options.concurrencyKey && asPython(options.concurrencyKey)],
    ["priority", options.priority],
    ["delay", options.delay],
    ["session_id", options.session && asPython(options.session)],
    ["user_id", options.user && asPython(options.user)],
    ["tags", Object.keys(tags).length === 0 ? "" : asPython(tags)],
    ["deployment_id", options.deployment && asPython(options.deployment)],
    ["run_timeout_seconds", options.timeout],
    ["budget", options.budget && `Budget(usd=${options.budget})`],
  ];
  const parts = [asPython(workflow), ...(payload === null ? [] : [asPython(payload)]), ...given.filter(([, text]) => text !== "").map(([name, text]) => `${name}=${text}`)];
  const line = `await client.start(${parts.join(", ")})`;
  return line.length <= 60 ? line : `await client.start(\n${parts.map((one) => `    ${one},\n`).join("")})`;
}
