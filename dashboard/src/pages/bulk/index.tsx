import { useEffect, useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { useGet, useRefresh } from "../../api/query";
import { useCommands } from "../../keys";
import { VERB, type Act } from "../../model/bulk";
import type { Call } from "../../model/calls";
import { chips, type Filters } from "../../model/filters";
import { now } from "../../api/client";
import { count, counted, shortId } from "../../model/words";
import { duration, secondsLeft } from "../../model/time";
import { ActionDialog } from "../../parts/action";
import { Page } from "../../parts/page";
import { Empty, Loaded } from "../../parts/state";
import { Id, Key, Shown, Time } from "../../parts/text";
import { useTick } from "../../parts/tick";
import { useQueryParams } from "../../url";
import { useMay } from "../../session";
import { decide, startOf, type Job } from "./held";
import "./bulk.css";

const STATE = { running: "running", stopped: "held", completed: "completed" } as const;

function verb(job: Job): string {
  return VERB[job.action as Act] ?? "Act on";
}

/** A job in a sentence: "Retry 412 executions". */
function title(job: Job): string {
  return `${verb(job)} ${job.at_least ? "at least " : ""}${counted(job.total, "execution")}`;
}

function asFilters(job: Job): Filters {
  const given = (job.filters ?? {}) as Record<string, unknown>;
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, Array.isArray(value) ? value.join(",") : String(value)]));
}

function Progress({ job }: { job: Job }) {
  const share = (n: number) => `${(100 * n) / Math.max(1, job.total)}%`;
  return (
    <div class="meter" role="progressbar" aria-label={title(job)} aria-valuemin={0} aria-valuemax={job.total} aria-valuenow={job.done + job.refused}>
      <i class="p-completed" style={{ width: share(job.done) }} />
      <i class="p-failed" style={{ width: share(job.refused) }} />
      <i class="p-waiting" style={{ width: share(job.later) }} />
    </div>
  );
}

function numbers(job: Job): string {
  const start = startOf(job);
  if (start !== null) return `starts in ${secondsLeft(start, now())}`;
  return [
    `${count(job.done)} of ${count(job.total)} done`,
    ...(job.refused > 0 ? [`${count(job.refused)} refused`] : []),
    ...(job.later > 0 ? [`${count(job.later)} to try again`] : []),
    ...(job.left > 0 && job.state !== "completed" ? [`${count(job.left)} left`] : []),
    ...(job.state === "running" && job.per_second != null && job.per_second > 0 ? [`${count(Math.round(job.per_second))} a second, ${duration((1_000 * job.left) / job.per_second)} to go`] : []),
  ].join(" · ");
}

