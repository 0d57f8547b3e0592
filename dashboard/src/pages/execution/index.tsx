import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { ArrowLeft, CircleStop, GitFork, Link2, PanelRight, Play, RotateCcw, ShieldAlert, ShieldCheck } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { useCommands } from "../../keys";
import { scaleOf, stretches, shortestFold, spentOf, type Beginning, type Stretch } from "../../model/folds";
import { slowestStep } from "../../model/says";
import { stateAt } from "../../model/then";
import { cells, FINAL, holdings, losses, rowsOf, type Row } from "../../model/timeline";
import { clock, duration, exact, when } from "../../model/time";
import { count, counted, money, plainer, share, shortId, visible } from "../../model/words";
import { rawAt } from "../../model/json";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { lazy } from "../../parts/lazy";
import { Empty, Problem, Skeleton } from "../../parts/state";
import { Id, Key, Shown } from "../../parts/text";
import { copy } from "../../parts/toast";
import { useMay } from "../../session";
import { useQueryParams } from "../../url";
import { Action, actWord, isEditable, type ActName, type Asked, type Execution, type Pending } from "./actions";
import { useChildren, useNow, useSummary, useText, useTimeline, useWhy } from "./data";
import { ExecutionInspector, RowInspector, ThenInspector } from "./inspector";
import { Line } from "./line";
import { Children, Failed, Journal, Logs, Values } from "./tabs";
import { Ribbon } from "./ribbon";
import { Waterfall } from "./waterfall";
import "./execution.css";

export default function ExecutionPage({ params }: { params: Record<string, string> }) {
  const id = params.id!;
  const answer = useText(`/api/v1/executions/${id}`);
  const why = useWhy(id, answer.data === undefined ? null : phaseIn(answer.data));
  const summary = useSummary(id, answer.data !== undefined && !FINAL.has(phaseIn(answer.data)));
  const phase = summary?.phase ?? why.data?.phase;
  // The whole execution may be large: it is asked for again only when its phase changes.
  useEffect(() => {
    if (phase !== undefined && answer.data !== undefined && phase !== phaseIn(answer.data)) void answer.refetch();
  }, [phase]);
  const execution = useMemo(() => (answer.data === undefined ? undefined : (JSON.parse(answer.data) as Execution)), [answer.data]);
  useEffect(() => {
    if (execution !== undefined) document.title = `${visible(execution.workflow_id)} ${visible(execution.key ?? shortId(execution.id))} · Perdure`;
  }, [execution]);
  if (execution === undefined) {
    if (answer.error === null) return <Page title="Execution"><Skeleton rows={8} /></Page>;
    return (
      <Page title="Execution">
        <Problem error={answer.error} again={() => void answer.refetch()} />
        <p>
          <Link href="/executions" class="accent">
            All executions
          </Link>
        </p>
      </Page>
    );
  }
  return <Loaded key={id} execution={execution} text={answer.data!} why={why.data} progress={summary?.progress} />;
}

function phaseIn(text: string): string {
  return (rawAt(text, ["phase"]) ?? '""').slice(1, -1);
}

const TABS = ["timeline", "journal", "logs", "values", "children"] as const;
const WORDS: Record<string, string> = { conversation: "Conversation", timeline: "Timeline", journal: "Journal", logs: "Logs", values: "Input and result", children: "Children" };

