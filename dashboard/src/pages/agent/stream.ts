import { useEffect, useReducer, useRef } from "preact/hooks";
import { follow } from "../../api/sse";
import { heard, type Live, type StreamItem } from "../../model/conversation";
import type { ServerEvent } from "../../model/sse";

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
    const onEvent = (sent: ServerEvent) => {
      if (sent.event !== "item") return sent.event !== "end";
      const item = JSON.parse(sent.data) as StreamItem;
      heard(live.current, item);
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw();
      });
      latest.current?.(item);
    };
    void follow(`/api/v1/executions/${execution}/stream`, onEvent, { signal: stop.signal });
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
    };
  }, [execution, open]);
  return live.current;
}
