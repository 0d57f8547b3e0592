/** Server-sent events out of the pieces of a response, as the network cuts it. */

export interface ServerEvent {
  event: string;
  id: string | null;
  data: string;
}

export class EventReader {
  #rest = "";
  #event = "";
  #id: string | null = null;
  #data: string[] = [];

  /** The events that this piece completes. */
  read(piece: string): ServerEvent[] {
    const lines = (this.#rest + piece).split(/\r\n|\n/);
    this.#rest = lines.pop()!;
    const found: ServerEvent[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) found.push({ event: this.#event || "message", id: this.#id, data: this.#data.join("\n") });
        this.#event = "";
        this.#data = [];
        continue;
      }
      const at = line.indexOf(":");
      if (at === 0) continue; // a comment keeps the connection open
      const name = at < 0 ? line : line.slice(0, at);
      const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
      if (name === "event") this.#event = value;
      else if (name === "data") this.#data.push(value);
      else if (name === "id") this.#id = value;
    }
    return found;
  }
}