function Loaded({ execution, text, why, progress }: { execution: Execution; text: string; why: Schemas["Why"] | undefined; progress: unknown }) {
  const { id } = execution;
  const sentence = why?.sentence ?? null;
  const remedy = why?.remedy ?? null;
  const [params, change] = useQueryParams();
  const [, navigate] = useLocation();
  const live = !FINAL.has(execution.phase);
  const mayWrite = useMay("write");
  const timeline = useTimeline(id, live, execution.phase === "running");
  const { journal, version, error } = timeline;
  const before = useRef(execution.phase);
  useEffect(() => {
    if (before.current !== execution.phase) timeline.look(); // it may wait now, which is no row
    before.current = execution.phase;
  }, [execution.phase]);
  const now = useNow(live, version, journal.spans.size);
  const pending = useGet("/api/v1/executions/{execution_id}/pending", { params: { path: { execution_id: id } } }, { enabled: live });
  const spends = useMemo(() => [...journal.spans.values()].some((span) => span.tokens != null), [version]);
  const budget = useGet("/api/v1/executions/{execution_id}/budget", { params: { path: { execution_id: id } } }, { enabled: spends });
  const [asked, setAsked] = useState<Asked | null>(null);
  const [inspected, setInspected] = useState(innerWidth > 720);
  const [width, setWidth] = useState(() => Number(localStorage.getItem("perdure.inspector")) || 424);
  const [opened, setOpened] = useState<ReadonlySet<number>>(new Set());
  const scroller = useRef<HTMLDivElement>(null);
  const finder = useRef<HTMLInputElement>(null);

  const clockTime = params.get("time") === "clock";
  const at = params.has("at") ? Math.max(1, Number(params.get("at")) || 1) : null;
  const unfolded = useMemo(() => new Set((params.get("open") ?? "").split(",").filter((one) => one !== "").map((one) => `${id} ${one}`)), [params.get("open"), id]);
  const chosen = params.get("row");

  // Children: those that are unfolded, and those that a fold would hide.
  const [wanted, setWanted] = useState<readonly string[]>([]);
  const [openChildren, setOpenChildren] = useState<ReadonlySet<string>>(new Set());
  const children = useChildren(wanted, openChildren);
  const rows = useMemo(() => rowsOf(journal, now, unfolded, children.loaded), [version, children.version, now, unfolded]);
  const shortest = useMemo(() => shortestFold(rows), [rows]);
  useEffect(() => {
    const all = rows.filter((row) => row.folds === "child");
    const long = all.filter((row) => row.to - row.from >= shortest).slice(0, 8);
    const ids = [...new Set([...all.filter((row) => row.unfolded), ...long].map((row) => row.span.child!.execution_id))];
    if (ids.join() !== wanted.join()) setWanted(ids);
    const open = all.filter((row) => row.open && ids.includes(row.span.child!.execution_id)).map((row) => row.span.child!.execution_id);
    if (open.join() !== [...openChildren].join()) setOpenChildren(new Set(open));
  }, [rows]);

  const begun: Beginning = useMemo(() => {
    const created = Date.parse(execution.created_at);
    const claims = [...journal.claims.values()].flatMap((claim) => (claim.from == null || claim.copied === true ? [] : [Date.parse(claim.from)]));
    const claimed = claims.length > 0 ? Math.min(...claims) : Date.parse(execution.started_at ?? execution.completed_at ?? new Date(now).toISOString());
    return { created, claimed: Math.max(created, claimed), kept: execution.forked_from == null ? null : `kept from ${shortId(execution.forked_from)}` };
  }, [execution, version, now]);
  const folded: Stretch[] = useMemo(() => stretches(rows, journal, children.loaded, now, live, opened, begun), [rows, children.version, live, opened, begun]);
  const drawn: Stretch[] = useMemo(() => {
    if (!clockTime || folded.length === 0) return folded;
    const kept = folded.filter((one) => one.kept === true);
    return [...kept, { from: folded[kept.length]!.from, to: folded.at(-1)!.to, cause: null }];
  }, [folded, clockTime]);
  const scale = useCallback((pixels: number) => scaleOf(drawn, pixels), [drawn]);
  const lanes = useMemo(() => holdings(journal, now, shortest), [version, rows]);
  const lost = useMemo(() => losses(journal), [version]);
  const slowest = useMemo(() => slowestStep(rows), [rows]);
  const ribbon = useMemo(() => cells(journal), [version]);
  const past = useMemo(() => (at === null ? null : stateAt(journal, Math.min(at, Math.max(1, journal.lastSeq)))), [version, at]);
  const selected = useMemo(() => (chosen === null ? null : findRow(rows, id, chosen)), [rows, chosen]);

  const isAgent = spends || [...journal.spans.values()].some((span) => span.kind === "transcript" || span.kind === "message");
  const tabs: string[] = isAgent && Conversation !== null ? ["conversation", ...TABS] : [...TABS];
  const tab = tabs.includes(params.get("tab") ?? "") ? params.get("tab")! : tabs[0]!;

  const select = (row: Row | null) => change({ row: row === null ? null : nameOf(row, id), at: null });
  const fold = (row: Row) => {
    const name = row.id.slice(id.length + 1);
    const next = new Set((params.get("open") ?? "").split(",").filter((one) => one !== ""));
    if (row.id.startsWith(`${id} `) && !next.delete(name)) next.add(name);
    change({ open: next.size === 0 ? null : [...next].join(",") });
  };
  const move = (by: number) => {
    if (rows.length === 0) return;
    const here = selected === null ? (by > 0 ? -1 : rows.length) : rows.indexOf(selected);
    select(rows[Math.min(rows.length - 1, Math.max(0, here + by))]!);
  };
  const travel = (seq: number | null) => change({ at: seq === null || seq > journal.lastSeq ? null : String(Math.max(1, seq)) });
  const copyLink = () => copy(location.href, "link");
  const startFromThis = () => navigate(`/workflows/${encodeURIComponent(execution.workflow_id)}?run=1&from=${id}`);
  const fork = (step: string | null) => setAsked({ what: "fork", step });
  const edit = (key: string) => setAsked({ what: "fork", step: null, edit: key });
  const canRetry = !live && execution.retried_as == null;
  const acts = live ? (pending.data?.pending ?? []) : [];

  // Steps and children that run are decided in their rows: an action here is for what holds the execution up.
  const bounds = new Set(acts.filter((one) => one.kind !== "timer").map((one) => one.due_at));
  const offered = acts.filter((one) => one.kind !== "step" && one.kind !== "child" && (one.kind !== "timer" || !bounds.has(one.due_at)));

  useCommands([
    { title: "Next row", key: "j", quiet: true, run: () => move(1) },
    { title: "Row before", key: "k", quiet: true, run: () => move(-1) },
    { title: "Find a row", key: "/", run: () => finder.current?.focus() },
    { title: "Unfold or fold the row", key: "o", quiet: true, run: () => selected !== null && selected.folds !== null && fold(selected) },
    { title: "Unfold or fold the row", key: "e", quiet: true, run: () => selected !== null && selected.folds !== null && fold(selected) },
    { title: "Switch work time and clock time", key: "t", run: () => change({ time: clockTime ? null : "clock" }) },
    { title: "Journal row before", key: "[", quiet: true, run: () => travel((at ?? selected?.span.seqs?.at(-1) ?? journal.lastSeq + 1) - 1) },
    { title: "Journal row after", key: "]", quiet: true, run: () => (at !== null || selected !== null) && travel((at ?? selected?.span.seqs?.at(-1) ?? 0) + 1) },
    { title: "Back to live, or close the row", key: "escape", quiet: true, run: () => (at !== null ? travel(null) : select(null)) },
    { title: "Show or hide the inspector", key: "mod+.", run: () => setInspected(!inspected) },
    { title: "Copy the link to this view", key: "y", run: copyLink },
    { title: "Fork this execution", key: "f", run: () => mayWrite && fork(past?.inFlight[0]?.key ?? (selected?.execution === id ? selected.span.key : null)) },
    ...(canRetry ? [{ title: "Retry this execution", key: "r", run: () => setAsked({ what: "retry" }) }] : []),
    ...(live ? [{ title: "Cancel this execution", key: "c", run: () => setAsked({ what: "cancel" }) }] : []),
    { title: "Start from this execution", key: "n", run: startFromThis },
    ...acts.flatMap((one) => one.actions.map((action) => ({ title: `${actWord(action as ActName)}: ${visible(one.key ?? "the execution")}`, run: () => setAsked({ what: "act", action: action as ActName, pending: one }) }))),
    ...tabs.map((one) => ({ title: `Show the tab ${WORDS[one]}`, run: () => change({ tab: one === tabs[0] ? null : one }) })),
  ]);

  const payload = useMemo(() => rawAt(text, ["payload"]) ?? "null", [text]);
  const failedRow = execution.phase === "failed" || execution.phase === "held" ? rows.findLast((row) => row.depth === 0 && (row.span.state === "failed" || row.span.state === "held")) ?? null : null;
  const counts = { journal: journal.lastSeq, children: (journal.counts.child_started ?? 0) as number };

  return (
    <main class="main execution">
      <header class="exhead">
        <div class="row exbar">
          <Link href="/executions" class="dim row gap4" onClick={(event) => history.length > 1 && document.referrer !== "" && (event.preventDefault(), history.back())}>
            <ArrowLeft size={14} aria-hidden="true" /> Executions
          </Link>
          <Id id={id} />
          <span class="grow" />
          <button type="button" class="btn sm ghost" onClick={copyLink}>
            <Link2 size={14} aria-hidden="true" /> Copy link <Key keys="y" />
          </button>
          <button type="button" class="btn sm ghost" onClick={startFromThis}>
            <Play size={14} aria-hidden="true" /> Start from this <Key keys="n" />
          </button>
          <button type="button" class="btn sm" onClick={() => fork(selected?.execution === id ? selected.span.key : null)}>
            <GitFork size={14} aria-hidden="true" /> Fork <Key keys="f" />
          </button>
          {canRetry && (
            <button type="button" class={execution.phase === "completed" ? "btn sm" : "btn sm pri"} onClick={() => setAsked({ what: "retry" })}>
              <RotateCcw size={14} aria-hidden="true" /> Retry <Key keys="r" />
            </button>
          )}
          {live && execution.phase !== "cancelling" && (
            <button type="button" class="btn sm danger" onClick={() => setAsked({ what: "cancel" })}>
              <CircleStop size={14} aria-hidden="true" /> Cancel <Key keys="c" />
            </button>
          )}
        </div>
        <div class="row gap12 extitle">
          <Phase phase={execution.phase} big />
          <h1 class="trunc">
            <Shown text={execution.workflow_id} />
          </h1>
          {execution.key != null && (
            <code class="dim trunc">
              <Shown text={execution.key} />
            </code>
          )}
          {tagsOf(execution.tags).map((tag) => (
            <span key={tag} class="tag trunc">
              <Shown text={tag} />
            </span>
          ))}
          <span class="grow" />
          <Proof lost={journal.lost} rerun={journal.stepsRerun} whole={journal.whole} />
        </div>
        <p class="exsays" role="status">
          {past !== null ? (
            <>
              <span class="accent m">
                At row {count(past.seq)}
                {Number.isNaN(past.at) ? "" : `, ${clock(new Date(past.at).toISOString(), true)}`}:
              </span>{" "}
              <span class="m">{visible(past.row)}.</span> <span class="dim">Later rows are faded.</span>
            </>
          ) : (
            <>
              <span class="m">{visible(plainer(sentence ?? ""))}</span>
              {live && remedy !== null && <span class="dim"> It goes on with {visible(plainer(remedy))}.</span>}
            </>
          )}
        </p>
        {execution.phase === "running" && <Progress of={progress} />}
        <Facts execution={execution} folded={folded} begun={begun} now={now} usd={budget.data} onFields={() => (setInspected(true), select(null))} />
        {offered.length > 0 && mayWrite && (
          <div class="row wrap gap6 pendbar">
            {offered.slice(0, 4).map((one) => (
              <Offer
                key={`${one.kind} ${one.key}`}
                one={one}
                answer={one.kind === "answer" && tab !== "conversation" ? `/inbox?item=${encodeURIComponent(`${id}/${one.key}`)}` : null}
                onAct={(action) => setAsked({ what: "act", action, pending: one })}
              />
            ))}
            {offered.length > 4 && <span class="dim3">{counted(offered.length - 4, "more pending call")}</span>}
          </div>
        )}
      </header>
      <div class="tabs extabs">
        <div class="tabset" role="tablist" aria-label="Parts of this execution">
        {tabs.map((one) => (
          <button key={one} type="button" role="tab" aria-selected={tab === one} class={tab === one ? "on" : ""} onClick={() => change({ tab: one === tabs[0] ? null : one })}>
            {WORDS[one]}
            {one === "journal" && <span class="c">{count(counts.journal)}</span>}
            {one === "children" && counts.children > 0 && <span class="c">{count(counts.children)}</span>}
          </button>
        ))}
        </div>
        <span class="row tools">
          {tab === "timeline" && (
            <input
              ref={finder}
              class="input finder"
              type="search"
              placeholder="Find a row  /"
              aria-label="Find a row"
              onKeyDown={(event) => {
                const words = event.currentTarget.value.toLowerCase();
                if (event.key === "Escape") return event.currentTarget.blur();
                if (event.key !== "Enter" || words === "") return;
                const from = selected === null ? -1 : rows.indexOf(selected);
                const fits = (row: Row) => `${row.span.key} ${row.span.name ?? ""} ${row.span.label ?? ""} ${row.span.state}`.toLowerCase().includes(words);
                const next = rows.slice(from + 1).find(fits) ?? rows.find(fits);
                if (next !== undefined) select(next);
              }}
            />
          )}
          {tab === "timeline" && (
            <span class="seg" role="group" aria-label="Time">
              <button type="button" class={clockTime ? "" : "on"} aria-pressed={!clockTime} onClick={() => change({ time: null })}>
                Work time
              </button>
              <button type="button" class={clockTime ? "on" : ""} aria-pressed={clockTime} onClick={() => change({ time: "clock" })}>
                Clock time
              </button>
            </span>
          )}
          <button type="button" class="btn ghost icon sm" aria-label={inspected ? "Hide the inspector" : "Show the inspector"} aria-pressed={inspected} onClick={() => setInspected(!inspected)}>
            <PanelRight size={15} aria-hidden="true" />
          </button>
        </span>
      </div>
      <div class={inspected && tab !== "conversation" ? "exbody with" : "exbody"} style={{ "--insp": `${width}px` }}>
        <div class="exmain">
          {error !== null && <Problem error={error} />}
          {tab === "timeline" && (
            <>
              {rows.length === 0 && journal.whole ? (
                <NotBegun execution={execution} why={why} />
              ) : (
                <Waterfall
                  rows={rows}
                  scale={scale}
                  holdings={lanes}
                  losses={lost}
                  begun={begun}
                  now={live ? now : null}
                  then={past === null || Number.isNaN(past.at) ? null : past.at}
                  selected={selected?.id ?? null}
                  slowest={slowest}
                  scroller={scroller}
                  onSelect={(row) => (setInspected(true), select(row))}
                  onFold={fold}
                  onStretch={(from) => setOpened(new Set([...opened, from]))}
                  below={failedRow !== null && past === null && rows.length < 200 ? <Failed row={failedRow} error={execution.error ?? null} /> : execution.phase === "queued" && past === null && rows.length < 200 ? <Line execution={execution} why={why} /> : null}
                />
              )}
              <Ribbon cells={ribbon} at={past?.seq ?? null} selected={selected?.execution === id ? (selected.span.seqs?.at(-1) ?? null) : null} live={live} onAt={travel} />
            </>
          )}
          {tab === "journal" && <Journal execution={id} lastSeq={journal.lastSeq} onAt={travel} at={at} />}
          {tab === "logs" && <Logs execution={id} live={execution.phase === "running"} />}
          {tab === "values" && <Values execution={execution} text={text} live={live} />}
          {tab === "children" && <Children execution={id} />}
          {tab === "conversation" && <Conversation execution={execution} timeline={timeline} />}
        </div>
        {inspected && tab !== "conversation" && (
          <aside class="insp" aria-label="Inspector">
            <Grip width={width} onWidth={setWidth} />
            {past !== null ? (
              <ThenInspector then={past} execution={id} now={now} onClose={() => travel(null)} onFork={fork} onCopyLink={copyLink} />
            ) : selected !== null ? (
              <RowInspector
                key={selected.id}
                row={selected}
                execution={execution}
                pending={acts}
                now={now}
                onClose={() => select(null)}
                onFork={fork}
                onEdit={edit}
                onAct={(action: ActName, one: Pending) => setAsked({ what: "act", action, pending: one })}
                onCopyLink={copyLink}
              />
            ) : (
              <ExecutionInspector execution={execution} text={text} live={live} onClose={() => setInspected(false)} />
            )}
          </aside>
        )}
      </div>
      {asked !== null && (
        <Action
          execution={execution}
          asked={asked}
          recorded={[...journal.spans.values()].filter(isEditable)}
          openChildren={[...journal.spans.values()].filter((span) => span.kind === "child" && !FINAL.has(span.state)).length}
          payload={payload}
          onClose={() => setAsked(null)}
        />
      )}
    </main>
  );
}

