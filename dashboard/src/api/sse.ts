import { EventReader, type ServerEvent } from "../model/sse";
import { projectHeaders } from "./client";

/**
 * Reads a stream of server-sent events until it ends for good, and connects again with the last id after each break.
 * `EventSource` cannot send the header that names a user's project.
 */
export async function follow(path: string, onEvent: (sent: ServerEvent) => void, signal: AbortSignal, lastId = ""): Promise<void> {
  let wait = 1_000;
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = { ...projectHeaders(), Accept: "text/event-stream" };
      if (lastId !== "") headers["Last-Event-ID"] = lastId;
      const reply = await fetch(path, { headers, signal });
      if (reply.status >= 400 && reply.status < 500 && reply.status !== 429) return;
      if (!reply.ok || reply.body === null) throw new Error(`The server answered ${reply.status}.`);
      wait = 1_000;
      const events = new EventReader();
      const pieces = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece = await pieces.read(); !piece.done; piece = await pieces.read()) {
        for (const sent of events.read(piece.value)) {
          lastId = sent.id ?? lastId;
          onEvent(sent);
        }
      }
    } catch {
      if (signal.aborted) return;
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, wait);
      signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
    wait = Math.min(2 * wait, 10_000);
  }
}
