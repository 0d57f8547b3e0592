import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import type { Filters } from "../../model/filters";

// Numbers of what the filters find. The server searches for half a second at most, then it says "at least".

export function useCount(filters: Filters, enabled = true): { count: number; exact: boolean } | undefined {
  return useGet("/api/v1/executions/count", { params: { query: filters as never } }, { enabled }).data;
}

export function useHistogram(filters: Filters): Schemas["Histogram"] | undefined {
  return useGet("/api/v1/executions/histogram", { params: { query: filters as never } }).data;
}

export function useErrorGroups(filters: Filters, enabled: boolean): Schemas["ErrorGroup"][] {
  return useGet("/api/v1/executions/errors", { params: { query: { ...filters, limit: 4 } as never } }, { enabled }).data?.groups ?? [];
}

/** The values that a field has among the executions that the other filters find. */
export function useFacet(of: string | null, filters: Filters, enabled: boolean): { value: string; count?: number }[] {
  const found = useGet("/api/v1/executions/facets", { params: { query: { ...filters, of } as never } }, { enabled: enabled && of !== null });
  return of !== null && found.data?.of === of ? found.data.values : [];
}