const Conversation = lazy(() => import("../agent/conversation"));

/** How the address names a row: its key, with its execution if that is a child. */
function nameOf(row: Row, id: string): string {
  const own = row.execution === id ? "" : `${row.execution.slice(-8)} `;
  return row.folds === "group" ? `${own}group ${row.span.key}` : row.span.kind === "step" ? `${own}${row.span.key}` : `${own}${row.span.kind} ${row.span.key}`;
}

/** By its name in the address, its key, or the number of a journal row. */
function findRow(rows: readonly Row[], id: string, chosen: string): Row | null {
  return (
    rows.find((row) => nameOf(row, id) === chosen) ??
    rows.find((row) => row.execution === id && row.folds !== "group" && row.span.key === chosen) ??
    rows.find((row) => row.execution === id && row.span.seqs?.includes(Number(chosen)) === true) ??
    null
  );
}

/** What may decide a pending call. A question is answered in its form; what overrules it is one step further. */
function Offer({ one, answer, onAct }: { one: Pending; answer: string | null; onAct: (action: ActName) => void }) {
  const [more, setMore] = useState(false);
  const acts = one.actions.map((action) => (
    <button key={action} type="button" class="btn sm" onClick={() => onAct(action as ActName)}>
      {actWord(action as ActName)}
    </button>
  ));
  return (
    <span class="row gap4">
      <code>{visible(one.key ?? "execution")}</code>
      {answer !== null && (
        <Link href={answer} class="btn sm pri">
          Answer
        </Link>
      )}
      {one.kind === "answer" ? (
        <>
          <button type="button" class="btn sm ghost" aria-expanded={more} onClick={() => setMore(!more)}>
            {more ? "Less" : "More"}
          </button>
          {more && acts}
        </>
      ) : (
        acts
      )}
    </span>
  );
}

