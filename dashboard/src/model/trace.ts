/** A Python traceback as text, in frames: those of the user's code are told from those of libraries. */

export interface Frame {
  file: string;
  line: string;
  name: string;
  source: string[];
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
      frame = { file: found[1]!, line: found[2]!, name: found[3] ?? "", source: [], own: !LIBRARY.test(found[1]!) };
      frames.push(frame);
    } else if (frame !== null && line.startsWith("    ")) frame.source.push(line.slice(4));
    else {
      frame = null;
      if (line !== "" && !line.startsWith("Traceback (most recent call last)")) rest.push(line);
    }
  }
  return frames.length === 0 ? null : { frames, rest: rest.join("\n") };
}
