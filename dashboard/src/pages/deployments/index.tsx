import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Check, Pause, Undo2 } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { setNavCount } from "../../frame";
import { quoted } from "../../model/calls";
import { count, counted, plainer } from "../../model/words";
import { ActionDialog } from "../../parts/action";
import { Segments } from "../../parts/controls";
import { Page } from "../../parts/page";
import { PauseDialog, PausedNote } from "../../parts/pauses";
import { PhaseIcon, PHASES } from "../../parts/phase";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";
import { useEffect } from "preact/hooks";
import { StatsOf, UseDialog } from "../overview/since";
import { Workers } from "./workers";
import { useLocation } from "wouter-preact";
import "./deployments.css";

type Deployment = Schemas["ListedDeployment"];
type Act = { kind: "use" | "retire" | "pause"; of: Deployment };

export default function Deployments() {
  const [params, change] = useQueryParams();
  const [path, navigate] = useLocation();
  const view = path.startsWith("/workers") ? "workers" : "deployments";
  const retired = params.get("retired") === "true";
  const deployments = useGet("/api/v1/deployments", { params: { query: { limit: 200, ...(retired ? { retired: true } : {}) } } }, { every: 3_000 });
  const workers = useGet("/api/v1/workers", { params: { query: { limit: 500 } } }, { every: 2_000 });
  const blocked = (deployments.data?.deployments ?? []).reduce((sum, one) => sum + openOf(one, "blocked"), 0);
  useEffect(() => setNavCount("/deployments", blocked, true), [blocked]);
  return (
    <Page
      title={view === "workers" ? "Workers" : "Deployments"}
      bare
      actions={
        <Segments
          label="Show"
          of={
            [
              ["deployments", "Deployments"],
              ["workers", `Workers ${workers.data === undefined ? "" : workers.data.workers.filter((one) => one.state === "online").length}`],
            ] as const
          }
          value={view}
          onChange={(next) => navigate(`/${next}`)}
        />
      }
    >
      <div class="deployments">
        {view === "deployments" && (
          <Loaded of={deployments}>
            {({ deployments: found }) =>
              found.length === 0 ? (
                <Empty title="No deployments yet" code="perdure work app.py --deployment 2026-11-29" docs="docs/deployments.md">
                  A deployment is a named version of your code. It appears here when its first worker registers. Open executions stay on the deployment that they were started for.
                </Empty>
              ) : (
                <List found={found} workers={workers.data?.workers ?? []} chosen={params.get("id")} />
              )
            }
          </Loaded>
        )}
        {view === "deployments" && deployments.data !== undefined && (
          <button type="button" class="link" onClick={() => change({ retired: retired ? null : "true" })}>
            {retired ? "Show those in use" : "Show retired deployments"}
          </button>
        )}
        <Loaded of={workers}>{({ workers: found }) => <Workers found={found} full={view === "workers"} deployment={params.get("deployment")} />}</Loaded>
      </div>
    </Page>
  );
}

function openOf(one: Deployment, phase: string): number {
  return (one.open as Record<string, number>)[phase] ?? 0;
}

/** What the end of a drain waits for. */
function Outlook({ id }: { id: string }) {
  const { data } = useGet("/api/v1/deployments/{deployment_id}/drain", { params: { path: { deployment_id: id } } }, { every: 5_000 });
  if (data === undefined || data.outlook === "") return null;
  return (
    <p class="dim small outlook">
      <Shown text={plainer(data.outlook)} />{" "}
      {data.last != null && (
        <Link href={`/executions/${data.last.execution_id}`} class="accent">
          Open that execution
        </Link>
      )}
    </p>
  );
}

