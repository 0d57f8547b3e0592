import { useRef, useState } from "preact/hooks";
import { Link, Redirect, useLocation } from "wouter-preact";
import { CalendarClock, EyeOff, Play, Unplug, Webhook } from "lucide-preact";
import { now, type Schemas } from "../../api/client";
import { useQueryClient } from "@tanstack/preact-query";
import { useLive } from "../../api/live";
import { useGet } from "../../api/query";
import { useCommands } from "../../keys";
import { dismiss, heat, headline, identity, keepShown } from "../../model/overview";
import { duration, RANGES, RANGE_WORDS, type Range } from "../../model/time";
import { count, counted, errorWords, share, visible } from "../../model/words";
import { Segments } from "../../parts/controls";
import { Page } from "../../parts/page";
import { Phase, PhaseIcon } from "../../parts/phase";
import { Loaded } from "../../parts/state";
import { Key, Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";
import { BulkDialog } from "../executions/bulk";
import { EndedChart } from "./chart";
import { SinceDeploy } from "./since";
import "./overview.css";

type Overview = Schemas["Overview"];
type Attention = Schemas["Attention"];

const REFRESH_MS = 3_000; // after a change that the feed tells of; an idle page asks once a minute
export default function OverviewPage() {
  const [params, change] = useQueryParams();
  const [, navigate] = useLocation();
  const range = RANGES.find((one) => one === params.get("range")) ?? "24h";
  const overview = useGet("/api/v1/overview", { params: { query: { range } } }, { every: 60_000 });
  const client = useQueryClient();
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  const heard = useRef(false);
  useLive("counts", ({ event, data }) => {
    if (event !== "counts") return;
    const { queued = 0, ...phases } = data.phases;
    const open: Record<string, number> = { ...phases, queued: queued - data.paused, paused: data.paused };
    let isNews = heard.current; // the first tells what the page has just asked for, unless something changed in between
    heard.current = true;
    client.setQueriesData<Overview>({ queryKey: ["/api/v1/overview"] }, (known) => {
      isNews ||= known !== undefined && Object.entries(open).some(([phase, n]) => (known.open[phase as keyof Overview["open"]] ?? 0) !== n);
      return known && { ...known, open: { ...known.open, ...open } };
    });
    if (!isNews) return;
    timer.current ??= setTimeout(() => {
      timer.current = null;
      void client.invalidateQueries({ queryKey: ["/api/v1/overview"] });
    }, REFRESH_MS);
  });
  const start = () => navigate("/workflows?run=1");
  useCommands([{ title: "Start an execution", key: "n", run: start }]);
  return (
    <Page
      title="Overview"
      actions={
        <>
          <Segments label="Range" of={RANGES.map((one) => [one, one.replace(/(\d+)/, "$1 ")] as const)} value={range} onChange={(one) => change({ range: one === "24h" ? null : one })} />
          <button type="button" class="btn pri" onClick={start}>
            <Play size={14} aria-hidden="true" />
            Start a run <Key keys="n" />
          </button>
        </>
      }
    >
      <Loaded of={overview} rows={10}>
        {(data) => (data.workflows.length === 0 && Object.values(data.open).every((n) => n === 0) && data.attention.length === 0 ? <Redirect to="/welcome" replace /> : <Shows data={data} range={range} />)}
      </Loaded>
    </Page>
  );
}

function Shows({ data, range }: { data: Overview; range: Range }) {
  const [, redraw] = useState(0);
  const items = data.attention.filter(keepShown);
  const ended = data.ended_total.completed + data.ended_total.failed + data.ended_total.cancelled;
  return (
    <div class="overview">
      <div>
        <p class="headline" role="status">
          {headline(items.length)}
        </p>
        <p class="dim sub">
          {ended === 0 ? (
            `Nothing ended in ${RANGE_WORDS[range]}.`
          ) : (
            <>
              {count(ended)} ended in {RANGE_WORDS[range]}, <b>{share(data.ended_total.completed, ended)}</b> of them completed.
            </>
          )}{" "}
          {counted(data.workers.online, "worker is", "workers are")} online
          {data.workers.lapsed > 0 && `, ${count(data.workers.lapsed)} lost`}.
          {data.counted_from != null && (
            <>
              {" "}
              Ends before <Time at={data.counted_from} /> are still being counted.
            </>
          )}
        </p>
      </div>
      {data.since_deploy != null && <SinceDeploy of={data.since_deploy} named />}
      {items.length > 0 && (
        <ul class="card attention" aria-label="Needs attention">
          {items.map((item) => (
            <Item
              key={identity(item)}
              item={item}
              onDismiss={() => {
                dismiss(item);
                redraw((n) => n + 1);
              }}
            />
          ))}
        </ul>
      )}
      <div class="cols">
        <section aria-label="Ended">
          <EndedChart data={data} />
        </section>
        <OpenNow data={data} />
      </div>
      <div class="cols">
        <Workflows data={data} range={range} />
        <Upcoming />
      </div>
    </div>
  );
}

const SHAPE: Record<Attention["kind"], string> = {
  failures: "failed",
  blocked: "blocked",
  held: "held",
  paused: "held",
  questions: "waiting",
  no_worker: "queued",
  webhook: "failed",
  skipped: "waiting",
};

function ItemIcon({ kind }: { kind: Attention["kind"] }) {
  if (kind === "webhook") return <Webhook size={16} aria-hidden="true" />;
  if (kind === "skipped") return <CalendarClock size={16} aria-hidden="true" />;
  if (kind === "no_worker") return <Unplug size={16} aria-hidden="true" />;
  return <PhaseIcon phase={SHAPE[kind]} />;
}

const PLACES: Partial<Record<Attention["kind"], { word: string; path: string }>> = {
  questions: { word: "Open inbox", path: "/inbox" },
  paused: { word: "Open queues", path: "/queues" },
  no_worker: { word: "Open deployments", path: "/deployments" },
  blocked: { word: "Open deployments", path: "/deployments" },
  webhook: { word: "Open webhooks", path: "/settings/webhooks" },
  skipped: { word: "Open schedules", path: "/schedules" },
};

function Item({ item, onDismiss }: { item: Attention; onDismiss: () => void }) {
  const [retrying, setRetrying] = useState(false);
  const place = PLACES[item.kind];
  const expiry = item.details.nearest_expiry_at;
  const [head, ...rest] = item.sentence.replace(/\.$/, "").split(": ");
  return (
    <li class="row gap12">
      <span class={`shape p-${SHAPE[item.kind]}`}>
        <ItemIcon kind={item.kind} />
      </span>
      <div class="grow">
        <p class="m trunc" title={visible(item.sentence)}>
          <Shown text={head!} />
        </p>
        <p class="dim trunc evidence">
          {rest.length > 0 && (
            <code>
              <Shown text={item.kind === "failures" ? errorWords(rest.join(": ")) : rest.join(": ")} />
            </code>
          )}
          {rest.length > 0 && item.since != null && " · "}
          {item.since != null && (
            <>
              {item.kind === "questions" ? "the oldest" : "first"} <Time at={item.since} />
            </>
          )}
          {item.until != null && item.until !== item.since && (
            <>
              , last <Time at={item.until} />
            </>
          )}
          {expiry != null && (
            <>
              {" "}
              · the next expires <Time at={expiry} />
            </>
          )}
          {item.details.deployment_id != null && (
            <>
              {" "}
              · deployment <Shown text={item.details.deployment_id} />
            </>
          )}
        </p>
      </div>
      {item.filter != null && (
        <Link href={`/executions?${new URLSearchParams(item.filter)}`} class="btn sm">
          Show {counted(item.count, "execution")}
        </Link>
      )}
      {place !== undefined && (
        <Link href={place.path} class="btn sm">
          {place.word}
        </Link>
      )}
      {item.kind === "failures" && item.filter != null && (
        <button type="button" class="btn sm pri" onClick={() => setRetrying(true)}>
          Retry {count(item.count)}
        </button>
      )}
      <button type="button" class="btn sm ghost icon" title="Hide until it grows by half" aria-label={`Hide until it grows by half: ${visible(item.sentence)}`} onClick={onDismiss}>
        <EyeOff size={14} aria-hidden="true" />
      </button>
      {retrying && <BulkDialog act="retry" chosen={{ filters: item.filter! }} onClose={() => setRetrying(false)} onDone={() => {}} />}
    </li>
  );
}

function OpenNow({ data }: { data: Overview }) {
  const { open } = data;
  const at = now();
  const rows = [
    { phase: "running", n: open.running, hint: `${counted(data.workers.online, "worker")}`, to: "/executions?phase=running" },
    { phase: "queued", n: open.queued, hint: data.queued_oldest_at == null ? "" : `oldest ${duration(at - Date.parse(data.queued_oldest_at))}`, to: "/executions?phase=queued" },
    { phase: "waiting", n: open.waiting, hint: data.people.waiting > 0 ? `${count(data.people.waiting)} for an answer` : "", to: "/executions?phase=waiting" },
    { phase: "held", n: open.held, hint: open.held > 0 ? "failed, for an act" : "", to: "/executions?phase=held" },
    { phase: "paused", n: open.paused, hint: open.paused > 0 ? "queued behind a pause" : "", to: "/queues" },
    { phase: "blocked", n: open.blocked, hint: "", to: "/executions?phase=blocked" },
    { phase: "cancelling", n: open.cancelling, hint: "", to: "/executions?phase=cancelling" },
  ];
  const total = rows.reduce((sum, row) => sum + row.n, 0);
  return (
    <section aria-label="Open now">
      <div class="row head">
        <h2 class="grow">Open now</h2>
        <b class="num m">{count(total)}</b>
      </div>
      <div class="stack" aria-hidden="true">
        {rows.map((row) => row.n > 0 && <i key={row.phase} class={`p-${row.phase === "paused" ? "held" : row.phase}`} style={{ flex: row.n }} />)}
      </div>
      {rows.map((row) => (
        <Link key={row.phase} href={row.to} class="row line">
          {row.phase === "paused" ? (
            <span class="ph p-held">
              <PhaseIcon phase="held" />
              Paused
            </span>
          ) : (
            <Phase phase={row.phase} />
          )}
          <span class="grow dim3 trunc hint">{row.hint}</span>
          <b class="num m">{count(row.n)}</b>
        </Link>
      ))}
    </section>
  );
}

const SHOWN_WORKFLOWS = 6;

function Workflows({ data, range }: { data: Overview; range: Range }) {
  return (
    <section aria-label="Workflows and agents">
      <table class="strips">
        <thead>
          <tr>
            <th>Workflows and agents</th>
            <th class="wide">{RANGE_WORDS[range].replace("the last", "Last")}</th>
            <th class="r">Ended</th>
            <th class="r">Failed</th>
            <th class="r">p95</th>
            <th class="r">Open</th>
          </tr>
        </thead>
        <tbody>
          {data.workflows.slice(0, SHOWN_WORKFLOWS).map((one) => (
            <tr key={one.workflow_id}>
              <td class="trunc">
                <Link href={`/workflows/${encodeURIComponent(one.workflow_id)}`} class="m">
                  <Shown text={one.workflow_id} />
                </Link>
              </td>
              <td>
                <Strip one={one} />
              </td>
              <td class="r num">{count(one.ended)}</td>
              <td class={`r num ${one.failed / Math.max(1, one.ended) >= 0.08 ? "bad" : one.failed / Math.max(1, one.ended) >= 0.02 ? "warn" : "dim"}`}>{share(one.failed, one.ended)}</td>
              <td class="r num dim">{one.p95_ms == null ? "" : duration(one.p95_ms)}</td>
              <td class="r num dim">{count(one.open)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {data.workflows.length > SHOWN_WORKFLOWS && (
        <p>
          <Link href="/workflows" class="dim3">
            {count(data.workflows.length - SHOWN_WORKFLOWS)} more
          </Link>
        </p>
      )}
    </section>
  );
}

/** Height: how many ended. Colour: the share that failed. */
function Strip({ one }: { one: Schemas["WorkflowStats"] }) {
  const cells = heat(one.ended_by_bucket ?? [], one.failed_by_bucket ?? []);
  return (
    <svg class="strip" viewBox={`0 0 ${Math.max(1, cells.length)} 16`} preserveAspectRatio="none" role="img" aria-label={`${count(one.ended)} ended, ${count(one.failed)} failed`}>
      {cells.map((cell, at) => cell !== null && <rect key={at} class={`p-${cell.phase}`} x={at + 0.08} width="0.84" y={16 - cell.height * 16} height={cell.height * 16} fill="var(--pb)" opacity={cell.phase === "completed" ? 0.65 : 1} />)}
    </svg>
  );
}

function Upcoming() {
  const schedules = useGet("/api/v1/schedules", { params: { query: { limit: 500 } } }, { every: 60_000 });
  const next = (schedules.data?.schedules ?? [])
    .filter((one) => one.status === "active" && one.next_run_at != null)
    .sort((a, b) => Date.parse(a.next_run_at!) - Date.parse(b.next_run_at!))
    .slice(0, 5);
  return (
    <section aria-label="Upcoming schedules">
      <h3 class="head">Upcoming schedules</h3>
      {next.map((one) => (
        <Link key={one.id} href={`/schedules?id=${one.id}`} class="row line">
          <span class="grow trunc">
            <Shown text={one.workflow_id} />
          </span>
          <span class="dim3">
            <Time at={one.next_run_at!} />
          </span>
        </Link>
      ))}
      {schedules.data !== undefined && next.length === 0 && <p class="dim3">No schedule is active.</p>}
    </section>
  );
}
