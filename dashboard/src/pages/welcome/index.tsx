import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Check, Flame, Play, Skull } from "lucide-preact";
import { now, send, type Schemas } from "../../api/client";
import { useGet, useRefresh } from "../../api/query";
import { quoted } from "../../model/calls";
import { rowsOf, type Span } from "../../model/spans";
import { duration } from "../../model/time";
import { count, counted } from "../../model/words";
import { Segments, Switch } from "../../parts/controls";
import { killWorker } from "../../parts/dev";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { Spans } from "../../parts/spans";
import { CopyButton, Key, Shown } from "../../parts/text";
import { toast } from "../../parts/toast";
import { useIdentity, useMay } from "../../session";
import { CODE } from "./code";
import "./welcome.css";

type Language = keyof typeof CODE;

/** Five steps that check themselves. A project without executions begins here. */
export default function Welcome() {
  const identity = useIdentity();
  const dev = identity.features?.includes("dev") === true;
  const [language, setLanguage] = useState<Language>("workflow");
  const workers = useGet("/api/v1/workers", { params: { query: { limit: 20 } } }, { every: 1_500 });
  const workflows = useGet("/api/v1/workflows", { params: { query: { limit: 20 } } }, { every: 3_000 });
  const newest = useGet("/api/v1/executions/summaries", { params: { query: { limit: 1 } } }, { every: 1_000 });
  const status = useGet("/api/v1/dev", {}, { every: 1_000, enabled: dev });
  const execution = newest.data?.executions[0];
  const timeline = useGet("/api/v1/executions/{execution_id}/timeline", { params: { path: { execution_id: execution?.id ?? "" } } }, { every: 1_000, enabled: execution !== undefined });
  const online = (workers.data?.workers ?? []).some((one) => one.state === "online");
  const served = [...new Set((workflows.data ?? []).map((one) => one.workflow_id))];
  const { word: _, run, start, text } = CODE[language];
  const lost = (timeline.data?.proof?.lost ?? 0) > 0 || status.data?.last_kill != null;
  const done = [true, online, execution !== undefined, lost, false];
  const at = done.indexOf(false);
  const step = (index: number) => ({ n: index + 1, done: done[index]!, on: index === at });
  const first = served.includes(start[0]) ? start[0] : served[0];

  return (
    <Page
      title="Welcome"
      actions={
        <Link href={first === undefined ? "/workflows?run=1" : `/workflows/${encodeURIComponent(first)}?run=1`} class="btn">
          <Play size={13} aria-hidden="true" /> Start an execution <Key keys="n" />
        </Link>
      }
    >
      <div class="welcome">
        <div>
          <h2 class="hero">Code that goes on after a crash</h2>
          <p class="dim lead1">Five steps, five minutes. Each one checks itself.</p>
          <ol class="steps">
            <Step {...step(0)} title="The server runs">
              Perdure {identity.version} at {location.host}, data in {identity.store === "sqlite" ? "SQLite" : "PostgreSQL"}.
            </Step>
            <Step {...step(1)} title="A worker runs your code">
              {online && served.length > 0 ? (
                <>
                  It serves{" "}
                  {served.slice(0, 4).map((one, index) => (
                    <span key={one}>
                      {index > 0 && ", "}
                      <b class="m">
                        <Shown text={one} />
                      </b>
                    </span>
                  ))}
                  {served.length > 4 && ` and ${served.length - 4} more`}
                  {dev && ", and reloads when you save"}.
                </>
              ) : (
                <>
                  Save the program as <code>app.py</code> and run <Copied text={dev || language === "fastapi" ? run : "perdure work app.py"} />
                </>
              )}
            </Step>
            <Step {...step(2)} title="You start an execution">
              <Copied text={language === "fastapi" ? "curl -X POST http://127.0.0.1:8000/orders/7" : `perdure run ${first ?? start[0]}${first === undefined || first === start[0] ? ` --input ${quoted(JSON.stringify(start[1]))}` : ""}`} />, or the key <Key keys="n" />
            </Step>
            <Step {...step(3)} title={lost ? "You killed the worker" : "Kill the worker"}>
              {lost ? (
                <Survived status={status.data} timeline={timeline.data} />
              ) : (
                <>
                  End the process in the middle of an execution. Another worker goes on at the next line. A recorded step does not run again.
                  {!dev && (
                    <>
                      {" "}
                      <Copied text='pkill -KILL -f "perdure work"' />
                    </>
                  )}
                </>
              )}
              {dev && (
                <div class="row kill">
                  <button type="button" class="btn dangerfill" onClick={() => void killWorker()}>
                    <Skull size={14} aria-hidden="true" /> Kill the worker <Key keys="shift+k" />
                  </button>
                  <span class="dim3">SIGKILL: no clean-up, as in a power cut</span>
                </div>
              )}
            </Step>
            <Step {...step(4)} title="Go on">
              <span class="row wrap gap6">
                {NEXT.map(([word, docs]) => (
                  <span class="chip" key={word} title={docs}>
                    {word}
                    <code class="dim3">{docs}</code>
                  </span>
                ))}
              </span>
            </Step>
          </ol>
        </div>
        <div class="col gap16">
          <div class="card">
            <header>
              <Segments label="Program" of={(Object.keys(CODE) as Language[]).map((one) => [one, CODE[one].word] as const)} value={language} onChange={setLanguage} />
              <span class="grow" />
              <code class="dim3">app.py</code>
              <CopyButton text={text} what="program" />
            </header>
            <pre class="json program" tabIndex={0}>
              {text}
            </pre>
          </div>
          {execution !== undefined && (
            <div class="card">
              <header>
                <Phase phase={execution.phase} big />
                <Link href={`/executions/${execution.id}`} class="m">
                  <Shown text={execution.workflow_id} />
                </Link>
                <code class="dim">{execution.key ?? `…${execution.id.slice(-8)}`}</code>
                <span class="grow" />
                {execution.started_at !== null && (
                  <span class="dim3 num">{duration((execution.completed_at === null ? now() : Date.parse(execution.completed_at)) - Date.parse(execution.started_at))}</span>
                )}
              </header>
              <Mini timeline={timeline.data} ended={execution.completed_at} />
            </div>
          )}
          {dev && status.data !== undefined && <Chaos status={status.data} />}
        </div>
      </div>
    </Page>
  );
}

