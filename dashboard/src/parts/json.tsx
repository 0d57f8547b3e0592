import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Braces, Copy } from "lucide-preact";
import { isContainer, keyText, linesOf, moreAfter, nodeAt, openAtFirst, parentsOf, pathOf, pretty, readString, treeOf, type Tree } from "../model/json";
import { bytes, count, counted, visible } from "../model/words";
import { CopyButton } from "./text";
import { copy } from "./toast";
import { useWindow } from "./window";

const LINE = 19;
const ASK_ABOVE = 256 * 1_024;
const LONGEST = 2_000;

/** A JSON value as it was sent: large numbers stay exact, nothing in it is fetched or run. */
export function Json({ text, what, tall }: { text: string; what: string; tall?: boolean }) {
  const [asked, setAsked] = useState(false);
  if (text.length > ASK_ABOVE && !asked) {
    return (
      <div class="box row">
        <span class="grow dim">
          {text[0] === "{" ? "An object" : text[0] === "[" ? "A list" : "A value"} of {bytes(text.length)}
        </span>
        <CopyButton text={text} what={what} />
        <button type="button" class="btn sm" onClick={() => setAsked(true)}>
          Show it
        </button>
      </div>
    );
  }
  return <Viewer text={text} what={what} tall={tall === true} />;
}

function Viewer({ text, what, tall }: { text: string; what: string; tall: boolean }) {
  const tree = useMemo(() => treeOf(text), [text]);
  const first = useMemo(() => openAtFirst(tree), [tree]);
  const [open, setOpen] = useState(first);
  const [raw, setRaw] = useState(false);
  const [query, setQuery] = useState("");
  const [hit, setHit] = useState(-1);
  const [whole, setWhole] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => setOpen(first), [first]);
  const lines = useMemo(() => linesOf(tree, open), [tree, open]);
  const scroller = useRef<HTMLDivElement>(null);
  const shown = useWindow(scroller, lines.length, LINE, { more: 6 });
  const rows = Array.from(lines.subarray(shown.first, shown.last));

  const toggle = (node: number) => {
    const next = new Set(open);
    if (!next.delete(node)) next.add(node);
    setOpen(next);
  };
  const seek = (from: number) => {
    if (query === "") return;
    const lower = text.toLowerCase();
    const wanted = query.toLowerCase();
    let at = lower.indexOf(wanted, from);
    if (at < 0) at = lower.indexOf(wanted);
    setHit(at < 0 ? -1 : at);
    if (at < 0) return;
    const node = nodeAt(tree, at);
    const next = new Set([...open, ...parentsOf(tree, node)]);
    setOpen(next);
    const line = linesOf(tree, next).indexOf(node);
    requestAnimationFrame(() => scroller.current?.scrollTo({ top: Math.max(0, line * LINE - 120) }));
  };
  const hitNode = hit < 0 ? -1 : nodeAt(tree, hit);
  const height = tall ? undefined : `${Math.min(Math.max(lines.length, 1) * LINE + 18, 420)}px`;

  return (
    <div class={tall ? "jv grow" : "jv"}>
      <div class="jvtools">
        <span class="grow">
          {bytes(new Blob([text]).size)}
          {isContainer(tree, 0) && ` · ${text[tree.start[0]!] === "[" ? counted(tree.size[0]!, "item") : counted(tree.size[0]!, "field")}`}
        </span>
        {lines.length > 12 || tree.count > 30 ? (
          <input
            class="input"
            type="search"
            placeholder="Find"
            aria-label={`Find in the ${what}`}
            value={query}
            onInput={(event) => (setQuery(event.currentTarget.value), setHit(-1))}
            onKeyDown={(event) => event.key === "Enter" && seek(hit < 0 ? 0 : hit + 1)}
          />
        ) : null}
        {query !== "" && hit < 0 && <span>press ↵</span>}
        <button type="button" class="btn ghost sm" aria-pressed={raw} onClick={() => setRaw(!raw)}>
          Raw
        </button>
        <CopyButton text={text.length > ASK_ABOVE ? text : pretty(text)} what={what} />
      </div>
      {raw ? (
        <pre class="box json trace">{visible(text.slice(0, 1_000_000))}</pre>
      ) : (
        <div class="box json jvbox" ref={scroller} style={{ height }} tabIndex={0} role="group" aria-label={what}>
          <div class="jvbody" style={{ height: `${shown.total}px` }}>
            <div class="jvlines" style={{ transform: `translateY(${shown.first * LINE}px)` }}>
              {rows.map((line, at) => {
                const node = line < 0 ? -1 - line : line;
                return (
                  <Line
                    key={line}
                    tree={tree}
                    node={node}
                    closing={line < 0}
                    number={shown.first + at + 1}
                    open={open.has(node)}
                    hit={node === hitNode && line >= 0}
                    whole={whole.has(node)}
                    onToggle={() => toggle(node)}
                    onWhole={() => setWhole(new Set([...whole, node]))}
                  />
                );
              })}
            </div>
          </div>
        </div>
      )}
    </div>
  );
}

