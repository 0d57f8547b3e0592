import { keepPreviousData, QueryClient, useQuery, type UseQueryResult } from "@tanstack/preact-query";
import { currentProject, get, type Answer, type GetOptions, type GetPath } from "./client";
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
    queryFn: ({ signal }) => get(path, options, signal),
    refetchInterval: every ?? false,
    enabled: enabled ?? true,
  }) as UseQueryResult<Answer<P>, ApiError>;
}

/** Ask again for all that is shown below the given paths: after an action, or when the live feed says so. */
export function refresh(...prefixes: string[]): void {
  void queries.invalidateQueries({
    predicate: ({ queryKey }) => prefixes.length === 0 || prefixes.some((prefix) => String(queryKey[0]).startsWith(prefix)),
  });
}

export const useRefresh = () => refresh;