function List({ found, workers, chosen }: { found: Deployment[]; workers: Schemas["WorkerResponse"][]; chosen: string | null }) {
  const [act, setAct] = useState<Act | null>(null);
  const pauses = useGet("/api/v1/pauses", {}, { every: 5_000 });
  const total = (one: Deployment) => PHASES.reduce((sum, phase) => sum + openOf(one, phase), 0);
  const most = Math.max(1, ...found.map(total));
  const pauseOf = (one: Deployment) => pauses.data?.pauses.find((pause) => pause.kind === "deployment" && pause.name === one.id);
  return (
    <>
      {found.map((one) => {
        const pause = pauseOf(one);
        return pause && <PausedNote key={one.id} pause={pause} onEnd={() => setAct({ kind: "pause", of: one })} />;
      })}
      <ul class="card list">
        {found.map((one) => {
          const open = total(one);
          const pythons = [...new Set(workers.filter((worker) => worker.deployment_id === one.id && worker.python != null).map((worker) => worker.python))];
          const hosts = [...new Set(workers.flatMap((worker) => (worker.deployment_id === one.id && worker.host != null ? [worker.host] : [])))];
          const state = one.status === "retired" ? "retired" : one.current ? "current" : open > 0 ? "draining" : "empty";
          return (
            <li key={one.id} class={one.id === chosen ? "on" : ""} aria-label={one.id}>
              <div>
                <b class="m">
                  <Shown text={one.id} />
                </b>{" "}
                <span class={state === "current" ? "tag acc" : "tag"}>{state}</span>
                <div class="dim3 small">
                  {state === "draining" && one.superseded_at != null ? "Drains since " : "Since "}
                  <Time at={state === "draining" && one.superseded_at != null ? one.superseded_at : one.created_at} />
                </div>
              </div>
              <div class={one.workers === 0 && open > 0 ? "bad small" : "dim small"}>
                {one.workers === 0 ? "No worker" : counted(one.workers, "worker")}
                {pythons.length > 0 && ` · Python ${pythons.join(", ")}`}
                {one.served_by === "push" && " · push"}
                {hosts.length > 0 && (
                  <div class="dim3 trunc" title={hosts.join(", ")}>
                    <Shown text={hosts.slice(0, 3).join(", ")} />
                    {hosts.length > 3 && ` and ${hosts.length - 3} more`}
                  </div>
                )}
              </div>
              <div>
                {open === 0 ? (
                  <span class="dim">Nothing open</span>
                ) : (
                  <>
                    <div class="stack" style={{ width: `${Math.max(2, (100 * open) / most)}%` }} aria-hidden="true">
                      {PHASES.filter((phase) => openOf(one, phase) > 0).map((phase) => (
                        <i key={phase} class={`p-${phase}`} style={{ flex: openOf(one, phase) }} />
                      ))}
                    </div>
                    <div class="row gap12 wrap">
                      {PHASES.filter((phase) => openOf(one, phase) > 0).map((phase) => (
                        <Link key={phase} href={`/executions?phase=${phase}&deployment_id=${encodeURIComponent(one.id)}`} class={`ph p-${phase} small`}>
                          <PhaseIcon phase={phase} />
                          <span class="num">
                            {count(openOf(one, phase))} {phase}
                          </span>
                        </Link>
                      ))}
                    </div>
                  </>
                )}
                {state === "draining" && <Outlook id={one.id} />}
              </div>
              <div class="row acts">
                {one.status === "active" && pauseOf(one) === undefined && (
                  <button type="button" class="btn sm ghost" aria-label={`Pause ${one.id}`} onClick={() => setAct({ kind: "pause", of: one })}>
                    <Pause size={13} aria-hidden="true" /> Pause
                  </button>
                )}
                {!one.current && (
                  <button type="button" class="btn sm" aria-label={`Use ${one.id}`} onClick={() => setAct({ kind: "use", of: one })}>
                    <Undo2 size={13} aria-hidden="true" /> Use
                  </button>
                )}
                {state === "empty" && (
                  <button type="button" class="btn sm" aria-label={`Retire ${one.id}`} onClick={() => setAct({ kind: "retire", of: one })}>
                    <Check size={13} aria-hidden="true" /> Retire
                  </button>
                )}
              </div>
              {one.status === "active" && <StatsOf id={one.id} />}
            </li>
          );
        })}
      </ul>
      {act?.kind === "pause" && <PauseDialog kind="deployment" name={act.of.id} pause={pauseOf(act.of)} onClose={() => setAct(null)} />}
      {act?.kind === "use" && <UseDialog id={act.of.id} onClose={() => setAct(null)} />}
      {act?.kind === "retire" && (
        <ActionDialog
          title={`Retire ${act.of.id}`}
          effects={["It has no open executions.", "It takes no new ones until a worker registers for it again."]}
          word="Retire"
          call={{ method: "POST", path: `/api/v1/deployments/${encodeURIComponent(act.of.id)}/retire` }}
          command={`perdure deployments retire ${quoted(act.of.id)}`}
          done={`Retired ${act.of.id}.`}
          refresh={["/api/v1/deployments"]}
          onClose={() => setAct(null)}
        />
      )}
    </>
  );
}
