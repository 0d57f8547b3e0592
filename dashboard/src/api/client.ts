import type { PathsWithMethod, SuccessResponseJSON } from "openapi-typescript-helpers";
import type { components, paths } from "../../openapi";
import { ApiError, errorOf, reach } from "./errors";

export type Schemas = components["schemas"];

let project: string | null = null;
let onSignedOut: () => void = () => {};

/** A signed-in user names the project with each request. */
export function actIn(id: string | null): void {
  project = id;
}

export function currentProject(): string | null {
  return project;
}

export function whenSignedOut(listener: () => void): void {
  onSignedOut = listener;
}

export function signedOut(): void {
  onSignedOut();
}

export function projectHeaders(): Record<string, string> {
  return project === null ? {} : { "X-Project-ID": project };
}

let skew = 0;

/** The server's time. The clock of the browser may be wrong. */
export function now(): number {
  return Date.now() + skew;
}

function heardAt(date: string | null): void {
  const at = date === null ? Number.NaN : Date.parse(date);
  if (!Number.isNaN(at) && Math.abs(at + 500 - now()) > 2_000) skew = at + 500 - Date.now(); // `Date` has whole seconds
}

async function ask(method: string, path: string, { body, headers, signal }: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal }): Promise<unknown> {
  const given: Record<string, string> = { ...projectHeaders(), ...headers };
  if (body !== undefined) given["Content-Type"] = "application/json";
  const reply = await reach(path, { method, headers: given, body: body === undefined ? undefined : JSON.stringify(body), signal });
  heardAt(reply.headers.get("date"));
  const answer: unknown = reply.status === 204 ? null : await reply.json().catch(() => null);
  if (reply.ok) return answer;
  if (reply.status === 401) onSignedOut();
  throw errorOf(reply.status, answer);
}

export type GetPath = PathsWithMethod<paths, "get">;
type Operation<P extends GetPath> = NonNullable<paths[P]["get"]>;
export type Answer<P extends GetPath> = SuccessResponseJSON<Operation<P> & Record<string | number, unknown>>;
export type GetOptions<P extends GetPath> = { params?: Pick<Operation<P>["parameters"], "path" | "query"> };

/** A GET of the OpenAPI document, with its types. Answers that are not 2xx are thrown. */
export async function get<P extends GetPath>(path: P, options?: GetOptions<P>, signal?: AbortSignal): Promise<Answer<P>> {
  const { path: names = {}, query = {} } = (options?.params ?? {}) as { path?: Record<string, string>; query?: Record<string, unknown> };
  const given = Object.entries(query).flatMap(([name, value]) => (value == null ? [] : [[name, String(value)]]));
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(names[name]!));
  return (await ask("GET", given.length === 0 ? filled : `${filled}?${new URLSearchParams(given)}`, { signal })) as Answer<P>;
}

/** Any operation by its path, such as that of an action's dialog. Answers that are not 2xx are thrown. */
export function send(method: string, path: string, body?: unknown, key?: string): Promise<unknown> {
  return ask(method, path, { body, headers: key === undefined ? {} : { "Idempotency-Key": key } });
}

export { ApiError };
