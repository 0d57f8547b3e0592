import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { useQuery } from "@tanstack/preact-query";
import { currentProject, projectHeaders } from "../../api/client";
import { errorOf, reach } from "../../api/errors";
import { useGet } from "../../api/query";
import { rawAt } from "../../model/json";
import type { Row } from "../../model/timeline";
import { clock, duration } from "../../model/time";
import { bytes, count, visible } from "../../model/words";
import { Json } from "../../parts/json";
import { Phase } from "../../parts/phase";
import { Empty, Loaded, Problem } from "../../parts/state";
import { Time } from "../../parts/text";
import { useWindow } from "../../parts/window";
import { Failure, Lines, LogLines, LogsNear, RowValue, useLogs } from "./parts";
import type { Execution } from "./actions";

const PAGE = 200;
const LINE = 28;

interface Raw {
  seq: number;
  at: string;
  kind: string;
  key: string | null;
  name: string | null;
  fingerprint: string | null;
  ok: boolean;
  tries: number;
  value: string;
}

/** The raw rows of the journal. Pages of it are loaded when they come into view. */
export function Journal({ execution, lastSeq, at, onAt }: { execution: string; lastSeq: number; at: number | null; onAt: (seq: number | null) => void }) {
  const scroller = useRef<HTMLDivElement>(null);
  const shown = useWindow(scroller, lastSeq, LINE, { above: LINE });
  const [open, setOpen] = useState<number | null>(null);
  const first = Math.floor(shown.first / PAGE);
  const pages = [useJournalPage(execution, first, lastSeq), useJournalPage(execution, first + 1, lastSeq)];
  useEffect(() => {
    if (at !== null) scroller.current?.scrollTo({ top: Math.max(0, (at - 4) * LINE) });
  }, []);
  const seqs = Array.from({ length: shown.last - shown.first }, (_, index) => shown.first + index + 1);
  const error = pages.find((page) => page.error !== null)?.error;
  return (
    <>
      {error != null && <Problem error={error} />}
      <div class="vtable" ref={scroller} role="table" aria-label="Journal" aria-rowcount={lastSeq} tabIndex={0}>
        <div role="rowgroup">
          <div class="vt head" role="row">
            {["Row", "At", "Kind", "Key or name", "Tries", "Fingerprint", "Value"].map((word) => (
              <span key={word} role="columnheader">
                {word}
              </span>
            ))}
          </div>
        </div>
        <div role="rowgroup" style={{ height: `${shown.total}px` }}>
          <div style={{ transform: `translateY(${shown.first * LINE}px)` }} role="presentation">
            {seqs.map((seq) => {
              const raw = pages[Math.floor((seq - 1) / PAGE) - first]?.data?.get(seq);
              return (
                <div key={seq} class={seq === at ? "vt cur" : "vt"} role="row" aria-rowindex={seq} onDblClick={() => setOpen(seq)}>
                  <span role="cell">
                    <button type="button" class="btn ghost sm num" title="Show the state at this row" onClick={() => onAt(seq)}>
                      {count(seq)}
                    </button>
                  </span>
                  <span role="cell" class="num dim" title={raw?.at}>
                    {raw === undefined ? "" : clock(raw.at, true)}
                  </span>
                  <span role="cell" class={raw?.ok === false || raw?.kind === "lost" || raw?.kind === "failed" ? "bad" : ""}>
                    {raw?.kind ?? ""}
                  </span>
                  <span role="cell" title={visible(raw?.key ?? raw?.name ?? "")}>
                    {visible(raw?.key ?? raw?.name ?? "")}
                  </span>
                  <span role="cell" class="num dim">
                    {raw === undefined || raw.tries === 0 ? "" : raw.tries}
                  </span>
                  <span role="cell">
                    <code class="dim">{visible(raw?.fingerprint ?? "")}</code>
                  </span>
                  <span role="cell">
                    {raw !== undefined && raw.value !== "null" && (
                      <button type="button" class="btn ghost sm" aria-expanded={open === seq} title={bytes(raw.value.length)} onClick={() => setOpen(open === seq ? null : seq)}>
                        <code class="v">{visible(raw.value.slice(0, 120))}</code>
                      </button>
                    )}
                  </span>
                </div>
              );
            })}
          </div>
        </div>
      </div>
      {open !== null && (
        <div class="wfbelow">
          <div class="row">
            <h3 class="grow">Value of row {count(open)}</h3>
            <button type="button" class="btn sm" onClick={() => setOpen(null)}>
              Close
            </button>
          </div>
          <RowValue execution={execution} seq={open} what="value" />
        </div>
      )}
    </>
  );
}

