import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useInfiniteQuery, useQueryClient, type InfiniteData } from "@tanstack/preact-query";
import { currentProject, get, type Schemas } from "../../api/client";
import { reopen, useLive } from "../../api/live";
import { refresh, useGet } from "../../api/query";
import type { Filters } from "../../model/filters";

export type Summary = Schemas["ExecutionSummary"];
type Page = Schemas["SummariesResponse"];
type Pages = InfiniteData<Page, string | null>;

export const PAGE_ROWS = 100;
export type Sort = "created" | "ended";
/** The feed knows the newest executions. What ended last is asked for this often. */
const ENDED_MS = 5_000;
/** The rows that the feed follows at most. */
const FOLLOWED_ROWS = 500;
/** Counts and the histogram follow the changes of the list this late: each costs a search. */
const NUMBERS_MS = 5_000;
const NUMBERS = ["count", "histogram", "errors"].map((part) => `/api/v1/executions/${part}`);
const NOTHING_NEW = { count: 0, failed: 0, at_least: false };

function mapRows(pages: Pages | undefined, change: (row: Summary) => Summary): Pages | undefined {
  return pages && { ...pages, pages: pages.pages.map((page) => ({ ...page, executions: page.executions.map(change) })) };
}

/** The rows of the list. Changes come in place; new rows wait for `load`, and rows that no longer match fade until then. */
export function useExecutions(filters: Filters, sort: Sort) {
  const client = useQueryClient();
  const queryKey = useMemo(() => ["/api/v1/executions/summaries", currentProject(), filters, sort, "pages"], [filters, sort]);
  const [fresh, setFresh] = useState(NOTHING_NEW);
  const [gone, setGone] = useState<ReadonlySet<string>>(new Set());

  const list = useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam, signal }) => get("/api/v1/executions/summaries", { params: { query: { ...filters, ...(sort === "ended" && { sort }), limit: PAGE_ROWS, cursor: pageParam ?? undefined } as never } }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page: Page) => page.next_cursor ?? null,
    staleTime: 60_000, // the feed keeps it up to date
    refetchOnWindowFocus: false,
  });

  /** The new rows on the feed's page. The feed counts only what came after its page. */
  const above = useRef(NOTHING_NEW);

  // Rows that are asked for again may be new ones: the feed counts from them on.
  const refetching = list.isRefetching && !list.isPlaceholderData;
  const wasRefetching = useRef(false);
  useEffect(() => {
    if (wasRefetching.current && !refetching && !list.isError) reopen();
    wasRefetching.current = refetching;
  }, [refetching]);

  const forget = () => {
    above.current = NOTHING_NEW;
    setFresh(NOTHING_NEW);
    setGone(new Set());
  };
  useEffect(forget, [queryKey]);

  /** The newest rows, as they are now. */
  const sawTop = (top: Page) => {
    if (list.data === undefined) return;
    const known = list.data.pages.flatMap((page) => page.executions);
    const ids = new Set(known.map((row) => row.id));
    const first = top.executions.findIndex((row) => ids.has(row.id));
    const added = top.executions.slice(0, first < 0 ? undefined : first);
    above.current = { count: added.length, failed: added.filter((row) => row.phase === "failed").length, at_least: first < 0 && added.length >= PAGE_ROWS };
    setFresh(above.current);
    const rows = new Set(top.executions.map((row) => row.id));
    const oldest = top.next_cursor === null ? "" : sort === "created" ? top.executions.at(-1)?.created_at : undefined;
    if (oldest !== undefined) setGone(new Set(known.filter((row) => !rows.has(row.id) && row.created_at > oldest).map((row) => row.id)));
  };
  const top = useGet(
    "/api/v1/executions/summaries",
    { params: { query: { ...filters, sort, limit: PAGE_ROWS } as never } },
    { enabled: sort === "ended" && list.data !== undefined, every: ENDED_MS },
  );
  useEffect(() => {
    if (sort !== "ended" || top.data === undefined || top.isPlaceholderData) return;
    sawTop(top.data);
    refresh(...NUMBERS);
  }, [sort, top.data, top.isPlaceholderData]);

  const heard = useRef<unknown>(null);
  const numbers = useRef<ReturnType<typeof setTimeout> | null>(null);
  useLive(
    "list",
    (event) => {
      const isFirst = heard.current !== queryKey; // of what the page has just asked for
      heard.current = queryKey;
      if (!isFirst) {
        numbers.current ??= setTimeout(() => {
          numbers.current = null;
          refresh(...NUMBERS);
        }, NUMBERS_MS);
      }
      if (event.event === "new") {
        const { count, failed, at_least } = above.current;
        setFresh({ count: count + event.data.count, failed: failed + event.data.failed, at_least: at_least || event.data.at_least });
      }
      else if (event.event === "gone") setGone((known) => new Set([...known, ...event.data.ids]));
      else if (event.event === "changed" || event.event === "page") {
        const rows = new Map(event.data.executions.map((one) => [one.id, one]));
        client.setQueryData<Pages>(queryKey, (pages) => mapRows(pages, (row) => rows.get(row.id) ?? row));
        if (event.event === "changed") setGone((known) => new Set([...known].filter((id) => !rows.has(id))));
        else sawTop(event.data);
      }
    },
    list.data === undefined || sort === "ended" ? null : new URLSearchParams({ ...filters, limit: String(Math.min(list.data.pages.length * PAGE_ROWS, FOLLOWED_ROWS)) }).toString(),
  );

  const rows = useMemo(() => list.data?.pages.flatMap((page) => page.executions) ?? [], [list.data]);
  const last = list.data?.pages.at(-1);
  return {
    list,
    rows,
    fresh,
    gone,
    searchedTo: last?.searched_to ?? null,
    searchableFrom: last?.searchable_from ?? null,
    /** Show what is new. */
    load: () => {
      forget();
      client.setQueryData<Pages>(queryKey, (pages) => pages && { pages: pages.pages.slice(0, 1), pageParams: pages.pageParams.slice(0, 1) });
      void list.refetch();
    },
  };
}
