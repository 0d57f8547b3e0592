import { Link } from "wouter-preact";
import { useState } from "preact/hooks";
import { Pause, Play } from "lucide-preact";
import { useListChanges } from "../../api/live";
import { useGet } from "../../api/query";
import { useCommands } from "../../keys";
import { duration } from "../../model/time";
import { count, counted, errorWords, plainer, share } from "../../model/words";
import { EndBars } from "../../parts/bars";
import { Segments, Split } from "../../parts/controls";
import { Page } from "../../parts/page";
import { PauseDialog, PausedNote } from "../../parts/pauses";
import { Phase } from "../../parts/phase";
import { Empty, Loaded } from "../../parts/state";
import { Key, Shown, Time } from "../../parts/text";
import { named, useQueryParams } from "../../url";
import { useDefinition, useWorkflows } from "./index";
import { RunForm } from "./run";
import { useWorkflowStats, type WorkflowNumbers } from "./stats";
import "./workflows.css";

const RANGES = ["1h", "6h", "24h", "7d", "30d"] as const;

/** One workflow: how its executions go, where their time goes, and what starts them. */
export default function Workflow({ params: { id } }: { params: Record<string, string> }) {
  const workflow = named(id);
  const [params, change] = useQueryParams();
  const range = params.get("range") ?? "24h";
  const deployment = params.get("deployment") ?? undefined;
  const known = useDefinition(workflow, deployment);
  const newest = { workflow_id: workflow, ...(deployment === undefined ? {} : { deployment_id: deployment }) };
  const recent = useGet("/api/v1/executions/summaries", { params: { query: { ...newest, limit: 15 } } });
  useListChanges(new URLSearchParams({ ...newest, limit: "15" }).toString(), "/api/v1/executions/summaries");
  const pauses = useGet("/api/v1/pauses", {}, { every: 15_000 });
  const stats = useWorkflowStats(workflow, range);
  const listed = useWorkflows().data?.find((one) => one.id === workflow);
  const [pausing, setPausing] = useState(false);
  const pause = pauses.data?.pauses.find((one) => one.kind === "workflow" && one.name === workflow);
  const start = () => change({ run: "1" });
  useCommands([{ title: pause === undefined ? "Pause this workflow" : "End the pause of this workflow", run: () => setPausing(true) }]);
  const source = known.data?.source;
  const description = known.data?.description;
  return (
    <Page
      title={workflow}
      bare
      actions={
        <>
          {stats !== undefined && <Segments label="Range" of={RANGES.map((one) => [one, one.replace(/(\d+)/, "$1 ")] as const)} value={range as (typeof RANGES)[number]} onChange={(value) => change({ range: value })} />}
          {pause === undefined && (
            <button type="button" class="btn" onClick={() => setPausing(true)}>
              <Pause size={13} aria-hidden="true" /> Pause
            </button>
          )}
          <button type="button" class="btn pri" onClick={start}>
            <Play size={13} aria-hidden="true" /> Start <Key keys="n" />
          </button>
        </>
      }
    >
      <Split
        label={`Start ${workflow}`}
        aside={params.get("run") === null ? null : <RunForm workflow={workflow} deployment={deployment} from={params.get("from")} onClose={() => change({ run: null, from: null })} />}
      >
        <Loaded of={known}>
          {(definition) => (
            <div class="page">
              {pause !== undefined && <PausedNote pause={pause} onEnd={() => setPausing(true)} />}
              {description != null && (
                <p class="lead">
                  <Shown text={description} />
                </p>
              )}
              <dl class="row wrap gap16 facts">
                {source != null && (
                  <Fact name="Source">
                    <Shown text={`${source.file}:${source.line}`} mono />
                  </Fact>
                )}
                {definition === null ? (
                  <Fact name="Agent">
                    <Link href={`/agents/${encodeURIComponent(workflow)}`}>
                      <Shown text={workflow} />
                    </Link>
                  </Fact>
                ) : (
                  <>
                    <Fact name="Queue">
                      <Link href={`/queues?queue=${encodeURIComponent(definition.queue_name)}`}>
                        <Shown text={definition.queue_name} />
                      </Link>
                    </Fact>
                    <Fact name="Deployments">
                      {(listed?.deployments ?? [definition.deployment_id]).slice(0, 4).map((one) => (
                        <Link key={one} href={`/deployments?id=${encodeURIComponent(one)}`} class="tag">
                          <Shown text={one} />
                        </Link>
                      ))}
                      {(listed?.deployments.length ?? 0) > 4 && <span class="dim3">and {listed!.deployments.length - 4} more</span>}
                    </Fact>
                  </>
                )}
                {listed !== undefined && listed.causes.length > 0 && (
                  <Fact name="Starts by itself">
                    <Shown text={listed.causes.join(" · ")} />
                  </Fact>
                )}
              </dl>
              {stats !== undefined && <Numbers stats={stats} workflow={workflow} />}
              <section>
                <div class="row">
                  <h2>Newest executions</h2>
                  <span class="grow" />
                  <Link href={`/executions?workflow_id=${encodeURIComponent(workflow)}`} class="dim">
                    All of them
                  </Link>
                </div>
                <Loaded of={recent}>
                  {({ executions }) =>
                    executions.length === 0 ? (
                      <Empty title="Not started yet" code={`perdure run ${workflow} --input '{}'`}>
                        Start it with the key n, from a terminal, or from a program.
                      </Empty>
                    ) : (
                      <table>
                        <thead>
                          <tr>
                            <th>Phase</th>
                            <th>Key</th>
                            <th>Details</th>
                            <th class="r">Took</th>
                            <th class="r">Created</th>
                            <th />
                          </tr>
                        </thead>
                        <tbody>
                          {executions.map((one) => (
                            <tr key={one.id}>
                              <td>
                                <Phase phase={one.phase} />
                              </td>
                              <td>
                                <Link href={`/executions/${one.id}`}>
                                  <Shown text={one.key ?? `…${one.id.slice(-8)}`} mono />
                                </Link>
                              </td>
                              <td class="fit dim">{one.details != null && <Shown text={one.phase === "failed" ? errorWords(one.details) : plainer(one.details)} />}</td>
                              <td class="r num dim">{one.took_ms == null ? "" : duration(one.took_ms)}</td>
                              <td class="r">
                                <Time at={one.created_at} />
                              </td>
                              <td class="r">
                                <button type="button" class="btn sm ghost" aria-label={`Start with the input of ${one.key ?? one.id}`} onClick={() => change({ run: "1", from: one.id })}>
                                  Start again…
                                </button>
                              </td>
                            </tr>
                          ))}
                        </tbody>
                      </table>
                    )
                  }
                </Loaded>
              </section>
            </div>
          )}
        </Loaded>
      </Split>
      {pausing && <PauseDialog kind="workflow" name={workflow} pause={pause} onClose={() => setPausing(false)} />}
    </Page>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div class="row gap6">
      <dt class="dim3">{name}</dt>
      <dd class="row gap4">{children}</dd>
    </div>
  );
}