function tagsOf(tags: unknown): string[] {
  if (Array.isArray(tags)) return tags.map(String);
  if (tags === null || typeof tags !== "object") return [];
  return Object.entries(tags).map(([name, value]) => (value === "" || value === true ? name : `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`));
}

function Proof({ lost, rerun, whole }: { lost: number; rerun: number; whole: boolean }) {
  if (lost === 0 && rerun === 0) return null;
  const Icon = rerun === 0 ? ShieldCheck : ShieldAlert;
  return (
    <span class={rerun === 0 ? "proof" : "proof bad"}>
      <Icon size={14} aria-hidden="true" />
      {whole ? "" : "At least "}
      {counted(lost, "worker")} lost · {counted(rerun, "recorded step")} repeated
    </span>
  );
}

/** What the code said with `ctx.progress`. */
function Progress({ of }: { of: unknown }) {
  const progress = of as { done?: unknown; total?: unknown; text?: unknown } | null | undefined;
  if (progress == null || typeof progress.done !== "number") return null;
  const { done } = progress;
  const total = typeof progress.total === "number" && progress.total > 0 ? progress.total : null;
  return (
    <div class="row gap12" style={{ marginTop: "6px", fontSize: "12px" }}>
      <progress class="exprogress" aria-label="Progress" value={done} max={total ?? 1} />
      <span class="num">{total !== null ? `${count(done)} of ${count(total)}` : share(done, 1)}</span>
      {typeof progress.text === "string" && <span class="dim">{visible(progress.text)}</span>}
    </div>
  );
}

