import { useEffect, useReducer, useRef } from "preact/hooks";
import { projectHeaders } from "../../api/client";
import { heard, type Live, type StreamItem } from "../../model/conversation";
import { EventReader } from "../../model/sse";

const PAUSE_MS = 1_000;
const PAUSE_MAX_MS = 10_000;

/** The words that an execution and all below it stream, drawn at most once a frame. */
export function useStream(execution: string, open: boolean, onItem?: (item: StreamItem) => void): ReadonlyMap<string, Live> {
  const live = useRef(new Map<string, Live>());
  const [, draw] = useReducer<number, void>((n) => n + 1, 0);
  const latest = useRef(onItem);
  latest.current = onItem;
  useEffect(() => {
    if (!open) return;
    live.current = new Map();
    const stop = new AbortController();
    let frame = 0;
    void follow(execution, stop.signal, (item) => {
      heard(live.current, item);
      if (frame === 0)
        frame = requestAnimationFrame(() => {
          frame = 0;
          draw();
        });
      latest.current?.(item);
    });
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
    };
  }, [execution, open]);
  return live.current;
}

async function follow(execution: string, signal: AbortSignal, onItem: (item: StreamItem) => void): Promise<void> {
  let last: string | null = null;
  for (let pause = PAUSE_MS; !signal.aborted; pause = Math.min(pause * 2, PAUSE_MAX_MS)) {
    try {
      const headers: Record<string, string> = { ...projectHeaders(), Accept: "text/event-stream" };
      if (last !== null) headers["Last-Event-ID"] = last;
      const reply = await fetch(`/api/v1/executions/${execution}/stream`, { headers, signal });
      if (reply.status >= 400 && reply.status < 500 && reply.status !== 429) return;
      if (reply.ok) {
        const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
        const events = new EventReader();
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          pause = PAUSE_MS;
          for (const one of events.read(value)) {
            if (one.id !== null) last = one.id;
            if (one.event === "end") return;
            if (one.event === "item") onItem(JSON.parse(one.data) as StreamItem);
          }
        }
      }
    } catch {
      if (signal.aborted) return;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