function Numbers({ stats, workflow }: { stats: WorkflowNumbers; workflow: string }) {
  const ended = stats.completed + stats.failed + stats.cancelled;
  const open = Object.entries(stats.open).filter(([, n]) => n > 0);
  const steps = stats.steps.values ?? [];
  const slowest = Math.max(1, ...steps.map((one) => one.p50_ms));
  return (
    <>
      <section class="col gap12">
        <dl class="figures">
          <div>
            <dt>Ended</dt>
            <dd>{count(ended)}</dd>
          </div>
          <div>
            <dt>Failed</dt>
            <dd class={ended > 0 && stats.failed / ended >= 0.02 ? "bad" : ""}>
              {share(stats.failed, ended)} <small>{count(stats.failed)}</small>
            </dd>
          </div>
          <div>
            <dt>Median</dt>
            <dd>{stats.p50_ms == null ? "–" : duration(stats.p50_ms)}</dd>
          </div>
          <div>
            <dt>p95</dt>
            <dd>{stats.p95_ms == null ? "–" : duration(stats.p95_ms)}</dd>
          </div>
          <div>
            <dt>Open</dt>
            <dd>
              {count(open.reduce((sum, [, n]) => sum + n, 0))} <small>{open.map(([phase, n]) => `${count(n)} ${phase}`).join(", ")}</small>
            </dd>
          </div>
        </dl>
        <EndBars buckets={stats.buckets} />
      </section>
      <div class="cols">
        {steps.length > 0 && (
          <section>
            <div class="row">
              <h2>Time by step</h2>
              <span class="dim3">of the newest {counted(stats.steps.sampled ?? 0, "execution")}</span>
            </div>
            <table>
              <thead>
                <tr>
                  <th>Step</th>
                  <th />
                  <th class="r">Median</th>
                  <th class="r">p95</th>
                </tr>
              </thead>
              <tbody>
                {steps.map((one) => (
                  <tr key={one.name}>
                    <td>
                      <Shown text={one.name} mono />
                    </td>
                    <td class="wide">
                      <div class="hbar" style={{ width: `${(100 * one.p50_ms) / slowest}%` }} />
                    </td>
                    <td class="r num">{duration(one.p50_ms)}</td>
                    <td class="r num dim">{duration(one.p95_ms)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
        )}
        {stats.errors.length > 0 && (
          <section>
            <div class="row">
              <h2>Errors</h2>
            </div>
            <table>
              <tbody>
                {stats.errors.map((one) => (
                  <tr key={`${one.class} ${one.place} ${one.message}`}>
                    <td class="r num bad">{count(one.count)}</td>
                    <td class="fit">
                      <Link href={`/executions?${new URLSearchParams({ phase: "failed", workflow_id: workflow, ...(one.filter?.error === undefined ? {} : { error: one.filter.error }) })}`}>
                        <Shown text={`${one.class == null ? "" : `${one.class}: `}${one.message}`} />
                      </Link>
                    </td>
                    <td class="dim3">{one.place != null && <Shown text={one.place} mono />}</td>
                    <td class="r">
                      <Time at={one.last_at} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
        )}
      </div>
    </>
  );
}
