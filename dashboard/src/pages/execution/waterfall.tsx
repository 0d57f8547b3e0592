import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Skull } from "lucide-preact";
import { useCommands } from "../../keys";
import { clock, duration } from "../../model/time";
import { visible } from "../../model/words";
import { ticks, type Beginning, type Placed, type Scale } from "../../model/folds";
import { placeFor, readOut, saidBeside } from "../../model/says";
import { short } from "../../model/then";
import { tookOf, type Bar, type Holding, type Loss, type Row } from "../../model/timeline";
import { scrollToRow, useWidth, useWindow } from "../../parts/window";

const ROW = 23;
const HEAD = 46;

interface Props {
  rows: Row[];
  scale: (width: number) => Scale;
  holdings: Holding[];
  losses: Loss[];
  begun: Beginning;
  now: number | null;
  /** Time travel: what lies after this moment fades. */
  then: number | null;
  selected: string | null;
  slowest: string | null;
  scroller: RefObject<HTMLDivElement>;
  onSelect: (row: Row) => void;
  onFold: (row: Row) => void;
  /** Opens a folded wait. */
  onStretch: (from: number) => void;
  below?: ComponentChildren;
}

export function Waterfall(props: Props) {
  const { rows, scroller } = props;
  const column = useRef<HTMLDivElement>(null);
  const width = useWidth(column);
  const shown = useWindow(scroller, rows.length, ROW, { above: HEAD });
  const selected = useMemo(() => rows.findIndex((row) => row.id === props.selected), [rows, props.selected]);
  useEffect(() => scrollToRow(scroller.current, selected, ROW, HEAD), [selected]);
  const { scale, left, zoomed } = useZoom(scroller, column, width, props.scale);
  const marks = useMemo(() => ticks(scale, left, left + width), [scale, left, width]);
  const x = (at: number) => scale.x(at) - left;
  const labels = useMemo(() => scale.stretches.filter(isLabelled).map((one): [number, number] => [one.left + one.width / 2 - left - 8, one.left + one.width / 2 - left + 8]), [scale, left]);
  const thenX = props.then === null ? null : x(props.then);
  const inView = rows.slice(shown.first, shown.last);

  return (
    <div class={props.below == null ? "wf" : "wf short"} ref={scroller} tabIndex={0} role="group" aria-label="Steps over time" style={{ userSelect: zoomed ? "none" : undefined }}>
      <div class="wfhead" aria-hidden="true">
        <div class="wfh1">Step</div>
        <div class="wfh2">Duration</div>
        <div class="axis" ref={column}>
          {props.begun.claimed > props.begun.created && <Queued from={x(props.begun.created)} to={x(props.begun.claimed)} />}
          {props.holdings.map((one, at) => (
            <Lane key={at} one={one} from={x(one.from)} to={x(one.to)} tone={toneOf(props.holdings, one.worker)} />
          ))}
          {scale.stretches.map((one) =>
            one.cause === null || one.kept === true || one.width < 30 ? null : (
              <span key={one.from} class="foldcap" style={{ left: `${one.left + one.width / 2 - left}px` }}>
                {duration(one.to - one.from)}
              </span>
            ),
          )}
          {marks.map((tick) => (
            <span key={tick.at} class="tick" style={{ left: `${tick.x - left}px` }}>
              {tick.since === null ? clock(new Date(tick.at).toISOString()) : `+${duration(tick.since)}`}
            </span>
          ))}
        </div>
      </div>
      <div class="wfbody" style={{ height: `${Math.max(shown.total, 1)}px` }}>
        <div class="wfunder" aria-hidden="true">
          {marks.map((tick) => (
            <i key={tick.at} class="gl" style={{ left: `${tick.x - left}px` }} />
          ))}
          {scale.stretches.map((one) =>
            one.cause === null ? null : (
              <button
                key={one.from}
                type="button"
                tabIndex={-1}
                class={one.kept === true ? "fold kept" : "fold"}
                disabled={one.kept === true}
                title={one.kept === true ? `Rows ${visible(one.cause)}, with the times that they have there.` : `${duration(one.to - one.from)}: ${visible(one.cause)}. Click to draw it to scale.`}
                style={{ left: `${one.left - left}px`, width: `${one.width}px` }}
                onClick={() => props.onStretch(one.from)}
              >
                {isLabelled(one) && <span>{visible(one.cause)}</span>}
              </button>
            ),
          )}
        </div>
        <div class="wfrows" role="treegrid" aria-label="Timeline" aria-rowcount={rows.length} style={{ transform: `translateY(${shown.first * ROW}px)` }}>
          {inView.map((row, index) => (
            <RowLine
              key={row.id}
              row={row}
              index={shown.first + index}
              x={x}
              width={width}
              labels={labels}
              selected={row.id === props.selected}
              faded={props.then !== null && !(row.from <= props.then)}
              slowest={props.slowest}
              own={props.begun.kept === null ? Number.NEGATIVE_INFINITY : props.begun.created}
              onSelect={props.onSelect}
              onFold={props.onFold}
            />
          ))}
        </div>
        <div class="wfover" aria-hidden="true">
          {thenX !== null && (
            <>
              <i class="veil2" style={{ left: `${thenX}px` }} />
              <i class="thenline" style={{ left: `${thenX}px` }}>
                <span class={thenX > width * 0.7 ? "crashcap acc back" : "crashcap acc"}>at {clock(new Date(props.then!).toISOString(), true)}</span>
              </i>
            </>
          )}
          {props.losses.filter((loss) => props.then === null || loss.at <= props.then).map((loss) => (
            <i key={loss.at} class="crash" style={{ left: `${x(loss.at)}px` }}>
              <span class={x(loss.at) > width * 0.7 ? "crashcap back" : "crashcap"}>
                <Skull size={12} />
                worker {short(loss.worker)} lost
              </span>
              {loss.next !== null && <small class={x(loss.at) > width * 0.7 ? "back" : ""}>{`${short(loss.next.worker)} went on ${duration(loss.next.at - loss.at)} later`}</small>}
            </i>
          ))}
          {props.now !== null && props.then === null && <i class="now" style={{ left: `${x(props.now)}px` }} />}
        </div>
      </div>
      {props.below}
    </div>
  );
}

