import { useQuery } from "@tanstack/preact-query";
import { currentProject, send } from "../../api/client";
import type { Filters } from "../../model/filters";

export interface Count {
  count: number;
  exact: boolean;
}
export interface Histogram {
  step_seconds: number;
  from: string;
  to: string;
  exact: boolean;
  buckets: { at: string; phases: Record<string, number> }[];
}
export interface ErrorGroup {
  class: string;
  message: string;
  workflow_id: string;
  place: string | null;
  count: number;
  filter: Filters;
}

function useNumbers<T>(path: string, filters: Filters, enabled: boolean) {
  const query = new URLSearchParams(filters).toString();
  return useQuery({
    queryKey: [`/api/v1/executions/${path}`, currentProject(), query],
    queryFn: () => send("GET", `/api/v1/executions/${path}${query === "" ? "" : `?${query}`}`) as Promise<T>,
    enabled,
    staleTime: 10_000,
  }).data;
}

export function useCount(filters: Filters, enabled = true): Count | undefined {
  return useNumbers<Count>("count", filters, enabled);
}

export function useHistogram(filters: Filters): Histogram | undefined {
  return useNumbers<Histogram>("histogram", filters, true);
}

export function useErrorGroups(filters: Filters, enabled: boolean): ErrorGroup[] {
  return useNumbers<{ groups: ErrorGroup[] }>("errors", { ...filters, limit: "4" }, enabled)?.groups ?? [];
}

/** The values that a field has among the executions that the other filters find. */
export function useFacet(field: string | null, filters: Filters, enabled: boolean): { value: string; count?: number }[] {
  return useNumbers<{ values: { value: string; count: number }[] }>("facets", { ...filters, field: field ?? "" }, enabled && field !== null)?.values ?? [];
}
