import { useEffect, useRef, useState } from "preact/hooks";
import { EventReader } from "../model/sse";
import { now, projectHeaders, signedOut, type Schemas } from "./client";
import { errorOf, isAway, reach } from "./errors";
import { queries } from "./query";

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

const PAUSE_MS = 1_000;
const PAUSE_MAX_MS = 10_000;
const SILENCE_MS = 45_000; // the server sends a comment every 15 s
const HIDDEN_MAX = 200;

const watchers = new Set<Watcher>();
const listeners = new Set<(connection: Connection) => void>();
let connection: Connection = { away: false };
let running: AbortController | null = null;
let wanted = "";
let lastId: string | null = null;
let lastIdOf = "";
let heardAt: number | null = null;
let kept: LiveEvent[] = [];
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
    if (wanted !== "") void follow(wanted);
  }, 20);
}

function become(next: Connection): void {
  if (!next.away && !connection.away) return;
  if (!next.away) void queries.invalidateQueries(); // what has no part in the feed
  connection = next;
  for (const listener of listeners) listener(next);
}

async function follow(asked: string): Promise<void> {
  const stop = new AbortController();
  running = stop;
  let pause = PAUSE_MS;
  while (!stop.signal.aborted) {
    try {
      const ended = await listen(asked, stop.signal, () => (pause = PAUSE_MS));
      if (!ended) return;
    } catch (error) {
      if (stop.signal.aborted) return;
      if (!isAway(error) && !(error instanceof DOMException)) pause = PAUSE_MAX_MS; // refused: signed out, or too many streams
      else become({ away: true, retryAt: now() + pause, heardAt });
    }
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(after);
        removeEventListener("online", wake);
        resolve();
      };
      const after = setTimeout(wake, pause + Math.random() * pause * 0.2);
      addEventListener("online", wake);
      stop.signal.addEventListener("abort", wake);
    });
    pause = Math.min(pause * 2, PAUSE_MAX_MS);
  }
}

/** Reads one response to its end. True: connect again. */
async function listen(asked: string, signal: AbortSignal, onOpen: () => void): Promise<boolean> {
  const silent = new AbortController();
  const alarm = () => setTimeout(() => silent.abort(new DOMException("The server is silent.", "TimeoutError")), SILENCE_MS);
  let watch = alarm();
  try {
    const headers: Record<string, string> = { ...projectHeaders(), Accept: "text/event-stream" };
    if (lastId !== null && lastIdOf === asked) headers["Last-Event-ID"] = lastId;
    const reply = await reach(`/api/v1/live?${asked}`, { headers, signal: AbortSignal.any([signal, silent.signal]) });
    if (reply.status === 401) signedOut();
    if (!reply.ok) throw errorOf(reply.status, await reply.json().catch(() => null));
    onOpen();
    become({ away: false });
    const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
    const events = new EventReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return !signal.aborted;
      clearTimeout(watch);
      watch = alarm();
      heardAt = now();
      for (const one of events.read(value)) {
        if (one.id !== null) [lastId, lastIdOf] = [one.id, asked];
        if (one.event in TOPIC) hear({ event: one.event, data: JSON.parse(one.data) } as LiveEvent);
      }
    }
  } finally {
    clearTimeout(watch);
  }
}

/** A hidden tab listens but does not draw. */
function hear(event: LiveEvent): void {
  if (document.hidden) {
    kept.push(event);
    if (kept.length > HIDDEN_MAX) reopen();
    return;
  }
  for (const one of watchers) if (one.topic === TOPIC[event.event]) one.hear(event);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  const missed = kept;
  kept = [];
  missed.forEach(hear);
});

/** Begin anew: the next events say everything, as for a page that was just opened. */
export function reopen(): void {
  kept = [];
  lastId = null;
  wanted = "";
  settle();
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

export function useConnection(): Connection {
  const [shown, setShown] = useState(connection);
  useEffect(() => {
    listeners.add(setShown);
    return () => void listeners.delete(setShown);
  }, []);
  return shown;
}