/** Whether its cause stands in it, upright. */
function isLabelled(one: Placed): boolean {
  return one.cause !== null && one.width >= 18;
}

function Lane({ one, from, to, tone }: { one: Holding; from: number; to: number; tone: number }) {
  const wide = Math.max(3, to - from);
  return (
    <span class={`holder t${tone}${one.lost ? " lost" : ""}`} title={`Worker ${one.worker}`} style={{ left: `${from}px`, width: `${wide}px` }}>
      {wide > 90 ? `worker ${short(one.worker)}` : wide > 34 ? short(one.worker) : ""}
    </span>
  );
}

/** The time before the first claim, hollow as that of children. */
function Queued({ from, to }: { from: number; to: number }) {
  return (
    <span class="holder queue" title="In the queue, before the first claim" style={{ left: `${from}px`, width: `${Math.max(3, to - from)}px` }}>
      {to - from > 74 ? "in the queue" : to - from > 44 ? "queue" : ""}
    </span>
  );
}

const ZOOM_MAX = 5_000;
const DRAG_FROM = 4; // pixels; less is a click

interface View {
  zoom: number;
  /** The moment at the left edge. */
  from: number;
}

/**
 * The scale of a zoomed timeline, and how many of its pixels lie left of the column. ⌘ and the wheel zoom at the pointer,
 * a drag pans, a double click fits; `+`, `-` and `0` do the same.
 */
function useZoom(scroller: RefObject<HTMLDivElement>, column: RefObject<HTMLDivElement>, width: number, scaleFor: (width: number) => Scale) {
  const [view, setView] = useState<View | null>(null);
  const zoom = view?.zoom ?? 1;
  const scale = useMemo(() => scaleFor(width * zoom), [scaleFor, width, zoom]);
  const left = view === null ? 0 : Math.min(Math.max(0, scale.x(view.from)), width * (zoom - 1));
  const zoomAt = (x: number, factor: number) => {
    const next = Math.min(zoom * factor, ZOOM_MAX);
    if (next <= 1.001) return setView(null);
    const wider = scaleFor(width * next);
    setView({ zoom: next, from: wider.at(wider.x(scale.at(x + left)) - x) });
  };
  const pan = (by: number) => view !== null && setView({ zoom, from: scale.at(Math.min(Math.max(0, left + by), width * (zoom - 1))) });
  const zoomed = view !== null;
  const latest = useRef({ zoomAt, pan, zoomed });
  latest.current = { zoomAt, pan, zoomed };
  useEffect(() => {
    const element = scroller.current!;
    const inColumn = (event: MouseEvent) => event.clientX - column.current!.getBoundingClientRect().left;
    const onWheel = (event: WheelEvent) => {
      const x = inColumn(event);
      if (x < 0 || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      latest.current.zoomAt(x, Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.002 : 0.05)));
    };
    const onDown = (event: PointerEvent) => {
      if (event.button !== 0 || !latest.current.zoomed || inColumn(event) < 0) return;
      let dragged = false;
      let at = event.clientX;
      const onMove = (moved: PointerEvent) => {
        if (!dragged && Math.abs(moved.clientX - event.clientX) < DRAG_FROM) return;
        dragged = true;
        latest.current.pan(at - moved.clientX);
        at = moved.clientX;
      };
      const onUp = () => {
        removeEventListener("pointermove", onMove);
        if (!dragged) return;
        const ignore = (click: MouseEvent) => click.detail > 0 && click.stopPropagation(); // the end of a drag chooses no row
        addEventListener("click", ignore, { capture: true });
        addEventListener("pointerdown", () => removeEventListener("click", ignore, { capture: true }), { capture: true, once: true });
      };
      addEventListener("pointermove", onMove);
      addEventListener("pointerup", onUp, { once: true });
    };
    const onDouble = (event: MouseEvent) => inColumn(event) >= 0 && setView(null);
    element.addEventListener("wheel", onWheel, { passive: false });
    element.addEventListener("pointerdown", onDown);
    element.addEventListener("dblclick", onDouble);
    return () => {
      element.removeEventListener("wheel", onWheel);
      element.removeEventListener("pointerdown", onDown);
      element.removeEventListener("dblclick", onDouble);
    };
  }, []);
  useCommands([
    { title: "Zoom into the timeline", key: "+", quiet: true, run: () => zoomAt(width / 2, 1.5) },
    { title: "Zoom out", key: "-", quiet: true, run: () => zoomAt(width / 2, 1 / 1.5) },
    { title: "Fit the timeline", key: "0", quiet: true, run: () => setView(null) },
    { title: "Pan the timeline back", key: "shift+arrowleft", quiet: true, run: () => pan(-width / 4) },
    { title: "Pan the timeline on", key: "shift+arrowright", quiet: true, run: () => pan(width / 4) },
  ]);
  return { scale, left, zoomed };
}

