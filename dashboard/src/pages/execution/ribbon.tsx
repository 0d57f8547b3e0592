import { useMemo, useRef } from "preact/hooks";
import { ChevronLeft, ChevronRight } from "lucide-preact";
import { worst } from "../../model/timeline";
import { count } from "../../model/words";
import { Key } from "../../parts/text";

interface Props {
  cells: string[];
  at: number | null;
  /** The row that is selected in the timeline. */
  selected: number | null;
  live: boolean;
  onAt: (seq: number | null) => void;
}

const MOST_CELLS = 400;

/** One cell a journal row, or a bucket of rows: map, scroll bar and time machine. */
export function Ribbon({ cells, at, selected, live, onAt }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const size = Math.max(1, Math.ceil(cells.length / MOST_CELLS));
  const background = useMemo(() => paint(cells, size), [cells, size]);
  const seqAt = (event: PointerEvent) => {
    const { left, width } = box.current!.getBoundingClientRect();
    return Math.min(cells.length, Math.max(1, Math.ceil(((event.clientX - left) / width) * cells.length)));
  };
  const marked = at ?? selected;
  const step = (by: number) => {
    const next = Math.min(cells.length, Math.max(1, (at ?? selected ?? cells.length + (by < 0 ? 0 : -1)) + by));
    onAt(next);
  };
  return (
    <div class={at === null ? "ribbon" : "ribbon then"}>
      <span class="m hide">{at === null ? "Journal" : `At row ${count(at)}`}</span>
      <div
        ref={box}
        class="cells"
        role="slider"
        tabIndex={0}
        aria-label="Journal row"
        aria-valuemin={1}
        aria-valuemax={Math.max(1, cells.length)}
        aria-valuenow={marked ?? Math.max(1, cells.length)}
        style={{ background: background(marked) }}
        onPointerDown={(event) => {
          box.current!.setPointerCapture(event.pointerId);
          onAt(seqAt(event));
        }}
        onPointerMove={(event) => event.buttons === 1 && onAt(seqAt(event))}
        onKeyDown={(event) => {
          if (event.key === "ArrowLeft") step(-1);
          else if (event.key === "ArrowRight") step(1);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
      />
      <span class="dim num nowrap hide">{marked === null ? `${count(cells.length)} rows` : `row ${count(marked)} of ${count(cells.length)}`}</span>
      <button type="button" class="btn sm icon" title="The row before  [" aria-label="The row before" onClick={() => step(-1)}>
        <ChevronLeft size={14} />
      </button>
      <button type="button" class="btn sm icon" title="The row after  ]" aria-label="The row after" onClick={() => step(1)}>
        <ChevronRight size={14} />
      </button>
      {at !== null ? (
        <button type="button" class="btn sm pri" onClick={() => onAt(null)}>
          {live ? "Back to live" : "Back to the end"} <Key keys="escape" />
        </button>
      ) : null}
    </div>
  );
}

/** The cells as one gradient: hundreds of them are one node. */
function paint(cells: string[], size: number): (marked: number | null) => string {
  const words: string[] = [];
  for (let first = 0; first < cells.length; first += size) {
    const phases = cells.slice(first, first + size).filter((one) => one !== "mark");
    words.push(phases.length === 0 ? "mark" : worst(phases));
  }
  const share = 100 / Math.max(1, words.length);
  const gap = words.length <= 120 ? "1.5px" : words.length <= 250 ? "0.8px" : "0px";
  const stops: string[] = [];
  for (let first = 0; first < words.length; ) {
    let last = first + 1;
    if (gap === "0px") while (last < words.length && words[last] === words[first]) last += 1;
    const colour = words[first] === "mark" ? "var(--ink-4)" : `var(--${words[first]}-b)`;
    stops.push(`${colour} ${first * share}% calc(${last * share}% - ${gap})`);
    if (gap !== "0px") stops.push(`transparent calc(${last * share}% - ${gap}) ${last * share}%`);
    first = last;
  }
  const bars = stops.length === 0 ? "none" : `linear-gradient(90deg, ${stops.join(", ")}) center / 100% 14px no-repeat`;
  return (marked) => {
    if (marked === null || cells.length === 0) return bars;
    const from = (Math.floor((marked - 1) / size) * share).toFixed(3);
    const frame = `max(3px, ${share.toFixed(3)}%)`;
    return `linear-gradient(var(--accent-fill), var(--accent-fill)) calc(${from}% + ${(Number(from) / 100).toFixed(4)} * ${frame}) 0 / ${frame} 3px no-repeat, linear-gradient(var(--accent-fill), var(--accent-fill)) calc(${from}% + ${(Number(from) / 100).toFixed(4)} * ${frame}) 100% / ${frame} 3px no-repeat, ${bars}`;
  };
}
