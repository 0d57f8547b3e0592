/** Numbers, ids and sizes as the pages show them. */

export function count(n: number): string {
  return n.toLocaleString("en-US");
}

/** `1 execution`, `412 executions`. */
export function counted(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Ids of one moment begin alike, so their ends tell them apart. */
export function shortId(id: string): string {
  return id.length > 12 ? `…${id.slice(-8)}` : id;
}

/** Two decimals from one dollar on, four below. */
export function money(usd: number): string {
  if (usd === 0) return "$0";
  return usd >= 1 ? `$${usd.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}` : `$${usd.toFixed(4)}`;
}

/** The sum of some calls: of those whose price is known, and "at least" if not all calls are counted. */
export function spent(of: { usd: number; unpriced: number; calls: number }, exact = true): string {
  if (of.calls > 0 && of.unpriced === of.calls) return "price unknown";
  return exact && of.unpriced === 0 ? money(of.usd) : `at least ${money(of.usd)}`;
}

export function bytes(n: number): string {
  if (n < 1_024) return counted(n, "byte");
  if (n < 1_048_576) return `${(n / 1_024).toFixed(1).replace(/\.0$/, "")} KB`;
  return `${(n / 1_048_576).toFixed(1).replace(/\.0$/, "")} MB`;
}

export function share(part: number, whole: number): string {
  if (whole === 0) return "0 %";
  const percent = (100 * part) / whole;
  return percent > 99.9 && part < whole ? "99.9 %" : `${percent.toFixed(1).replace(/\.0$/, "")} %`;
}

/** Characters that a reader does not see, or that change the direction of writing, are spelled out. */
export function visible(text: string): string {
  return text.replace(
    /(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu,
    (character) => `⟨U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

/** The line of a failed execution: which error, in which step. Null if it is not an error with a class. */
export function splitError(text: string): { type: string; message: string; step: string | null; tries: number } | null {
  const of = /^StepFailed: step '([^']+)' failed(?: after ([\d…]+) tr(?:y|ies))?: (.*)$/s.exec(text);
  const [, type, message] = /^([A-Za-z_][\w.]*): (.*)$/s.exec(of?.[3] ?? text) ?? [];
  if (type === undefined || message === undefined) return null;
  return { type, message, step: of?.[1] ?? null, tries: Number(of?.[2] ?? 1) || 1 };
}

/** The same as one line: the error, and the step if it is not shown beside it. */
export function errorWords(text: string, withStep = true): string {
  const error = splitError(text);
  if (error === null) return text;
  return `${error.type}: ${error.message}${withStep && error.step !== null ? ` in ${error.step}` : ""}`;
}

/** The server's sentences name ids in full and times in UTC: here ids are short, and times are those of the browser's zone. */
export function plainer(text: string): string {
  return text
    .replace(/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{8}([0-9a-f]{4})\b/g, "…$1")
    .replace(/(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC/g, (_, day: string, time: string) => {
      const at = new Date(`${day}T${time}Z`);
      const date = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} `;
      return date + at.toLocaleTimeString("en-GB");
    });
}
