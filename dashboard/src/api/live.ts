import { useEffect, useRef, useState } from "preact/hooks";
import type { ServerEvent } from "../model/sse";
import { now, projectHeaders, type Schemas } from "./client";
import { isAway } from "./errors";
import { refresh } from "./query";
import { follow, type Cursor } from "./sse";

type Summary = Schemas["ExecutionSummary"];

/** What `GET /api/v1/live` sends, by the name of the event. */
export interface LiveEvents {
  page: { executions: Summary[]; next_cursor: string | null };
  changed: { executions: Summary[] };
  gone: { ids: string[] };
  new: { count: number; failed: number; at_least: boolean };
  counts: { phases: Record<string, number>; paused: number; questions: number; at_least: boolean };
  inbox: { questions: number; at_least: boolean; newest_at: string | null };
  queues: { queues: Schemas["QueueState"][] };
}

export type LiveEvent = { [Name in keyof LiveEvents]: { event: Name; data: LiveEvents[Name] } }[keyof LiveEvents];
type Topic = "list" | "counts" | "inbox" | "queues";
const TOPIC: Record<keyof LiveEvents, Topic> = {
  page: "list",
  changed: "list",
  gone: "list",
  new: "list",
  counts: "counts",
  inbox: "inbox",
  queues: "queues",
};

interface Watcher {
  topic: Topic;
  /** Filters of the list and its `limit`. */
  query: string;
  hear: (event: LiveEvent) => void;
}

/** Whether the server answers. `heard_at` is when it last did. */
export type Connection = { away: false } | { away: true; retryAt: number; heardAt: number | null };

const watchers = new Set<Watcher>();
const listeners = new Set<(connection: Connection) => void>();
let connection: Connection = { away: false };
let running: AbortController | null = null;
let wanted = "";
let anew = () => {};
let heardAt: number | null = null;
let timer = 0;

function query(): string {
  const list = [...watchers].findLast((one) => one.topic === "list");
  const topics = [...new Set([...watchers].filter((one) => one.topic !== "list" || one === list).map((one) => one.topic))].sort();
  if (topics.length === 0) return "";
  return `watch=${topics.join(",")}${list === undefined || list.query === "" ? "" : `&${list.query}`}`;
}

/** One stream for all watchers of the tab. Called after a change of these, once for all that a page mounts. */
function settle(): void {
  clearTimeout(timer);
  timer = window.setTimeout(() => {
    const next = query();
    if (next === wanted) return;
    wanted = next;
    running?.abort();
    running = null;
    if (wanted !== "") share(wanted, (running = new AbortController()).signal);
  }, 20);
}

function become(next: Connection): void {
  if (!next.away && !connection.away) return;
  if (!next.away) refresh(); // what has no part in the feed
  connection = next;
  for (const listener of listeners) listener(next);
}

/** What tabs tell each other. `anew`: the tab that reads the stream begins it again, for a tab that has just come. */
type Told = { sent: ServerEvent } | { connection: Connection } | { anew: true };

/** Tabs that watch the same share one stream: one of them holds the lock and reads, the others hear it from that tab. */
function share(asked: string, signal: AbortSignal): void {
  const name = `perdure ${projectHeaders()["X-Project-ID"] ?? ""} ${asked}`;
  const channel = "locks" in navigator ? new BroadcastChannel(name) : null; // without TLS a browser has no locks
  const cursor: Cursor = { id: null };
  const tell = (told: Told) => channel?.postMessage(told);
  const change = (next: Connection) => {
    if (next.away || connection.away) tell({ connection: next });
    become(next);
  };
  anew = () => {
    cursor.id = null;
    if (cursor.cut === undefined) tell({ anew: true });
    else cursor.cut();
  };
  channel?.addEventListener("message", ({ data: told }: MessageEvent<Told>) => {
    if ("sent" in told) {
      cursor.id = told.sent.id ?? cursor.id;
      become({ away: false });
      hear(told.sent);
    } else if ("connection" in told) become(told.connection);
    else if (cursor.cut !== undefined) anew();
  });
  signal.addEventListener("abort", () => channel?.close());
  tell({ anew: true });
  const onEvent = (sent: ServerEvent) => {
    tell({ sent });
    hear(sent);
  };
  void follow(`/api/v1/live?${asked}`, onEvent, {
    signal,
    cursor,
    patient: true,
    onHeard: () => {
      heardAt = now();
      change({ away: false });
    },
    onFailed: (error, pause) => {
      if (isAway(error) || error instanceof DOMException) change({ away: true, retryAt: now() + pause, heardAt });
    },
    around: channel === null ? undefined : async (connect) => void (await navigator.locks.request(name, { signal }, connect)),
  }).catch(() => {}); // aborted while it waited for the lock
}

function hear(sent: ServerEvent): void {
  if (!(sent.event in TOPIC)) return;
  const event = { event: sent.event, data: JSON.parse(sent.data) } as LiveEvent;
  for (const one of watchers) if (one.topic === TOPIC[event.event]) one.hear(event);
}

/** Begin anew: the next events say everything, as for a page that was just opened. */
export function reopen(): void {
  anew();
}

/** Hear of changes for as long as the part is shown. `query`: the filters of a list; null: not yet. */
export function useLive(topic: Topic, hear: (event: LiveEvent) => void, query: string | null = ""): void {
  const latest = useRef(hear);
  latest.current = hear;
  useEffect(() => {
    if (query === null) return;
    const watcher: Watcher = { topic, query, hear: (event) => latest.current(event) };
    watchers.add(watcher);
    settle();
    return () => {
      watchers.delete(watcher);
      settle();
    };
  }, [topic, query]);
}

/** Ask again for what is below the given paths when the list with these filters (and its `limit`) changes. */
export function useListChanges(query: string | null, ...prefixes: string[]): void {
  const isOpen = useRef(false);
  useLive(
    "list",
    ({ event }) => {
      if (event === "new") reopen(); // so that the new rows are followed, too
      else if (isOpen.current) refresh(...prefixes);
      isOpen.current = true;
    },
    query,
  );
}

export function useConnection(): Connection {
  const [shown, setShown] = useState(connection);
  useEffect(() => {
    listeners.add(setShown);
    return () => void listeners.delete(setShown);
  }, []);
  return shown;
}
