import { useEffect, useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { ArrowLeft, ChevronRight, Hand, Link2, OctagonPause, SquareArrowOutUpRight, UserRound } from "lucide-preact";
import { now, type Schemas } from "../../api/client";
import { useGet, useRefresh } from "../../api/query";
import { useLive } from "../../api/live";
import { setNavCount } from "../../frame";
import { useCommands } from "../../keys";
import { brief, nameOf, questionForm, urgency, type QuestionKind } from "../../model/questions";
import { duration } from "../../model/time";
import { shortId } from "../../model/words";
import { Segments } from "../../parts/controls";
import { Page } from "../../parts/page";
import { PhaseIcon } from "../../parts/phase";
import { Answering, formOf, roughly, timeLeft, useQuestion } from "../../parts/question";
import { useTick } from "../../parts/tick";
import { Empty, Loaded } from "../../parts/state";
import { Key, Shown, Time } from "../../parts/text";
import { Pairs } from "../../parts/value";
import { useQueryParams } from "../../url";
import { EndedList } from "./ended";
import { LinkDialog, Made, type MadeLink } from "./link";
import "./inbox.css";

type Item = Schemas["OpenApproval"];

const EXAMPLE = `answer = await ctx.suspend("approve", {
    "_form": {
        "title": "Pay 900 euros to Acme?",
        "fields": [{"key": "approved", "type": "boolean"}],
    },
}, timeout=86_400)`;
const ICONS = { agent: Hand, workflow: UserRound, limit: OctagonPause };
const WORDS: [QuestionKind, string][] = [
  ["agent", "Agents"],
  ["workflow", "Workflows"],
  ["limit", "Continue?"],
];

const STATES = [
  ["open", "Open"],
  ["answered", "Answered"],
  ["expired", "Expired"],
] as const;

export default function Inbox() {
  const [params, change] = useQueryParams();
  const state = params.get("state");
  const ended = state === "answered" || state === "expired" ? state : null;
  const found = useGet("/api/v1/approvals", { params: { query: { limit: 500 } } });
  const refresh = useRefresh();
  useLive("inbox", () => refresh("/api/v1/approvals"));
  const more = found.data?.next_cursor != null;
  const all = found.data?.approvals ?? [];
  useEffect(() => {
    if (found.data !== undefined) setNavCount("/inbox", all.length);
  }, [found.data]);
  return (
    <Page
      title="Inbox"
      bare
      actions={
        <>
          <span class="dim num inbox-count">{found.data === undefined ? "" : `${all.length}${more ? "+" : ""} open`}</span>
          <Segments label="State" of={STATES} value={ended ?? "open"} onChange={(to) => change({ state: to === "open" ? null : to, item: null, kind: null, sort: null }, true)} />
        </>
      }
    >
      {ended === null ? (
        <Loaded of={found}>{() => <Items all={all} />}</Loaded>
      ) : (
        <EndedList key={ended} state={ended}>
          {(name, item) => <Detail key={name} name={name} item={item} onBack={() => change({ item: null })} />}
        </EndedList>
      )}
    </Page>
  );
}

function Items({ all: given }: { all: Item[] }) {
  const [params, change] = useQueryParams();
  const [answered, setAnswered] = useState<ReadonlySet<string>>(new Set());
  const all = given.filter((item) => !answered.has(item.question)); // the list may be older than the answer
  const kind = params.get("kind");
  useTick(5_000);
  const byExpiry = params.get("sort") === "expiry";
  const forms = new Map(all.map((item) => [item, questionForm(item.step_key, item.data)]));
  const shown = all.filter((item) => kind === null || forms.get(item)!.kind === kind);
  if (byExpiry) shown.sort((a, b) => Date.parse(a.expires_at ?? "9999-01-01") - Date.parse(b.expires_at ?? "9999-01-01"));
  const wanted = params.get("item");
  const narrow = innerWidth <= 1_000;
  const at = shown.findIndex((item) => nameOf(item) === wanted);
  const current = at >= 0 ? shown[at]! : null;
  const open = wanted ?? (narrow || shown.length === 0 ? null : nameOf(shown[0]!));
  const select = (to: number) => shown[to] !== undefined && change({ item: nameOf(shown[to]!) });
  const position = current === null ? shown.findIndex((item) => nameOf(item) === open) : at;
  useEffect(() => {
    if (wanted === null && open !== null) change({ item: open }); // it stays when another client answers it
  }, [wanted, open]);
  useCommands([
    { title: "Next question", key: "j", quiet: true, run: () => select(Math.min(position + 1, shown.length - 1)) },
    { title: "Previous question", key: "k", quiet: true, run: () => select(Math.max(position - 1, 0)) },
  ]);
  if (all.length === 0 && wanted === null) {
    return (
      <Empty title="No question waits for an answer" code={EXAMPLE} docs="docs/approvals.md">
        Approvals of agents, questions of workflows and used-up budgets appear here. A workflow asks like this:
      </Empty>
    );
  }
  const next = () => {
    const done = shown[position]?.question;
    if (done !== undefined) setAnswered(new Set([...answered, done]));
    const after = shown[position + 1] ?? shown[position - 1];
    change({ item: after === undefined || narrow ? null : nameOf(after) });
  };
  return (
    <div class={open === null ? "inbox" : "inbox open"}>
      <section class="list" aria-label="Open questions">
        <div class="filters row gap6">
          <button type="button" class={kind === null ? "chip set" : "chip"} aria-pressed={kind === null} onClick={() => change({ kind: null })}>
            Everything <span class="num dim">{all.length}</span>
          </button>
          {WORDS.map(([one, word]) => {
            const n = all.filter((item) => forms.get(item)!.kind === one).length;
            return (
              n > 0 && (
                <button key={one} type="button" class={kind === one ? "chip set" : "chip"} aria-pressed={kind === one} onClick={() => change({ kind: one })}>
                  {word} <span class="num dim">{n}</span>
                </button>
              )
            );
          })}
          <span class="grow" />
          <Segments
            label="Sort"
            of={
              [
                ["oldest", "Oldest"],
                ["expiry", "Expiry"],
              ] as const
            }
            value={byExpiry ? "expiry" : "oldest"}
            onChange={(to) => change({ sort: to === "expiry" ? to : null })}
          />
        </div>
        <ul>
          {shown.map((item) => {
            const form = forms.get(item)!;
            const Icon = ICONS[form.kind];
            const level = urgency(item.expires_at, now());
            return (
              <li key={nameOf(item)}>
                <button type="button" class={nameOf(item) === open ? "item on" : "item"} aria-current={nameOf(item) === open ? "true" : undefined} onClick={() => change({ item: nameOf(item) }, narrow)}>
                  <Icon size={16} aria-hidden="true" />
                  <span class="title trunc">
                    <Shown text={form.title} />
                  </span>
                  <small class="num nowrap" title="Since">
                    {roughly(now() - Date.parse(item.asked_at))}
                  </small>
                  <small class="sub trunc">
                    <Shown text={item.workflow_id} /> {item.key == null ? <code>{shortId(item.execution_id)}</code> : <Shown text={item.key} mono />} asks
                  </small>
                  {item.expires_at != null && <small class={`num nowrap${level === null ? "" : ` left-${level}`}`}>{timeLeft(item.expires_at)}</small>}
                </button>
              </li>
            );
          })}
        </ul>
        <p class="hints row gap12">
          <span>
            <Key keys="j k" /> next, previous
          </span>
          <span>
            <Key keys="a" /> approve
          </span>
          <span>
            <Key keys="d" /> reject
          </span>
          <span>
            <Key keys="e" /> edit
          </span>
        </p>
      </section>
      <section class="detail" aria-label="Question">
        {open !== null && <Detail key={open} name={open} item={shown.find((one) => nameOf(one) === open)} onAnswered={next} onBack={() => change({ item: null })} />}
      </section>
    </div>
  );
}

function Detail({ name, item, onAnswered, onBack }: { name: string; item: Item | undefined; onAnswered?: () => void; onBack: () => void }) {
  const cut = name.indexOf("/");
  const [execution_id, step_key] = [name.slice(0, cut), name.slice(cut + 1)];
  const [params, change] = useQueryParams();
  const [, navigate] = useLocation();
  const [made, setMade] = useState<MadeLink | null>(null);
  const execution = useGet("/api/v1/executions/{execution_id}", { params: { path: { execution_id } } });
  const of = { execution_id, step_key, workflow_id: item?.workflow_id ?? execution.data?.workflow_id ?? "" };
  const status = useQuestion(of);
  useCommands([{ title: "Open the execution", key: "o", run: () => navigate(`/executions/${execution_id}`) }]);
  return (
    <div class="one">
      <div class="row wrap gap6">
        <button type="button" class="btn sm ghost back" onClick={onBack}>
          <ArrowLeft size={14} aria-hidden="true" /> All
        </button>
        <span class="grow trunc">
          <Link href={`/executions/${execution_id}`} class="accent">
            <Shown text={of.workflow_id} />
          </Link>{" "}
          {execution.data?.key != null && <Shown text={execution.data.key} mono />} <span class="dim">{status.data === undefined || status.data.state === "open" ? "asks" : "asked"} in</span> <Shown text={step_key} mono />
        </span>
        {status.data?.state === "open" && (
          <button type="button" class="btn sm ghost" onClick={() => change({ link: "1" })}>
            <Link2 size={14} aria-hidden="true" /> Create link
          </button>
        )}
        <Link href={`/executions/${execution_id}`} class="btn sm ghost">
          <SquareArrowOutUpRight size={14} aria-hidden="true" /> Open execution <Key keys="o" />
        </Link>
      </div>
      <Loaded of={status}>
        {(found) => {
          const form = formOf(of, found);
          return (
            <>
              <div class="col gap4">
                <h2>
                  <Shown text={form.title} />
                </h2>
                {form.description !== null && (
                  <p class="dim valtext">
                    <Shown text={form.description} />
                  </p>
                )}
                <p class="dim3">
                  {found.asked_at != null && (
                    <>
                      Asked <Time at={found.asked_at} />
                    </>
                  )}
                  {found.state === "open" && found.expires_at != null && <span class={`left-${urgency(found.expires_at, now()) ?? "no"}`}> · {timeLeft(found.expires_at)}</span>}
                </p>
              </div>
              {form.context.length > 0 && (
                <div class="box">
                  <Pairs of={form.context} />
                </div>
              )}
              <Answering of={of} status={found} onAnswered={onAnswered} />
              {params.get("link") !== null && <LinkDialog of={of} onClose={() => change({ link: null })} onMade={setMade} />}
              {made !== null && <Made link={made} onClose={() => setMade(null)} />}
            </>
          );
        }}
      </Loaded>
      <SoFar execution={execution_id} step={step_key} />
    </div>
  );
}

const CHAIN_MAX = 10;

/** The newest steps before the question. */
function SoFar({ execution, step }: { execution: string; step: string }) {
  const found = useGet("/api/v1/executions/{execution_id}/timeline", { params: { path: { execution_id: execution } } });
  const spans = (found.data?.spans ?? []).filter((span) => ["step", "child", "answer", "event"].includes(span.kind) && span.quiet !== true);
  if (spans.length === 0) return null;
  return (
    <section class="col gap6" aria-label="Progress so far">
      <h3 class="dim3">Progress so far</h3>
      <ol class="chain">
        {spans.length > CHAIN_MAX && <li class="dim">{spans.length - CHAIN_MAX} earlier</li>}
        {spans.slice(-CHAIN_MAX).map((span, at) => (
          <li key={`${span.kind} ${span.key}`}>
            {(at > 0 || spans.length > CHAIN_MAX) && <ChevronRight size={13} class="dim3" aria-hidden="true" />}
            <span class="chip">
              <span class={`ph p-${span.state}`} title={span.state}>
                <PhaseIcon phase={span.state} />
              </span>
              <b>
                <Shown text={span.key === step ? "This question" : brief(span.label ?? span.name ?? span.key, 40)} />
              </b>
              {span.key === step && span.state === "waiting" ? "waits" : span.started_at != null && span.ended_at != null && duration(Date.parse(span.ended_at) - Date.parse(span.started_at))}
              {(span.tries?.length ?? 0) > 1 && `, ${span.tries!.length} tries`}
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
