import { keepPreviousData, QueryClient, useQuery, useQueryClient, type UseQueryResult } from "@tanstack/preact-query";
import type { PathsWithMethod } from "openapi-typescript-helpers";
import type { FetchOptions, FetchResponse } from "openapi-fetch";
import type { paths } from "../../openapi";
import { api, currentProject } from "./client";
import { ApiError, isAway } from "./errors";

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 1_000,
      gcTime: 5 * 60_000,
      retry: (count, error) => isAway(error) && count < 100,
      retryDelay: (count) => Math.min(1_000 * 2 ** count, 10_000),
      refetchOnWindowFocus: true,
      placeholderData: keepPreviousData, // old data stays while new data loads
    },
  },
});

type GetPath = PathsWithMethod<paths, "get">;
type Answer<P extends GetPath> = NonNullable<
  FetchResponse<NonNullable<paths[P]["get"]>, object, "application/json">["data"]
>;
export type GetOptions<P extends GetPath> = FetchOptions<NonNullable<paths[P]["get"]>>;

interface Watching {
  /** Look again after so many milliseconds, while the page is visible. */
  every?: number;
  enabled?: boolean;
}

/** The answer of a GET, cached by path and parameters, for as long as a page shows it. */
export function useGet<P extends GetPath>(
  path: P,
  options?: GetOptions<P>,
  { every, enabled }: Watching = {},
): UseQueryResult<Answer<P>, ApiError> {
  return useQuery({
    queryKey: [path, currentProject(), options ?? null],
    queryFn: async ({ signal }) => {
      const { data } = await api.GET(path, { ...options, signal } as never);
      return data as unknown as Answer<P>;
    },
    refetchInterval: every ?? false,
    enabled: enabled ?? true,
  }) as UseQueryResult<Answer<P>, ApiError>;
}

/** Ask again for all that is shown below the given paths: after an action, or when the live feed says so. */
export function useRefresh(): (...prefixes: string[]) => void {
  const client = useQueryClient();
  return (...prefixes) => {
    void client.invalidateQueries({
      predicate: ({ queryKey }) =>
        prefixes.length === 0 || prefixes.some((prefix) => String(queryKey[0]).startsWith(prefix)),
    });
  };
}
