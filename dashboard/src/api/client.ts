import createClient, { type Middleware } from "openapi-fetch";
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

const middleware: Middleware = {
  onRequest({ request }) {
    for (const [name, value] of Object.entries(projectHeaders())) request.headers.set(name, value);
    return request;
  },
  async onResponse({ response }) {
    heardAt(response.headers.get("date"));
    if (response.ok) return;
    const error = errorOf(response.status, await response.json().catch(() => null));
    if (error.status === 401) onSignedOut();
    throw error;
  },
};

/** All operations of the API, with the types of its OpenAPI document. Answers that are not 2xx are thrown. */
export const api = createClient<paths>({ baseUrl: location.origin, fetch: reach });
api.use(middleware);

/** For operations by a path that is known only at run time, such as those of an action's dialog. */
export async function send(method: string, path: string, body?: unknown, key?: string): Promise<unknown> {
  const headers: Record<string, string> = { ...projectHeaders() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key !== undefined) headers["Idempotency-Key"] = key;
  const reply = await reach(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  heardAt(reply.headers.get("date"));
  const answer: unknown = reply.status === 204 ? null : await reply.json().catch(() => null);
  if (!reply.ok) {
    if (reply.status === 401) onSignedOut();
    throw errorOf(reply.status, answer);
  }
  return answer;
}

export { ApiError };
