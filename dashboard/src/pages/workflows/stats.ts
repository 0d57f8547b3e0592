import type { GetOptions, Schemas } from "../../api/client";
import { useGet } from "../../api/query";

export type WorkflowNumbers = Schemas["WorkflowDetails"];
type Range = NonNullable<NonNullable<GetOptions<"/api/v1/workflows/{workflow_id}/stats">["params"]>["query"]>["range"];

/** The last 24 hours by workflow; undefined until they are loaded. */
export function useStats(): Map<string, Schemas["WorkflowStats"]> | undefined {
  const { data } = useGet("/api/v1/stats/workflows", { params: { query: { range: "24h", limit: 1_000 } } }, { every: 15_000 });
  return data && new Map(data.workflows.map((one) => [one.workflow_id, one]));
}

export function useWorkflowStats(id: string, range: string): WorkflowNumbers | undefined {
  return useGet("/api/v1/workflows/{workflow_id}/stats", { params: { path: { workflow_id: id }, query: { range: range as Range } } }, { every: 15_000 }).data;
}