/** Workers take turns with four tones, in the order in which they came. */
function toneOf(all: Holding[], worker: string): number {
  return [...new Set(all.map((one) => one.worker))].indexOf(worker) % 4;
}

interface RowProps {
  row: Row;
  index: number;
  x: (at: number) => number;
  width: number;
  /** Of folded waits. */
  labels: [from: number, to: number][];
  selected: boolean;
  faded: boolean;
  slowest: string | null;
  /** What ended before was kept from a fork's source. */
  own: number;
  onSelect: (row: Row) => void;
  onFold: (row: Row) => void;
}

function RowLine({ row, index, x, width, labels, selected, faded, slowest, own, onSelect, onFold }: RowProps) {
  const said = saidBeside(row, slowest);
  const took = tookOf(row);
  // What a zoom leaves in view. The row clips its right side; the names must stay free.
  const bars = row.bars
    .map((bar) => ({ bar, from: Math.max(0, x(bar.from)), to: Math.min(width + 12, Math.max(x(bar.to), x(bar.from) + (bar.kind === "pause" ? 0 : 3))) }))
    .filter(({ from, to }) => to >= 0 && from <= width && to >= from);
  const place = said === null || bars.length === 0 ? null : placeFor(Math.min(340, 14 + 6 * said.text.length), bars.map(({ from, to }) => [from, Math.min(to, width)]), width, labels);
  const isGroup = row.folds === "group";
  const [name, sub] = titleOf(row);
  return (
    <div
      class={`wrow${selected ? " cur" : ""}${faded ? " faded" : ""}`}
      id={`row-${index}`}
      role="row"
      aria-level={row.depth + 1}
      aria-rowindex={index + 1}
      aria-selected={selected}
      aria-expanded={row.folds === null ? undefined : row.unfolded}
      aria-label={visible(readOut(row, said))}
      style={{ "--d": row.depth }}
      onClick={(event) => {
        const inTwist = row.folds !== null && (event.target as Element).classList.contains("lab") && event.offsetX < 26 + 17 * row.depth;
        if (inTwist) onFold(row);
        else onSelect(row);
      }}
      onDblClick={(event) => row.folds !== null && (event.target as Element).classList.contains("lab") && onFold(row)}
    >
      <span role="gridcell" class={`lab k-${isGroup || row.folds === "quiet" ? "group" : row.span.kind}${row.folds === null ? "" : row.unfolded ? " tw open" : " tw"}`}>
        {visible(name)}
        {sub !== "" && <small>{visible(sub)}</small>}
      </span>
      <span role="gridcell" class={row.open ? "du open" : "du"}>
        {took === null ? "" : duration(took)}
      </span>
      {bars.map(({ bar, from, to }, at) => (
        <i key={at} class={bar.to < own ? `${barClass(bar)} kept` : barClass(bar)} style={{ left: `calc(var(--col) + ${from.toFixed(1)}px)`, width: `${(to - from).toFixed(1)}px` }} />
      ))}
      {said !== null && place !== null && (
        <span class={`blab ${said.tone}${place.left ? " left" : ""}`} style={{ left: `calc(var(--col) + ${place.at.toFixed(1)}px)`, maxWidth: place.most === undefined ? undefined : `${place.most.toFixed(1)}px` }}>
          {visible(said.text)}
        </span>
      )}
    </div>
  );
}

/** The row's name, and what tells it from others of the name. */
function titleOf(row: Row): [string, string] {
  const { span } = row;
  if (row.folds === "group") return [span.name ?? span.key, `${row.members.length} children`];
  if (row.folds === "quiet") return [`${row.members.length} small steps`, ""];
  if (span.kind === "child") return [span.name ?? span.key, span.label ?? span.key.replace(span.name ?? span.key, "")];
  if (span.label != null) return [span.key, span.label];
  if (span.wait != null) return [span.key, span.wait.for === "event" ? `event ${span.wait.topic ?? ""}` : span.wait.for];
  if (span.kind === "step") return [span.key, span.name == null || span.key === span.name || span.key.startsWith(`${span.name}#`) ? "" : span.name];
  return [span.name ?? span.key, span.kind];
}

function barClass(bar: Bar): string {
  return `bar1 ${bar.kind} p-${bar.phase}${bar.open === true ? " open" : ""}`;
}
