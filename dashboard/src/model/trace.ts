/** The traceback of a failed try. Journals of today have its frames; older ones have it as text. */

export interface Frame {
  file: string;
  line: number;
  name: string;
  source: string[];
  /** Of the user's code, not of a library's. */
  own: boolean;
}

export interface Trace {
  frames: Frame[];
  /** After the frames: the error, and what does not look like a frame. */
  rest: string;
}

const FRAME = /^ {2}File "(.+)", line (\d+)(?:, in (.+))?$/;
const LIBRARY = /site-packages|dist-packages|\/lib\/python3|\\Lib\\|[/\\]perdure[/\\](sdk|agents|engine|wire)[/\\]|<frozen /;

export function traceOf(text: string): Trace | null {
  const frames: Frame[] = [];
  const rest: string[] = [];
  let frame: Frame | null = null;
  for (const line of text.split("\n")) {
    const found = FRAME.exec(line);
    if (found !== null) {
      frame = { file: found[1]!, line: Number(found[2]), name: found[3] ?? "", source: [], own: !LIBRARY.test(found[1]!) };
      frames.push(frame);
    } else if (frame !== null && line.startsWith("    ")) frame.source.push(line.slice(4));
    else {
      frame = null;
      if (line !== "" && !line.startsWith("Traceback (most recent call last)")) rest.push(line);
    }
  }
  return frames.length === 0 ? null : { frames, rest: rest.join("\n") };
}

interface Sent {
  file?: unknown;
  line?: unknown;
  function?: unknown;
  source?: unknown;
  own?: unknown;
}

/** The frames of a recorded error, the innermost last. */
export function framesOf(sent: unknown): Frame[] {
  if (!Array.isArray(sent)) return [];
  return (sent as Sent[]).map((one) => ({
    file: String(one.file ?? ""),
    line: Number(one.line ?? 0),
    name: String(one.function ?? ""),
    source: typeof one.source === "string" && one.source !== "" ? one.source.split("\n") : [],
    own: one.own === true,
  }));
}