const NEXT = [
  ["Ask a person", "docs/approvals.md"],
  ["A durable agent", "docs/agents.md"],
  ["Wait for an event", "docs/workflows.md"],
  ["A schedule", "docs/schedules.md"],
  ["Many children", "docs/workflows.md"],
] as const;

function Step({ n, done, on, title, children }: { n: number; done: boolean; on: boolean; title: string; children: ComponentChildren }) {
  return (
    <li class={done ? "done" : on ? "on" : ""} aria-current={on ? "step" : undefined}>
      <span class="mark">{done ? <Check size={14} aria-label="Done" /> : n}</span>
      <div>
        <h3>{title}</h3>
        <div class="dim">{children}</div>
      </div>
    </li>
  );
}

function Copied({ text }: { text: string }) {
  return (
    <span class="copied">
      <code>{text}</code> <CopyButton text={text} what="command" />
    </span>
  );
}

/** What the kill did, counted by the server. */
function Survived({ status, timeline }: { status: Schemas["DevStatus"] | undefined; timeline: Schemas["TimelineResponse"] | undefined }) {
  const kill = status?.last_kill;
  const rerun = status?.steps_rerun ?? timeline?.proof?.steps_rerun ?? 0;
  return (
    <>
      {kill != null && (
        <>
          The last one held {counted(kill.held, "execution")}
          {kill.resumed_after_ms != null && `, and another worker went on after ${duration(kill.resumed_after_ms)}`}.{" "}
        </>
      )}
      <b class={rerun === 0 ? "m good" : "m bad"}>{counted(rerun, "recorded step")} ran again.</b>
    </>
  );
}

const SCALE = 0.7; // beside the longest bar is room for its words

function Mini({ timeline, ended }: { timeline: Schemas["TimelineResponse"] | undefined; ended: string | null }) {
  const spans = (timeline?.spans ?? []).filter((span) => span.started_at != null || span.queued_at != null).slice(-8);
  if (spans.length === 0) return <p class="dim mini">Its steps appear here.</p>;
  const waits = new Set(["timer", "event", "answer", "child"]);
  const rows = rowsOf(
    spans.map((span): Span => {
      const open = ["running", "waiting", "paused", "held", "lost"].includes(span.state);
      return {
        id: `${span.kind} ${span.key}`,
        parent: null,
        name: span.label ?? span.key,
        kind: waits.has(span.kind) ? "wait" : "step",
        from: Date.parse(span.started_at ?? span.queued_at!),
        to: open && ended === null ? null : Date.parse(span.ended_at ?? span.started_at ?? span.queued_at!),
        failed: span.state === "failed" || span.state === "lost",
      };
    }),
    now(),
  ).rows.map((row) => ({ ...row, left: row.left * SCALE, width: row.width * SCALE }));
  const until = new Map(spans.map((span) => [`${span.kind} ${span.key}`, span.wait?.until]));
  return (
    <div class="mini">
      <Spans
        rows={rows}
        label="Steps of the newest execution"
        note={(row) => {
          if (row.to !== null) return row.failed ? "failed" : "recorded";
          const end = until.get(row.id);
          return end == null ? "open" : `${duration(Date.parse(end) - now())} to go`;
        }}
      />
    </div>
  );
}

const EVERY_SECONDS = 20;

function Chaos({ status }: { status: Schemas["DevStatus"] }) {
  const refresh = useRefresh();
  const may = useMay("admin");
  const on = status.chaos_seconds != null;
  const turn = async (next: boolean) => {
    try {
      await send("PUT", "/api/v1/dev/chaos", { every_seconds: next ? EVERY_SECONDS : null });
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error));
    }
    refresh("/api/v1/dev");
  };
  return (
    <div class="row chaos">
      <Flame size={18} class="bad" aria-hidden="true" />
      <div class="grow">
        <b class="m">Chaos while you work</b>
        <div class="dim small">
          {on ? `Kills a worker about every ${count(status.chaos_seconds!)} s.` : `Kills a worker about every ${EVERY_SECONDS} s.`} {counted(status.kills, "kill")} so far, {counted(status.bodies, "step")} ran,{" "}
          <b class={status.steps_rerun === 0 ? "m good" : "m bad"}>{counted(status.steps_rerun, "recorded step")} ran again</b>.
        </div>
      </div>
      <Switch on={on} word="Chaos" disabled={!may} onChange={(next) => void turn(next)} />
    </div>
  );
}
