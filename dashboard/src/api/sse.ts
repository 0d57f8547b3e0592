import { EventReader, type ServerEvent } from "../model/sse";
import { projectHeaders, signedOut } from "./client";
import { errorOf, isAway, reach } from "./errors";

const PAUSE_MS = 1_000;
const PAUSE_MAX_MS = 10_000;
const SILENCE_MS = 45_000; // the server sends a comment every 15 s
/** A tab that is hidden for so long ends its streams: a browser has six connections to a server for all of its tabs. */
const HIDDEN_MS = 30_000;

/** Where a stream is. `cut` ends the connection of the moment; the next one begins after `id`, or anew if that is null. */
export interface Cursor {
  id: string | null;
  cut?: () => void;
}

interface Following {
  signal: AbortSignal;
  cursor?: Cursor;
  /** The server has sent something. */
  onHeard?: () => void;
  /** The connection failed. The next try is `pause` milliseconds later. */
  onFailed?: (error: unknown, pause: number) => void;
  /** Goes on after the server has refused: the reader may sign in, or another stream may end. */
  patient?: boolean;
  /** Runs all connections between the moments at which the tab is hidden. */
  around?: (connect: () => Promise<void>) => Promise<void>;
}

/**
 * Reads a stream of server-sent events until `onEvent` returns false or the server refuses. After each break, and when a
 * hidden tab is shown again, it connects with the last id. (`EventSource` cannot send the header that names a project.)
 */
export async function follow(path: string, onEvent: (sent: ServerEvent) => boolean | void, given: Following): Promise<void> {
  const { signal, cursor = { id: null }, around = (connect) => connect() } = given;
  let over = false;
  const connect = async () => {
    for (let pause = PAUSE_MS; !over && !signal.aborted && !document.hidden; pause = Math.min(pause * 2, PAUSE_MAX_MS)) {
      const ending = new AbortController();
      const end = () => ending.abort();
      cursor.cut = end;
      try {
        over = await read(path, onEvent, { ...given, cursor, signal: AbortSignal.any([signal, ending.signal]) }, () => (pause = PAUSE_MS));
      } catch (error) {
        if (signal.aborted) return;
        if (ending.signal.aborted) continue;
        const refused = !isAway(error) && !(error instanceof DOMException);
        if (refused && !given.patient) return void (over = true);
        if (refused) pause = PAUSE_MAX_MS;
        given.onFailed?.(error, pause);
      }
      if (!over) await rest(pause * (1 + Math.random() * 0.2), signal);
    }
  };
  while (!over && !signal.aborted) {
    await shown(signal);
    await around(connect).finally(() => delete cursor.cut);
  }
}

/** Reads one answer to its end, or until the tab has been hidden for long. True: nothing more comes. */
async function read(path: string, onEvent: (sent: ServerEvent) => boolean | void, { signal, cursor, onHeard }: Following, onOpen: () => void): Promise<boolean> {
  const silent = new AbortController();
  const alarm = () => setTimeout(() => silent.abort(new DOMException("The server is silent.", "TimeoutError")), SILENCE_MS);
  let watch = alarm();
  let away: ReturnType<typeof setTimeout> | undefined;
  const look = () => {
    clearTimeout(away);
    if (document.hidden) away = setTimeout(cursor!.cut!, HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", look);
  look();
  try {
    const headers: Record<string, string> = { ...projectHeaders(), Accept: "text/event-stream" };
    if (cursor!.id !== null) headers["Last-Event-ID"] = cursor!.id;
    const reply = await reach(path, { headers, signal: AbortSignal.any([signal, silent.signal]) });
    if (reply.status === 401) signedOut();
    if (!reply.ok) throw errorOf(reply.status, await reply.json().catch(() => null));
    onOpen();
    onHeard?.();
    const pieces = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
    const events = new EventReader();
    for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) {
      clearTimeout(watch);
      watch = alarm();
      onHeard?.();
      for (const sent of events.read(piece.value)) {
        cursor!.id = sent.id ?? cursor!.id;
        if (onEvent(sent) === false) return true;
      }
    }
    return false;
  } finally {
    clearTimeout(watch);
    clearTimeout(away);
    document.removeEventListener("visibilitychange", look);
  }
}

/** Waits until the tab is shown. */
function shown(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
    document.addEventListener("visibilitychange", () => resolve(), { once: true });
  });
}

/** Waits; not longer than until the network is back. */
function rest(pause: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(after);
      removeEventListener("online", wake);
      resolve();
    };
    const after = setTimeout(wake, pause);
    addEventListener("online", wake);
    signal.addEventListener("abort", wake, { once: true });
  });
}