interface LineProps {
  tree: Tree;
  node: number;
  closing: boolean;
  number: number;
  open: boolean;
  hit: boolean;
  whole: boolean;
  onToggle: () => void;
  onWhole: () => void;
}

function Line({ tree, node, closing, number, open, hit, whole, onToggle, onWhole }: LineProps) {
  const { text } = tree;
  const pad = "  ".repeat(tree.depth[node]!);
  const comma = moreAfter(tree, node) ? "," : "";
  const opening = text[tree.start[node]!]!;
  const end = text[tree.end[node]! - 1]!;
  const folds = isContainer(tree, node);
  if (closing) {
    return (
      <div class="jl">
        <span class="ln">{number}</span>
        <span>{`${pad}${end}${comma}`}</span>
      </div>
    );
  }
  return (
    <div class={hit ? "jl hit" : "jl"}>
      <span class="ln">{number}</span>
      {folds && (
        <button type="button" class="t" aria-expanded={open} aria-label={open ? "Fold" : "Unfold"} onClick={onToggle}>
          {open ? "▾" : "▸"}
        </button>
      )}
      <span>
        {pad}
        {tree.key[node]! >= 0 && <span class="k">{visible(`"${keyText(tree, node)}"`)}: </span>}
        {folds ? (
          open ? (
            opening
          ) : (
            <>
              {opening}
              <span class="g"> {opening === "[" ? counted(tree.size[node]!, "item") : counted(tree.size[node]!, "field")} </span>
              {end}
              {comma}
            </>
          )
        ) : (
          <>
            <Scalar raw={text.slice(tree.start[node]!, tree.end[node]!)} whole={whole} onWhole={onWhole} />
            {comma}
          </>
        )}
      </span>
      <span class="acts">
        <button type="button" class="copy" title={`Copy the path ${visible(pathOf(tree, node))}`} aria-label="Copy the path" onClick={() => copy(pathOf(tree, node), "path")}>
          <Braces size={12} aria-hidden="true" />
        </button>
        <button type="button" class="copy" title="Copy the value" aria-label="Copy the value" onClick={() => copy(valueText(text.slice(tree.start[node]!, tree.end[node]!)), "value")}>
          <Copy size={12} aria-hidden="true" />
        </button>
      </span>
    </div>
  );
}

/** A string is copied as its characters, everything else as JSON. */
function valueText(raw: string): string {
  return raw.startsWith('"') ? readString(raw) : raw;
}

function Scalar({ raw, whole, onWhole }: { raw: string; whole: boolean; onWhole: () => void }) {
  const kind = raw.startsWith('"') ? "s" : /^[-\d]/.test(raw) ? "n" : "b";
  if (raw.length <= LONGEST || whole) return <span class={kind}>{visible(kind === "s" ? `"${escaped(readString(raw))}"` : raw)}</span>;
  return (
    <>
      <span class={kind}>{visible(escaped(raw.slice(0, LONGEST)))}</span>
      <button type="button" class="btn ghost sm" onClick={onWhole}>
        {count(raw.length - LONGEST)} characters more
      </button>
    </>
  );
}

/** A string in one line: breaks, tabs and quotation marks as JSON writes them. */
function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t").replaceAll('"', '\\"');
}
