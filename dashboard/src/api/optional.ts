import { useQuery } from "@tanstack/preact-query";
import { currentProject, send } from "./client";
import { ApiError } from "./errors";

/** The answer of a GET that not every server has: undefined while it loads, and where the server answers 404. */
export function useOptional<T>(path: string | null, { every }: { every?: number } = {}): T | undefined {
  const { data } = useQuery<T | null>({
    queryKey: [path?.split("?")[0], currentProject(), path],
    queryFn: async () => {
      try {
        return (await send("GET", path!)) as T;
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return null;
        throw error;
      }
    },
    enabled: path !== null,
    refetchInterval: (query) => (query.state.data === null ? false : (every ?? false)),
  });
  return data ?? undefined;
}
