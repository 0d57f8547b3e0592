import { Link, useLocation } from "wouter-preact";
import { Play } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { duration } from "../../model/time";
import { count, share } from "../../model/words";
import { Split } from "../../parts/controls";
import { Page } from "../../parts/page";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Key, Shown } from "../../parts/text";
import { useQueryParams } from "../../url";
import { RunForm } from "./run";
import { useStats } from "./stats";
import "./workflows.css";

export interface Listed {
  id: string;
  queue: string;
  deployments: string[];
  causes: string[];
}

/** One entry a workflow, of the newest registration, with what starts it. */
export function listed(
  registered: Schemas["DeploymentWorkflow"][],
  schedules: Schemas["ScheduleResponse"][],
  triggers: Schemas["EventTriggerResponse"][],
): Listed[] {
  const found = new Map<string, Listed>();
  for (const one of registered) {
    if (one.workflow_type !== "workflow") continue;
    const known = found.get(one.workflow_id);
    if (known !== undefined) known.deployments.push(one.deployment_id);
    else found.set(one.workflow_id, { id: one.workflow_id, queue: one.queue_name, deployments: [one.deployment_id], causes: [] });
  }
  for (const one of schedules) found.get(one.workflow_id)?.causes.push(`${one.cron} ${one.timezone.replace(/^.*\//, "")}`);
  for (const one of triggers) found.get(one.workflow_id)?.causes.push(`${one.batch_size > 1 ? "batches of" : "on"} ${one.event_topic}`);
  return [...found.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

export function useWorkflows() {
  const registered = useGet("/api/v1/workflows", { params: { query: { limit: 1_000 } } }, { every: 10_000 });
  const schedules = useGet("/api/v1/schedules", { params: { query: { limit: 1_000 } } });
  const triggers = useGet("/api/v1/event-triggers", { params: { query: { limit: 1_000 } } });
  return {
    ...registered,
    data: registered.data && listed(registered.data, schedules.data?.schedules ?? [], triggers.data?.triggers ?? []),
  };
}

/** A workflow as a deployment registered it; null for an agent. */
export function useDefinition(workflow: string, deployment: string | undefined) {
  const agents = useGet("/api/v1/agents");
  const isAgent = agents.data?.some((one) => one.id === workflow) === true;
  const path = { params: { path: { workflow_id: workflow }, query: deployment === undefined ? {} : { deployment_id: deployment } } };
  const known = useGet("/api/v1/workflows/{workflow_id}", path, { enabled: !agents.isPending && !isAgent });
  return isAgent ? { ...agents, data: null } : known;
}

const EXAMPLE = `from perdure import Context, step, workflow

@step(retry=3)
async def charge(order_id: int) -> str:
    return f"receipt-{order_id}"

@workflow
async def order(ctx: Context, order_id: int) -> str:
    return await charge(order_id)

# perdure work app.py`;

export default function Workflows() {
  const workflows = useWorkflows();
  const [params, change] = useQueryParams();
  return (
    <Page
      title="Workflows"
      bare
      actions={
        <>
          <input
            class="input find"
            type="search"
            aria-label="Find a workflow"
            placeholder="Name, queue, schedule, topic"
            value={params.get("q") ?? ""}
            onInput={(event) => change({ q: event.currentTarget.value === "" ? null : event.currentTarget.value })}
          />
          <button type="button" class="btn" onClick={() => change({ run: "1" })}>
            <Play size={13} aria-hidden="true" /> Start <Key keys="n" />
          </button>
        </>
      }
    >
      <Loaded of={workflows}>
        {(found) =>
          found.length === 0 ? (
            <Empty title="No workflows yet" code={EXAMPLE} docs="docs/workflows.md">
              A workflow appears here as soon as a worker registers with its code.
            </Empty>
          ) : (
            <List found={found} />
          )
        }
      </Loaded>
    </Page>
  );
}

function List({ found }: { found: Listed[] }) {
  const [params, change] = useQueryParams();
  const [, navigate] = useLocation();
  const stats = useStats();
  const words = (params.get("q") ?? "").toLowerCase();
  const shown = found.filter((one) => [one.id, one.queue, ...one.causes].some((text) => text.toLowerCase().includes(words)));
  const asked = params.get("run");
  const run = asked === null ? null : found.some((one) => one.id === asked) ? asked : (shown[0] ?? found[0]!).id;
  const { row } = useRows(shown.length, (at) => navigate(`/workflows/${encodeURIComponent(shown[at]!.id)}`));
  const close = () => change({ run: null, from: null });
  return (
    <Split label="Start a workflow" aside={run === null ? null : <RunForm workflow={run} from={params.get("from")} onClose={close} />}>
      <table>
        <thead>
          <tr>
            <th>Workflow</th>
            <th>Queue</th>
            {stats !== undefined && (
              <>
                <th class="r">Ended, 24 h</th>
                <th class="r">Failed</th>
                <th class="r">p95</th>
                <th class="r">Open</th>
              </>
            )}
            <th>Starts by itself</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {shown.map((one, at) => {
            const of = stats?.get(one.id);
            const failed = of === undefined || of.ended === 0 ? 0 : of.failed / of.ended;
            return (
              <tr key={one.id} {...row(at)} class={one.id === run ? "cur" : row(at).class}>
                <td>
                  <Link href={`/workflows/${encodeURIComponent(one.id)}`} class="m">
                    <Shown text={one.id} />
                  </Link>
                </td>
                <td class="dim">
                  <Link href={`/queues?queue=${encodeURIComponent(one.queue)}`}>
                    <Shown text={one.queue} />
                  </Link>
                </td>
                {stats !== undefined && (
                  <>
                    <td class="r num">{count(of?.ended ?? 0)}</td>
                    <td class={`r num ${failed >= 0.02 ? "bad" : "dim"}`}>{of === undefined || of.ended === 0 ? "–" : share(of.failed, of.ended)}</td>
                    <td class="r num dim">{of?.p95_ms == null ? "–" : duration(of.p95_ms)}</td>
                    <td class="r num">{count(of?.open ?? 0)}</td>
                  </>
                )}
                <td class="dim trunc">
                  <Shown text={one.causes.slice(0, 2).join(" · ") + (one.causes.length > 2 ? ` and ${one.causes.length - 2} more` : "")} />
                </td>
                <td class="r">
                  <button type="button" class="btn sm" aria-label={`Start ${one.id}`} onClick={() => change({ run: one.id, from: null })}>
                    Start
                  </button>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {shown.length === 0 && <Empty title={`No workflow matches “${words}”`}>Change or clear the words above.</Empty>}
    </Split>
  );
}
