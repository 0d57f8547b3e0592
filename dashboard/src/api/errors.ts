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

/** No answer came: the server is away, or the network is. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

/** As `fetch`. Throws `Unreachable` where `fetch` throws a TypeError, as a bug in a page does, too. */
export async function reach(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  try {
    return await fetch(input, init);
  } catch (error) {
    throw error instanceof TypeError ? new Unreachable() : error;
  }
}

/** Whether the request may be sent again as it is. */
export function isAway(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof ApiError && [408, 502, 503, 504].includes(error.status));
}
