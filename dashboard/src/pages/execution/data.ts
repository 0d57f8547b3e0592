import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import { currentProject, get, now, projectHeaders, type Schemas } from "../../api/client";
import { errorOf, reach } from "../../api/errors";
import { follow } from "../../api/sse";
import { useLive } from "../../api/live";
import { refresh, useGet } from "../../api/query";
import { useQuery } from "@tanstack/preact-query";
import { emptyJournal, FINAL, merge, type Journal } from "../../model/timeline";

const FIRST_PAGE = 500; // the first rows are drawn while the rest is on its way
const PAGE = 5_000;
/** What changes with the rows and the phase of an execution. */
const FOLLOWED = ["/api/v1/approvals/", ...["why", "pending", "budget", "usage"].map((part) => `/api/v1/executions/{execution_id}/${part}`)];

export interface Timeline {
  journal: Journal;
  /** Grows with each change of `journal`, which is changed in place. */
  version: number;
  error: unknown;
  /** Asks for what is new. */
  look: () => void;
}

async function load(journal: Journal, signal: AbortSignal, limit: number): Promise<void> {
  const page = await get("/api/v1/executions/{execution_id}/timeline", { params: { path: { execution_id: journal.id }, query: { after: journal.lastSeq, limit } } }, signal);
  if (!signal.aborted) merge(journal, page);
}

/** The timeline of an execution: loaded page by page, then kept up to date by its stream of rows. */
export function useTimeline(id: string, live: boolean, running: boolean): Timeline {
  const state = useRef(emptyJournal(id));
  const [version, changed] = useReducer((count: number) => count + 1, 0);
  const [error, setError] = useState<unknown>(null);
  const look = useRef(() => {});
  if (state.current.id !== id) state.current = emptyJournal(id);
  useEffect(() => {
    const journal = state.current;
    const ending = new AbortController();
    let busy = false;
    let again = false;
    let frame = 0;
    const draw = () => (frame ||= requestAnimationFrame(() => ((frame = 0), changed(0))));
    const catchUp = async () => {
      again = true;
      if (busy) return;
      busy = true;
      try {
        while (again && !ending.signal.aborted) {
          again = false;
          do {
            await load(journal, ending.signal, journal.lastSeq === 0 ? FIRST_PAGE : PAGE);
            draw();
          } while (!journal.whole && !ending.signal.aborted);
        }
        setError(null);
      } catch (problem) {
        if (!ending.signal.aborted) setError(problem);
      }
      busy = false;
    };
    let soon = 0;
    let later = 0;
    const heard = () => {
      // All rows are laid out anew: of a long journal less often.
      soon ||= window.setTimeout(() => {
        soon = 0;
        void catchUp();
      }, Math.min(1_000, 250 + journal.spans.size / 8));
      later ||= window.setTimeout(() => {
        later = 0;
        refresh(...FOLLOWED);
      }, 1_000);
    };
    void catchUp().then(() => {
      if (!live || ending.signal.aborted) return;
      // The stream is not read for its values: a row says only that there is more to ask for.
      void follow(`/api/v1/executions/${id}/events`, heard, { signal: ending.signal, cursor: { id: `${journal.lastSeq}-0` } });
    });
    look.current = () => void catchUp();
    return () => {
      ending.abort();
      clearTimeout(soon);
      clearTimeout(later);
      cancelAnimationFrame(frame);
    };
  }, [id, live]);
  // A step that begins has no row: the worker's beat names it. A long step is looked at less and less often.
  const { lastSeq } = state.current;
  useEffect(() => {
    if (!running) return;
    return pausing(() => look.current());
  }, [id, running, lastSeq]);
  return { journal: state.current, version, error, look: () => look.current() };
}

/** Calls `look` after 2 s, and again after ever longer pauses, while the page is visible. */
function pausing(look: () => void): () => void {
  let pause = 2_000;
  const go = () => {
    if (document.visibilityState === "visible") look();
    pause = Math.min(pause * 1.5, 15_000);
    timer = window.setTimeout(go, pause);
  };
  let timer = window.setTimeout(go, pause);
  return () => clearTimeout(timer);
}

/** An open execution as lists show it: its phase and progress. Asks anew for what depends on these when it changes. */
export function useSummary(id: string, open: boolean): Schemas["ExecutionSummary"] | null {
  const [summary, setSummary] = useState<Schemas["ExecutionSummary"] | null>(null);
  const newest = useRef<Schemas["ExecutionSummary"] | null>(null);
  const soon = useRef(0);
  useLive(
    "list",
    ({ event, data }) => {
      const row = event === "page" || event === "changed" ? data.executions.find((one) => one.id === id) : undefined;
      if (row === undefined) return;
      newest.current = row;
      soon.current ||= window.setTimeout(() => {
        soon.current = 0;
        setSummary(newest.current); // an execution of short waits changes its phase often
        if (event === "changed") refresh(...FOLLOWED);
      }, event === "page" ? 0 : 250);
    },
    open ? `q=${id}&limit=1` : null,
  );
  return summary;
}

/** Timelines of children, by id. Those that are open are asked for again after ever longer pauses. */
export function useChildren(ids: readonly string[], open: ReadonlySet<string>): { loaded: ReadonlyMap<string, Journal>; version: number } {
  const loaded = useRef(new Map<string, Journal>());
  const asked = useRef(new Set<string>());
  const [version, changed] = useReducer((count: number) => count + 1, 0);
  const wanted = ids.join(" ");
  useEffect(() => {
    const ending = new AbortController();
    const look = async (id: string) => {
      if (asked.current.has(id)) return;
      asked.current.add(id);
      const journal = loaded.current.get(id) ?? emptyJournal(id);
      try {
        do await load(journal, ending.signal, PAGE);
        while (!journal.whole && !ending.signal.aborted && journal.lastSeq < 20_000);
        loaded.current.set(id, journal);
        changed(0);
      } catch {
        // A child that was deleted, or whose rows cannot be read now, stays folded.
      }
      asked.current.delete(id);
    };
    for (const id of ids) if (!loaded.current.has(id)) void look(id);
    const stop = open.size === 0 ? () => {} : pausing(() => ids.forEach((id) => open.has(id) && void look(id)));
    return () => {
      ending.abort();
      asked.current.clear();
      stop();
    };
  }, [wanted, [...open].join(" ")]);
  return { loaded: loaded.current, version };
}

/** The time, looked at again with each change, and each second while something is open. */
export function useNow(live: boolean, version: number, rows: number): number {
  const every = rows > 5_000 ? 5_000 : 1_000;
  const [second, tick] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    if (!live) return;
    const timer = setInterval(() => document.visibilityState === "visible" && tick(0), every);
    return () => clearInterval(timer);
  }, [live, every]);
  return useMemo(() => now(), [live, version, second]);
}

/** The text of an answer, for values that are shown as they were sent. */
export function useText(path: string | null) {
  return useQuery<string, Error>({
    queryKey: ["text", currentProject(), path],
    enabled: path !== null,
    staleTime: 30_000,
    placeholderData: undefined,
    queryFn: async ({ signal }) => {
      const reply = await reach(path!, { headers: projectHeaders(), signal });
      if (!reply.ok) throw errorOf(reply.status, await reply.json().catch(() => null));
      return reply.text();
    },
  });
}

/** Asked for again with each new row and change of the phase. Places in queues and silent workers change without these. */
export function useWhy(id: string, phase: string | null) {
  const every = phase === null || phase === "waiting" || FINAL.has(phase) ? {} : { every: 10_000 };
  return useGet("/api/v1/executions/{execution_id}/why", { params: { path: { execution_id: id } } }, every);
}
