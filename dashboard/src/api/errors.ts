/** An answer of the server that is not 2xx, in the server's own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    message: string,
    readonly details: unknown = undefined,
  ) {
    super(message);
  }
}

export function errorOf(status: number, body: unknown): ApiError {
  const known = (body ?? {}) as { error?: string; error_type?: string; details?: unknown };
  return new ApiError(status, known.error_type ?? "", known.error ?? `The server answered ${status}.`, known.details);
}

/** The server did not answer; the request may be sent again. */
export function isAway(error: unknown): boolean {
  return error instanceof TypeError || (error instanceof ApiError && [408, 502, 503, 504].includes(error.status));
}