/** The list of jobs, newest first. */
export function BulkJobs() {
  const jobs = useGet("/api/v1/bulk", { params: { query: { limit: 100 } } }, { every: 2_000 });
  useTick(1_000);
  return (
    <Page title="Bulk jobs" bare>
      <Loaded of={jobs}>
        {(page) =>
          page.jobs.length === 0 ? (
            <Empty title="No bulk jobs yet" code={"perdure bulk retry --status failed --dry-run"} docs="docs/hands-on-runs.md">
              Select executions in the list, then all that match: the action on them becomes a job, with its progress here.
            </Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>State</th>
                  <th>Job</th>
                  <th>Progress</th>
                  <th>Note</th>
                  <th>By</th>
                  <th class="r">Created</th>
                </tr>
              </thead>
              <tbody>
                {page.jobs.map((job) => (
                  <tr key={job.id}>
                    <td class={`p-${startOf(job) === null ? STATE[job.state] : "held"} m`}>{startOf(job) === null ? job.state : "held"}</td>
                    <td>
                      <Link href={`/bulk/${job.id}`} class="m">
                        {title(job)}
                      </Link>
                    </td>
                    <td>{numbers(job)}</td>
                    <td class="trunc">
                      <Shown text={job.note ?? ""} />
                    </td>
                    <td>
                      <Shown text={job.started_by} />
                    </td>
                    <td class="r">
                      <Time at={job.created_at} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
    </Page>
  );
}

/** One job: its progress, and the executions that it refused. */
export default function BulkPage({ params }: { params: Record<string, string> }) {
  const [state, setState] = useState<string | null>("running");
  const job = useGet("/api/v1/bulk/{job_id}", { params: { path: { job_id: params["id"]! } } }, { every: state === "running" ? 1_000 : undefined });
  useEffect(() => setState(job.data?.state ?? null), [job.data]);
  return (
    <Page title={job.data === undefined ? "Bulk job" : title(job.data)} bare={false} actions={<Link href="/bulk" class="btn sm ghost">All jobs</Link>}>
      <Loaded of={job}>{(found) => <Shows job={found} />}</Loaded>
    </Page>
  );
}

function Shows({ job }: { job: Job }) {
  const [acting, setActing] = useState<"stop" | "continue" | null>(null);
  const [, navigate] = useLocation();
  const may = useMay("admin");
  const refresh = useRefresh();
  const query = new URLSearchParams(asFilters(job)).toString();
  useTick(1_000);
  const start = startOf(job);
  const at = (word: "stop" | "continue") => void decide(job, word, () => navigate(`/bulk/${job.id}`)).then(() => refresh("/api/v1/bulk"));
  useCommands([
    ...(start !== null && may
      ? [
          { title: "Undo the job", key: "mod+z", run: () => at("stop") },
          { title: "Start the job now", key: "r", run: () => at("continue") },
        ]
      : []),
    ...(start === null && job.state === "running" ? [{ title: "Stop the job", key: "c", run: () => setActing("stop") }] : []),
    ...(job.state === "stopped" ? [{ title: "Continue the job", key: "r", run: () => setActing("continue") }] : []),
    { title: "Show the executions that the job's filters find now", run: () => navigate(`/executions?${query}`) },
  ]);
  const call = (word: "stop" | "continue"): Call => ({ method: "POST", path: `/api/v1/bulk/${job.id}/${word}` });
  return (
    <div class="bulkjob col gap16">
      <p class="sentence" role="status">
        {start !== null && "The job is held: until it starts, no execution changes. "}
        {start === null && job.state === "running" && "The job is running. "}
        {job.state === "stopped" && "The job is stopped: it takes no execution until it is continued. "}
        {job.state === "completed" && `The job has ended${job.ended_at != null ? ` after ${duration(Date.parse(job.ended_at) - Date.parse(job.created_at))}` : ""}. `}
        {start === null ? numbers(job) : <span class="num">It {numbers(job)}</span>}.
      </p>
      <Progress job={job} />
      <div class="row">
        {start !== null && (
          <>
            <button type="button" class="btn" disabled={!may} onClick={() => at("stop")}>
              Undo <Key keys="mod+z" />
            </button>
            <button type="button" class="btn" disabled={!may} onClick={() => at("continue")}>
              Start now <Key keys="r" />
            </button>
          </>
        )}
        {start === null && job.state === "running" && (
          <button type="button" class="btn" disabled={!may} onClick={() => setActing("stop")}>
            Stop <Key keys="c" />
          </button>
        )}
        {job.state === "stopped" && (
          <button type="button" class="btn pri" disabled={!may} onClick={() => setActing("continue")}>
            Continue <Key keys="r" />
          </button>
        )}
        <Link href={`/executions?${query}`} class="btn">
          Show what the filters find now
        </Link>
      </div>
      <dl class="dl tight">
        <dt>Filters</dt>
        <dd class="row gap4 wrap">
          {chips(asFilters(job), now()).map((chip) => (
            <span class="chip" key={chip.name}>
              {chip.says}{" "}
              <b>
                <Shown text={chip.shows} />
              </b>
            </span>
          ))}
        </dd>
        {Object.keys((job.options ?? {}) as object).length > 0 && (
          <>
            <dt>Options</dt>
            <dd>
              <Shown text={JSON.stringify(job.options)} mono />
            </dd>
          </>
        )}
        <dt>Note</dt>
        <dd>{job.note == null ? "none" : <Shown text={job.note} />}</dd>
        <dt>Started by</dt>
        <dd>
          <Shown text={job.started_by} />, <Time at={job.created_at} />
        </dd>
        <dt>Id</dt>
        <dd>
          <Id id={job.id} />
        </dd>
      </dl>
      {start === null && <Items job={job} />}
      {acting !== null && (
        <ActionDialog
          title={acting === "stop" ? "Stop this job" : "Continue this job"}
          word={acting === "stop" ? "Stop" : "Continue"}
          effects={
            acting === "stop"
              ? [`${counted(job.left, "execution")} stay as they are until the job is continued.`, "What is done stays done."]
              : [`The job goes on with ${counted(job.left, "execution")}.`]
          }
          role="admin"
          call={call(acting)}
          command={`perdure bulk ${acting} ${job.id}`}
          python={`await client.bulk.${acting === "stop" ? "stop" : "continue_job"}("${job.id}")`}
          refresh={["/api/v1/bulk"]}
          onClose={() => setActing(null)}
          done={acting === "stop" ? "The job is stopped." : "The job goes on."}
        />
      )}
    </div>
  );
}

const STATES = ["refused", "later", "done"] as const;

function Items({ job }: { job: Job }) {
  const [params, change] = useQueryParams();
  const given = params.get("items");
  const shown = STATES.find((one) => one === given) ?? (job.refused > 0 ? "refused" : "done");
  const items = useGet(
    "/api/v1/bulk/{job_id}/items",
    { params: { path: { job_id: job.id }, query: { state: shown, limit: 200 } } },
  );
  useEffect(() => void items.refetch(), [job.done, job.refused, job.later]);
  const n = { refused: job.refused, later: job.later, done: job.done };
  return (
    <section>
      <div class="seg" role="group" aria-label="Which executions">
        {STATES.map((one) => (
          <button type="button" key={one} class={one === shown ? "on" : undefined} aria-pressed={one === shown} onClick={() => change({ items: one })}>
            {{ refused: "Refused", later: "To try again", done: "Done" }[one]} <span class="num dim3">{count(n[one])}</span>
          </button>
        ))}
      </div>
      <Loaded of={items} rows={3}>
        {(page) =>
          page.items.length === 0 ? (
            <p class="dim">None.</p>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Execution</th>
                  <th>{shown === "done" ? "New execution" : "Reason"}</th>
                  <th class="r">At</th>
                </tr>
              </thead>
              <tbody>
                {page.items.map((item) => (
                  <tr key={item.execution_id}>
                    <td>
                      <Link href={`/executions/${item.execution_id}`}>
                        <code>{shortId(item.execution_id)}</code>
                      </Link>
                    </td>
                    <td style={{ whiteSpace: "normal" }}>
                      {item.made_id != null && (
                        <Link href={`/executions/${item.made_id}`}>
                          <code>{shortId(item.made_id)}</code>
                        </Link>
                      )}
                      {item.reason != null && <Shown text={item.reason} />}
                    </td>
                    <td class="r">
                      <Time at={item.at} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
    </section>
  );
}
