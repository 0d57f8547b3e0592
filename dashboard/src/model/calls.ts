/** The same request as a page sends, for a terminal or a program. */

export interface Call {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With its query, from `/api/…` on. */
  path: string;
  body?: unknown;
}

export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

export function asCurl(call: Call, origin: string, project: string | null): string {
  const parts = [
    `curl -X ${call.method} ${quoted(origin + call.path)}`,
    `-H "Authorization: Bearer $PERDURE_API_KEY"`,
    ...(project === null ? [] : [`-H 'X-Project-ID: ${project}'`]),
    ...(call.body === undefined
      ? []
      : ["-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(call.body))}`]),
  ];
  return parts.join(" \\\n  ");
}

/** A JSON value as a Python literal. */
export function asPython(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return JSON.stringify(value).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
  if (Array.isArray(value)) return `[${value.map(asPython).join(", ")}]`;
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([name, item]) => `${asPython(name)}: ${asPython(item)}`);
    return `{${pairs.join(", ")}}`;
  }
  return String(value);
}