interface Money {
  usd_micros: { spent: number; limit?: number | null };
  tokens: { spent: number };
}

function Facts({ execution, folded, begun, now, usd, onFields }: { execution: Execution; folded: Stretch[]; begun: Beginning; now: number; usd: Money | undefined; onFields: () => void }) {
  const { queued, worked, waited } = spentOf(folded, begun);
  return (
    <div class="facts">
      {execution.started_at != null ? (
        <span title={exact(execution.started_at)}>
          Started <b class="num">{clock(execution.started_at)}</b>, {when(execution.started_at, now)}
        </span>
      ) : (
        <span title={exact(execution.created_at)}>
          Created <b class="num">{clock(execution.created_at)}</b>
        </span>
      )}
      {queued >= 1 && (
        <span title="From its creation to its first claim">
          Queued <b class="num">{duration(queued)}</b>
        </span>
      )}
      {folded.length > 0 && (
        <span>
          Worked <b class="num">{duration(worked)}</b>
          {waited > 0 && (
            <>
              , waited <b class="num">{duration(waited)}</b>
            </>
          )}
        </span>
      )}
      {execution.completed_at != null && (
        <span title={exact(execution.completed_at)}>
          Ended <b class="num">{clock(execution.completed_at)}</b>
        </span>
      )}
      {execution.deployment_id != null && (
        <span>
          Deployment <b>{visible(execution.deployment_id)}</b>
        </span>
      )}
      {execution.queue_name != null && (
        <span>
          Queue <b>{visible(execution.queue_name)}</b>
          {execution.concurrency_key != null && <> · {visible(execution.concurrency_key)}</>}
        </span>
      )}
      {execution.user_id != null && (
        <span>
          User <b>{visible(execution.user_id)}</b>
        </span>
      )}
      {usd !== undefined && (usd.usd_micros.spent > 0 || usd.usd_micros.limit != null) && (
        <span>
          Models <b class="num">{money(usd.usd_micros.spent / 1e6)}</b>
          {usd.usd_micros.limit != null && <> of {money(usd.usd_micros.limit / 1e6)}</>}
        </span>
      )}
      {execution.parent_execution_id != null && (
        <Link href={`/executions/${execution.parent_execution_id}`} class="accent">
          Parent {shortId(execution.parent_execution_id)}
        </Link>
      )}
      {execution.forked_from != null && (
        <Link href={`/executions/${execution.forked_from}/compare/${execution.id}`} class="accent">
          Compare with {shortId(execution.forked_from)}, its source
        </Link>
      )}
      {execution.retried_as != null && (
        <Link href={`/executions/${execution.retried_as}`} class="accent">
          Retried as {shortId(execution.retried_as)}
        </Link>
      )}
      <button type="button" onClick={onFields}>
        Details
      </button>
    </div>
  );
}

