import { useOptional } from "../../api/optional";
import type { Bucket } from "../../parts/bars";

export interface WorkflowRow {
  workflow_id: string;
  ended: number;
  failed: number;
  p50_ms: number | null;
  p95_ms: number | null;
  open: number;
}

export interface ErrorGroup {
  class: string | null;
  message: string;
  place: string | null;
  count: number;
  last_at: string;
  sample_ids: string[];
  filter: Record<string, string>;
}

export interface WorkflowStats {
  counted_from: string | null;
  completed: number;
  failed: number;
  cancelled: number;
  p50_ms: number | null;
  p95_ms: number | null;
  open: Record<string, number>;
  buckets: Bucket[];
  deployments: { deployment_id: string; completed: number; failed: number; cancelled: number; p50_ms: number | null; p95_ms: number | null }[];
  errors: ErrorGroup[];
  steps: { sampled: number; values: { name: string; kind: string; count: number; p50_ms: number; p95_ms: number }[] };
}

/** By workflow; undefined: this server does not count. */
export function useStats(): Map<string, WorkflowRow> | undefined {
  const answer = useOptional<{ workflows: WorkflowRow[] }>("/api/v1/stats/workflows?range=24h&limit=1000", { every: 15_000 });
  return answer && new Map(answer.workflows.map((one) => [one.workflow_id, one]));
}

export function useWorkflowStats(id: string, range: string): WorkflowStats | undefined {
  return useOptional<WorkflowStats>(`/api/v1/workflows/${encodeURIComponent(id)}/stats?range=${range}`, { every: 5_000 });
}