function useJournalPage(execution: string, page: number, lastSeq: number) {
  const after = page * PAGE;
  const full = lastSeq >= after + PAGE;
  return useQuery<Map<number, Raw>, Error>({
    queryKey: ["journal page", currentProject(), execution, page, full ? "full" : lastSeq],
    enabled: after < lastSeq,
    staleTime: full ? Infinity : 1_000,
    queryFn: async ({ signal }) => {
      const rows = new Map<number, Raw>();
      let from = after;
      for (;;) {
        const reply = await reach(`/api/v1/executions/${execution}/steps?after=${from}&limit=${after + PAGE - from}`, { headers: projectHeaders(), signal });
        if (!reply.ok) throw errorOf(reply.status, await reply.json().catch(() => null));
        const text = await reply.text();
        const answer = JSON.parse(text) as { steps: Raw[]; has_more: boolean };
        for (const [index, row] of answer.steps.entries()) {
          // Values are kept as text: their numbers stay exact.
          const raw = JSON.stringify(row.value);
          rows.set(row.seq, { ...row, value: raw.length < 400 && /\d{16}/.test(raw) ? (rawAt(text, ["steps", index, "value"]) ?? raw) : raw.slice(0, 400) });
        }
        const last = answer.steps.at(-1)?.seq;
        if (!answer.has_more || last === undefined || last >= after + PAGE) return rows;
        from = last;
      }
    },
  });
}

export function Logs({ execution, live }: { execution: string; live: boolean }) {
  const logs = useLogs(execution, live);
  const [query, setQuery] = useState("");
  return (
    <div class="exscroll" tabIndex={0} role="group" aria-label="Logs">
      <Loaded of={logs}>
        {(data) => {
          const found = query === "" ? data.logs : data.logs.filter((log) => log.text.toLowerCase().includes(query.toLowerCase()));
          if (data.logs.length === 0) {
            return (
              <Empty title="No log lines" code={'ctx.log("charged the card")'}>
                Lines that the code logs appear here, live.
              </Empty>
            );
          }
          return (
            <>
              <input class="input" type="search" placeholder="Find in the log" aria-label="Find in the log" value={query} onInput={(event) => setQuery(event.currentTarget.value)} />
              <LogLines logs={found} />
              {data.has_more && (
                <p class="dim3">
                  These are the first 1,000 lines. <code>perdure logs {execution}</code> shows them all.
                </p>
              )}
            </>
          );
        }}
      </Loaded>
    </div>
  );
}

export function Values({ execution, text, live }: { execution: Execution; text: string; live: boolean }) {
  return (
    <div class="exscroll">
      <section class="sect">
        <h2>Input</h2>
        <Json text={rawAt(text, ["payload"]) ?? "null"} what="input" />
      </section>
      {execution.error != null ? (
        <section class="sect">
          <h2>Error</h2>
          <div class="box err">
            <Lines text={execution.error} />
          </div>
        </section>
      ) : (
        <section class="sect">
          <h2>Result</h2>
          {live ? <p class="dim">It has not ended yet.</p> : <Json text={rawAt(text, ["result"]) ?? "null"} what="result" />}
        </section>
      )}
    </div>
  );
}

export function Children({ execution }: { execution: string }) {
  const list = useGet("/api/v1/executions/summaries", { params: { query: { parent_execution_id: execution, limit: 200 } } }, { every: 5_000 });
  return (
    <div class="exscroll" style={{ padding: 0 }}>
      <Loaded of={list}>
        {(data) =>
          data.executions.length === 0 ? (
            <Empty title="No children" code={"await ctx.start_child(other, input)"}>
              Executions that this one starts appear here.
            </Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Phase</th>
                  <th>Workflow and key</th>
                  <th>Details</th>
                  <th class="r">Created</th>
                  <th class="r">Duration</th>
                </tr>
              </thead>
              <tbody>
                {data.executions.map((one) => (
                  <tr key={one.id}>
                    <td>
                      <Phase phase={one.phase} />
                    </td>
                    <td>
                      <Link href={`/executions/${one.id}`}>{visible(one.workflow_id)}</Link> {one.key != null && <code class="dim">{visible(one.key)}</code>}
                    </td>
                    <td class="dim trunc" style={{ maxWidth: "420px" }}>
                      {visible(one.details ?? "")}
                    </td>
                    <td class="r">
                      <Time at={one.created_at} />
                    </td>
                    <td class="r num">{one.took_ms == null ? "" : duration(one.took_ms)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
      {list.data?.next_cursor != null && (
        <p class="pad">
          <Link href={`/executions?parent_execution_id=${execution}`} class="accent">
            All children
          </Link>
        </p>
      )}
    </div>
  );
}

/** Below the timeline of a failed execution: the error that ended it, and what was logged around it. */
export function Failed({ row, error }: { row: Row; error: string | null }) {
  const failed = useMemo(() => (row.span.tries ?? []).filter((one) => !one.ok), [row]);
  const [chosen, setChosen] = useState<number | null>(null);
  const one = failed[chosen ?? failed.length - 1];
  return (
    <div class="wfbelow">
      <div class="row">
        <h2 class="grow trunc">
          Why <code>{visible(row.span.key)}</code> failed
        </h2>
        {failed.length > 1 && (
          <span class="seg" role="group" aria-label="Try">
            {failed.slice(-6).map((other) => (
              <button key={other.seq} type="button" class={other === one ? "on" : ""} aria-pressed={other === one} onClick={() => setChosen(failed.indexOf(other))}>
                Try {other.n}
              </button>
            ))}
          </span>
        )}
      </div>
      {one !== undefined ? <Failure execution={row.execution} seq={one.seq} /> : error !== null && <div class="box err"><Lines text={error} /></div>}
      <LogsNear execution={row.execution} from={row.from} to={row.to} />
    </div>
  );
}
