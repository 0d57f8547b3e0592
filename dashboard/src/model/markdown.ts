/** The Markdown that models write, as blocks: paragraphs, headings, lists, code, emphasis. Everything else stays text. */

export type Inline = string | { kind: "strong" | "em" | "code"; text: string };
export type Block = { kind: "p" | "h"; of: Inline[] } | { kind: "ul" | "ol"; items: Inline[][] } | { kind: "code"; text: string };

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|__([^_\n]+)__|(?<![\w*])\*([^*\s][^*\n]*)\*(?![\w*])|(?<![\w_])_([^_\s][^_\n]*)_(?![\w_])/g;

export function inline(text: string): Inline[] {
  const found: Inline[] = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > at) found.push(text.slice(at, match.index));
    const [whole, code, strong, strong2, em, em2] = match;
    found.push(code !== undefined ? { kind: "code", text: code } : strong !== undefined || strong2 !== undefined ? { kind: "strong", text: (strong ?? strong2)! } : { kind: "em", text: (em ?? em2)! });
    at = match.index + whole.length;
  }
  if (at < text.length) found.push(text.slice(at));
  return found;
}

export function blocks(text: string): Block[] {
  const found: Block[] = [];
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  let paragraph: string[] = [];
  const end = () => {
    if (paragraph.length > 0) found.push({ kind: "p", of: inline(paragraph.join("\n")) });
    paragraph = [];
  };
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    const fence = /^\s{0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    const item = /^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/.exec(line);
    const heading = /^#{1,6}\s+(.*)$/.exec(line)?.[1];
    if (fence !== undefined) {
      end();
      const code: string[] = [];
      while (++at < lines.length && !lines[at]!.trimStart().startsWith(fence)) code.push(lines[at]!);
      found.push({ kind: "code", text: code.join("\n") });
    } else if (heading !== undefined) {
      end();
      found.push({ kind: "h", of: inline(heading) });
    } else if (item !== null) {
      end();
      const kind = item[1] === undefined ? "ol" : "ul";
      const last = found.at(-1);
      if (last?.kind === kind && lines[at - 1]?.trim() !== "") (last as { items: Inline[][] }).items.push(inline(item[3]!));
      else found.push({ kind, items: [inline(item[3]!)] });
    } else if (line.trim() === "") end();
    else paragraph.push(line);
  }
  end();
  return found;
}
