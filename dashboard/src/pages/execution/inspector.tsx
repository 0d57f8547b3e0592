import { Fragment, type ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { GitFork, Link2, Pencil, ShieldCheck, X } from "lucide-preact";
import { useGet } from "../../api/query";
import { duration, clock } from "../../model/time";
import { bytes, counted, count, money, visible } from "../../model/words";
import { errorLine, ordinal } from "../../model/says";
import { short, type Then } from "../../model/then";
import { phaseOf, tookOf, type Row } from "../../model/timeline";
import { rawAt } from "../../model/json";
import { Json } from "../../parts/json";
import { Phase, PhaseIcon } from "../../parts/phase";
import { CopyButton, Id, Key, Shown, Time } from "../../parts/text";
import { copy } from "../../parts/toast";
import { Failure, Lines, LogsNear, RowValue } from "./parts";
import { actWord, isEditable, type ActName, type Execution, type Pending } from "./actions";
import { useText } from "./data";

interface RowProps {
  row: Row;
  execution: Execution;
  pending: Pending[];
  now: number;
  onClose: () => void;
  onFork: (key: string) => void;
  /** Fork with another value in place of the recorded one. */
  onEdit: (key: string) => void;
  onAct: (action: ActName, pending: Pending) => void;
  onCopyLink: () => void;
}

/** What is known of one row of the timeline. */
export function RowInspector({ row, execution, pending, now, onClose, onFork, onEdit, onAct, onCopyLink }: RowProps) {
  const { span } = row;
  const own = row.execution === execution.id;
  const tries = span.tries ?? [];
  const lost = (span.runs ?? []).filter((run) => run.lost_at != null);
  const running = (span.runs ?? []).filter((run) => run.lost_at == null);
  const failedTries = tries.filter((one) => !one.ok);
  const tabs = ["result", ...(tries.length + lost.length + running.length > 0 ? ["runs"] : []), "logs"];
  const [chosen, setChosen] = useState("result");
  const tab = tabs.includes(chosen) ? chosen : "result";
  const took = tookOf(row);
  const outcome = span.seqs?.at(-1) ?? null;
  const here = own ? pending.filter((one) => one.key === span.key) : [];
  return (
    <>
      <header>
        <div class="row">
          <h2 class="trunc" title={visible(span.key)}>
            {visible(span.key)}
          </h2>
          <Phase phase={phaseOf(span)} big />
          <span class="grow" />
          <button type="button" class="btn ghost icon sm" aria-label="Close the inspector" onClick={onClose}>
            <X size={15} aria-hidden="true" />
          </button>
        </div>
        <div class="row gap12 dim wrap" style={{ fontSize: "12px", marginTop: "4px" }}>
          {outcome !== null && (
            <span>
              Journal row <b class="m num">{count(outcome)}</b>
            </span>
          )}
          {took !== null && <span class="num">{duration(took)}</span>}
          <span>{row.folds === "group" ? "children" : span.kind}</span>
          {span.name != null && span.name !== span.key && <code>{visible(span.name)}</code>}
          {span.usd != null && <span class="num">{money(span.usd)}</span>}
          {span.tokens != null && <span class="num">{counted(span.tokens, "token")}</span>}
          {span.copied === true && <span class="tag">copied by a fork</span>}
        </div>
      </header>
      <div class="tabs extabs" role="tablist">
        {tabs.map((one) => (
          <button key={one} type="button" role="tab" aria-selected={tab === one} class={tab === one ? "on" : ""} onClick={() => setChosen(one)}>
            {{ result: failedTries.length > 0 && !tries.at(-1)?.ok ? "Error" : "Result", runs: "Tries", logs: "Logs" }[one]}
            {one === "runs" && <span class="c">{tries.length + lost.length + running.length}</span>}
          </button>
        ))}
      </div>
      <div class="body col gap16">
        {tab === "result" && (
          <>
            {lost.length > 0 && span.state !== "lost" && (
              <div class="note calm">
                <ShieldCheck size={16} aria-hidden="true" />
                <span>
                  <b class="m">Worker {short(lost[0]!.worker)} was lost in the middle of this step.</b> The step ran once more, with the same idempotency key. Recorded
                  steps were replayed, not run.
                </span>
              </div>
            )}
            {span.wait != null && <WaitFacts row={row} now={now} />}
            {span.edited != null && <p>A person or a program decided this call: {visible(span.edited.replaceAll("_", " "))}.</p>}
            {here.length > 0 && (
              <div class="row wrap gap6">
                {here.flatMap((one) =>
                  one.actions.map((action) => (
                    <button key={action} type="button" class="btn sm" onClick={() => onAct(action as ActName, one)}>
                      {actWord(action as ActName)}
                    </button>
                  )),
                )}
              </div>
            )}
            {row.folds === "group" ? (
              <GroupFacts row={row} />
            ) : span.kind === "child" && span.child != null ? (
              <div class="sect">
                <div class="hd">
                  <h3>Child</h3>
                </div>
                <div class="row">
                  <Link href={`/executions/${span.child.execution_id}`} class="accent">
                    {visible(span.child.workflow_id)}
                  </Link>
                  <Id id={span.child.execution_id} />
                </div>
              </div>
            ) : null}
            {row.folds !== "group" && tries.length > 0 && !tries.at(-1)!.ok && <Failure execution={row.execution} seq={tries.at(-1)!.seq} />}
            {row.folds !== "group" && outcome !== null && (span.state === "completed" || (span.state === "failed" && tries.length === 0)) && (span.kind !== "child" || (span.seqs ?? []).length > 1) && (
              <div class="sect">
                <div class="hd">
                  <h3>{span.state === "failed" ? "Error" : span.kind === "event" ? "Event" : span.kind === "answer" ? "Answer" : "Result"}</h3>
                </div>
                {span.state === "failed" ? <Failure execution={row.execution} seq={outcome} /> : <RowValue execution={row.execution} seq={outcome} what="result" />}
              </div>
            )}
            {row.folds !== "group" && span.kind === "step" && <p class="dim3">Inputs of steps are not kept. The journal has a fingerprint of each.</p>}
            {span.kind === "step" && (
              <div class="row" style={{ fontSize: "12px" }}>
                <span class="dim3 nowrap">Idempotency key</span>
                <code class="trunc" title={`${row.execution}:${visible(span.key)}`}>
                  {visible(`${row.execution}:${span.key}`)}
                </code>
                <CopyButton text={`${row.execution}:${span.key}`} what="idempotency key" />
              </div>
            )}
          </>
        )}
        {tab === "runs" && <Tries row={row} />}
        {tab === "logs" ? (
          <LogsNear execution={row.execution} from={row.from} to={row.to} />
        ) : tab === "result" && row.span.kind === "step" ? (
          <LogsNear execution={row.execution} from={row.from} to={row.to} />
        ) : null}
        <div class="row wrap gap6">
          {own && row.folds !== "group" && span.kind !== "message" && (
            <button type="button" class="btn sm" onClick={() => onFork(span.key)}>
              <GitFork size={13} aria-hidden="true" /> Fork from here <Key keys="f" />
            </button>
          )}
          {own && row.folds !== "group" && isEditable(span) && (
            <button type="button" class="btn sm" onClick={() => onEdit(span.key)}>
              <Pencil size={13} aria-hidden="true" /> Fork with another result
            </button>
          )}
          <button type="button" class="btn sm" onClick={onCopyLink}>
            <Link2 size={13} aria-hidden="true" /> Copy link <Key keys="y" />
          </button>
        </div>
      </div>
    </>
  );
}

function WaitFacts({ row, now }: { row: Row; now: number }) {
  const { wait } = row.span;
  if (wait == null) return null;
  return (
    <dl class="dl tight">
      <dt>Waits for</dt>
      <dd>{visible(wait.for === "event" ? `event ${wait.topic ?? ""}` : wait.for)}</dd>
      {wait.match != null && (
        <>
          <dt>With</dt>
          <dd>
            <code>{visible(JSON.stringify(wait.match))}</code>
          </dd>
        </>
      )}
      {wait.until != null && (
        <>
          <dt>{wait.for === "timer" ? "Ends" : "Time-out"}</dt>
          <dd>
            <Time at={wait.until} /> {row.open && Date.parse(wait.until) > now && <span class="dim3">{duration(Date.parse(wait.until) - now)} left</span>}
          </dd>
        </>
      )}
      {wait.by != null && (
        <>
          <dt>Answered by</dt>
          <dd>{visible(wait.by)}</dd>
        </>
      )}
    </dl>
  );
}

function GroupFacts({ row }: { row: Row }) {
  const counts = new Map<string, number>();
  for (const one of row.members) counts.set(phaseOf(one), (counts.get(phaseOf(one)) ?? 0) + 1);
  return (
    <div class="sect">
      <div class="hd">
        <h3>{counted(row.members.length, "child", "children")}</h3>
      </div>
      {[...counts].map(([phase, n]) => (
        <div key={phase} class="row">
          <Phase phase={phase} /> <span class="num">{count(n)}</span>
        </div>
      ))}
    </div>
  );
}

function Tries({ row }: { row: Row }) {
  const lines = [
    ...(row.span.tries ?? []).map((one) => ({ at: Date.parse(one.started_at ?? one.ended_at), one, run: null })),
    ...(row.span.runs ?? []).map((run) => ({ at: Date.parse(run.started_at), one: null, run })),
  ].sort((a, b) => a.at - b.at);
  const [open, setOpen] = useState<number | null>(null);
  return (
    <div class="sect">
      {lines.map(({ one, run }, index) => {
        const phase = one !== null ? (one.ok ? "completed" : "failed") : run!.lost_at != null ? "failed" : "running";
        const took = one !== null ? (one.started_at == null ? null : Date.parse(one.ended_at) - Date.parse(one.started_at)) : run!.lost_at == null ? null : Date.parse(run!.lost_at) - Date.parse(run!.started_at);
        return (
          <div key={index}>
            <div class="tryline">
              <span class={`p-${phase}`}>
                <PhaseIcon phase={phase} />
              </span>
              <span>
                <b class="m">{ordinal(one?.n ?? run!.n)} try</b>{" "}
                <span class="dim">
                  {run === null ? !one!.ok && "failed" : `on worker ${short(run.worker)}, ${run.lost_at == null ? "running" : "lost with its worker"}`}
                  {one?.error != null && `: ${visible(errorLine(one.error))}`}
                </span>
                {one?.retry_at != null && <span class="dim3"> Next try at {clock(one.retry_at, true)}.</span>}
              </span>
              <span class="dim num">{took === null ? "" : duration(took)}</span>
            </div>
            {one !== null && !one.ok && (
              <button type="button" class="btn ghost sm" aria-expanded={open === index} onClick={() => setOpen(open === index ? null : index)}>
                {open === index ? "Hide the traceback" : "Show the traceback"}
              </button>
            )}
            {one !== null && open === index && <Failure execution={row.execution} seq={one.seq} />}
          </div>
        );
      })}
    </div>
  );
}

/** What is known of the execution itself, beside what the page's head says of it. */
export function ExecutionInspector({ execution, text, live, onClose }: { execution: Execution; text: string; live: boolean; onClose: () => void }) {
  const forks = useGet("/api/v1/executions/summaries", { params: { query: { forked_from: execution.id, limit: 20 } } });
  return (
    <>
      <header>
        <div class="row">
          <h2>Execution</h2>
          <span class="grow" />
          <CopyButton text={text} what="execution as JSON" />
          <button type="button" class="btn ghost icon sm" aria-label="Close the inspector" onClick={onClose}>
            <X size={15} aria-hidden="true" />
          </button>
        </div>
      </header>
      <div class="body col gap16">
        <dl class="dl tight">
          {fieldsOf(execution).map(([word, value]) => (
            <Fragment key={word}>
              <dt>{word}</dt>
              <dd>{value}</dd>
            </Fragment>
          ))}
        </dl>
        {execution.tags != null && <Part title="Tags" name="tags" text={text} />}
        {execution.progress != null && <Part title="Progress" name="progress" text={text} />}
        <Part title="Input" name="payload" text={text} />
        {execution.error != null && (
          <div class="sect">
            <div class="hd">
              <h3>Error</h3>
            </div>
            <div class="box err">
              <Lines text={execution.error} />
            </div>
          </div>
        )}
        {!live && execution.error == null && <Part title="Result" name="result" text={text} />}
        {(forks.data?.executions ?? []).length > 0 && (
          <div class="sect">
            <div class="hd">
              <h3>Forks</h3>
            </div>
            {forks.data!.executions.map((fork) => (
              <div key={fork.id} class="row">
                <Phase phase={fork.phase} />
                <Link href={`/executions/${fork.id}`} class="accent">
                  {visible(fork.key ?? fork.workflow_id)}
                </Link>
                <Link href={`/executions/${execution.id}/compare/${fork.id}`} class="dim">
                  Compare
                </Link>
              </div>
            ))}
          </div>
        )}
      </div>
    </>
  );
}

function Part({ title, name, text }: { title: string; name: string; text: string }) {
  const raw = rawAt(text, [name]);
  if (raw === undefined) return null;
  return (
    <div class="sect">
      <div class="hd">
        <h3>{title}</h3>
      </div>
      <Json text={raw} what={title.toLowerCase()} />
    </div>
  );
}

/** The fields that say something, under their words. */
function fieldsOf(one: Execution): [string, ComponentChildren][] {
  const name = (text: string | null | undefined) => text != null && <Shown text={text} />;
  const time = (at: string | null | undefined) => at != null && <Time at={at} />;
  const other = (id: string | null | undefined, word?: string, step?: string | null) =>
    id != null && (
      <span class="row gap4">
        <Id id={id} to={`/executions/${id}`} />
        {step != null && (
          <span class="dim trunc">
            {word} <Shown text={step} mono />
          </span>
        )}
      </span>
    );
  const alike = (field: "session_id" | "batch_id") => one[field] != null && one[field] !== one.id && <Id id={one[field]} to={`/executions?${field}=${encodeURIComponent(one[field])}`} />;
  const fields: [string, ComponentChildren][] = [
    ["Id", <Id id={one.id} />],
    [
      "Workflow",
      <Link href={`/workflows/${encodeURIComponent(one.workflow_id)}`} class="accent">
        <Shown text={one.workflow_id} />
      </Link>,
    ],
    [
      "Key",
      one.key != null && (
        <span class="row gap4">
          <code class="trunc">{visible(one.key)}</code>
          <CopyButton text={one.key} what="key" />
        </span>
      ),
    ],
    ["Created", time(one.created_at)],
    ["Started", time(one.started_at)],
    [one.phase === "queued" ? "Starts" : "Wakes", (one.phase === "queued" || one.phase === "waiting") && time(one.due_at)],
    ["Ended", time(one.completed_at)],
    [
      "Cancelled",
      one.cancelled_at != null && (
        <>
          {time(one.cancelled_at)}
          {one.cancelled_by != null && ` by ${visible(one.cancelled_by)}`}
        </>
      ),
    ],
    ["Tries", one.retry_count > 0 && count(one.retry_count + 1)],
    ["Time-out", one.run_timeout_seconds != null && duration(one.run_timeout_seconds * 1_000)],
    ["Deployment", name(one.deployment_id)],
    [
      "Queue",
      one.queue_name != null && (
        <Link href={`/queues?queue=${encodeURIComponent(one.queue_name)}`} class="accent">
          <Shown text={one.queue_name} />
        </Link>
      ),
    ],
    ["Concurrency key", name(one.concurrency_key)],
    ["Worker", one.assigned_to_worker != null && <Id id={one.assigned_to_worker} />],
    ["User", name(one.user_id)],
    ["Session", alike("session_id")],
    ["Batch", alike("batch_id")],
    ["Parent", other(one.parent_execution_id, "at", one.step_key)],
    ["Root", one.root_execution_id !== one.parent_execution_id && other(one.root_execution_id)],
    ["Fork of", other(one.forked_from, "from", one.forked_at_step)],
    ["Retried as", other(one.retried_as)],
    ["Result type", name(one.output_schema_name)],
  ];
  return fields.filter(([, value]) => value !== false && value != null);
}

/** How the execution stood right after a journal row. */
export function ThenInspector({ then, execution, now, onClose, onFork, onCopyLink }: { then: Then; execution: string; now: number; onClose: () => void; onFork: (key: string) => void; onCopyLink: () => void }) {
  const from = Math.max(0, then.seq - 60);
  const rows = useText(`/api/v1/executions/${execution}/steps?after=${from}&limit=${then.seq - from}`);
  const values = new Map<number, string>();
  if (rows.data !== undefined) {
    for (let index = 0; index < then.seq - from; index += 1) {
      const seq = rawAt(rows.data, ["steps", index, "seq"]);
      if (seq === undefined) break;
      values.set(Number(seq), rawAt(rows.data, ["steps", index, "value"]) ?? "");
    }
  }
  const iso = Number.isNaN(then.at) ? null : new Date(then.at).toISOString();
  const forkAt = then.inFlight[0]?.key ?? null;
  const results = then.results.slice(0, 14);
  return (
    <>
      <header>
        <div class="row">
          <h2>State at row {count(then.seq)}</h2>
          <span class="grow" />
          <button type="button" class="btn ghost sm" onClick={onCopyLink}>
            <Link2 size={13} aria-hidden="true" /> Copy link
          </button>
          <button type="button" class="btn ghost icon sm" aria-label="Back to live" onClick={onClose}>
            <X size={15} aria-hidden="true" />
          </button>
        </div>
        <p class="dim" style={{ marginTop: "4px", overflowWrap: "anywhere" }}>
          {iso !== null && `${clock(iso, true)}, ${duration(now - then.at)} ago. `}
          {visible(then.row)}.{then.next !== null && ` Next: ${visible(then.next)}.`}
        </p>
      </header>
      <div class="body col gap16">
        <dl class="dl">
          <dt>Phase</dt>
          <dd>
            <Phase phase={then.phase} />
          </dd>
          <dt>Held by</dt>
          <dd>{then.worker === null ? "no worker" : `worker ${short(then.worker)}`}</dd>
          <dt>In flight</dt>
          <dd>
            {then.inFlight.length === 0
              ? "nothing recorded"
              : then.inFlight.slice(0, 3).map((one) => (
                  <div key={one.key}>
                    <code>{visible(one.key)}</code>, {ordinal(one.n)} try, for {duration(then.at - one.since)}
                  </div>
                ))}
          </dd>
          <dt>Open waits</dt>
          <dd>{then.waits.length === 0 ? "none" : then.waits.slice(0, 4).map((span) => <code key={span.key}>{visible(span.key)} </code>)}</dd>
          <dt>Children</dt>
          <dd>
            {then.childrenEnded} ended, {then.childrenOpen} open
          </dd>
          {then.usd > 0 && (
            <>
              <dt>Spent</dt>
              <dd>{money(then.usd)}</dd>
            </>
          )}
        </dl>
        <div class="sect">
          <div class="hd">
            <h3>Results so far</h3>
            <span class="grow" />
            <span class="dim3" style={{ fontSize: "11px" }}>
              {count(then.results.length)}, newest first
            </span>
          </div>
          <div class="box json" style={{ display: "grid", gridTemplateColumns: "max-content minmax(0, 1fr)", gap: "0 12px" }}>
            {results.map(({ seq, span }) => (
              <ResultLine key={seq} name={span.key} value={values.get(seq)} size={span.bytes ?? null} failed={span.state === "failed"} />
            ))}
            {results.length === 0 && <span class="g">none</span>}
          </div>
        </div>
        {forkAt !== null && (
          <div class="row wrap gap6">
            <button type="button" class="btn pri sm" onClick={() => onFork(forkAt)}>
              <GitFork size={13} aria-hidden="true" /> Fork from {visible(forkAt)} <Key keys="f" />
            </button>
          </div>
        )}
        <p class="dim3">
          This is computed from the journal: nothing runs again. <button type="button" class="btn ghost sm" onClick={() => copy(`perdure show ${execution} --journal`, "command")}>Copy the command that prints the journal</button>
        </p>
      </div>
    </>
  );
}

function ResultLine({ name, value, size, failed }: { name: string; value: string | undefined; size: number | null; failed: boolean }) {
  return (
    <>
      <span class="k trunc">{visible(name)}</span>
      <span class={failed ? "bad trunc" : "trunc"}>{value !== undefined ? visible(value.slice(0, 160)) : size !== null ? bytes(size) : ""}</span>
    </>
  );
}