function NotBegun({ execution, why }: { execution: Execution; why: Schemas["Why"] | undefined }) {
  if (FINAL.has(execution.phase)) return <Empty title="No steps">The code of this execution recorded no step and no wait.</Empty>;
  if (execution.phase === "queued") return <Line execution={execution} why={why} />;
  return <Empty title="Nothing recorded yet">{why?.remedy == null ? "Its first step or wait appears here." : `It goes on with ${visible(plainer(why.remedy))}.`}</Empty>;
}

function Grip({ width, onWidth }: { width: number; onWidth: (width: number) => void }) {
  const set = (to: number) => {
    const next = Math.min(900, Math.max(280, to));
    onWidth(next);
    localStorage.setItem("perdure.inspector", String(next));
  };
  return (
    <div
      class="grip"
      role="separator"
      aria-orientation="vertical"
      aria-label="Width of the inspector"
      aria-valuenow={width}
      aria-valuemin={280}
      aria-valuemax={900}
      tabIndex={0}
      onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
      onPointerMove={(event) => event.buttons === 1 && set(innerWidth - event.clientX)}
      onKeyDown={(event) => {
        if (event.key === "ArrowLeft") set(width + 24);
        else if (event.key === "ArrowRight") set(width - 24);
      }}
    />
  );
}
