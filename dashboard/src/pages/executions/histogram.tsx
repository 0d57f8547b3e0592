import { useRef, useState } from "preact/hooks";
import type { Filters } from "../../model/filters";
import { clock, exact } from "../../model/time";
import { count } from "../../model/words";
import { useHistogram } from "./numbers";

const HEIGHT = 36;
/** A short time fills the right end: a few wide bars would look like a steady stream. */
const SLOTS_MIN = 40;
/** Bottom to top. */
const ORDER = ["completed", "cancelled", "queued", "running", "waiting", "held", "cancelling", "blocked", "failed"];

/** When the executions of the list were created. Dragging over it narrows the list to that time. */
export function HistogramBar({ filters, onRange }: { filters: Filters; onRange: (after: string, before: string) => void }) {
  const found = useHistogram(filters);
  const svg = useRef<SVGSVGElement>(null);
  const [brush, setBrush] = useState<[number, number] | null>(null);
  if (found?.from == null || found.to == null || found.buckets.length === 0) return null;
  const [begin, end] = [found.from, found.to];
  const step = found.step_seconds * 1_000;
  const first = Math.floor(Date.parse(begin) / step) * step;
  const slots = Math.max(SLOTS_MIN, Math.ceil((Date.parse(end) - first) / step));
  const from = Math.ceil(Date.parse(end) / step) * step - slots * step;
  const sums = found.buckets.map((bucket) => Object.values(bucket.phases).reduce((sum, n) => sum + n, 0));
  const most = Math.max(1, ...sums);
  const slotAt = (event: PointerEvent) => {
    const box = svg.current!.getBoundingClientRect();
    return Math.min(slots - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * slots)));
  };
  const time = (slot: number) => new Date(from + slot * step).toISOString();
  const day = step * slots > 864e5;
  const label = (at: number) => (day ? exact(new Date(at).toISOString()).slice(0, 17) : clock(new Date(at).toISOString()).slice(0, step < 60_000 ? 8 : 5));
  return (
    <figure class="histogram">
      <svg
        ref={svg}
        viewBox={`0 0 ${slots} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`Created from ${exact(begin)} to ${exact(end)}: at most ${count(most)} in one bar`}
        onPointerDown={(event) => {
          svg.current!.setPointerCapture(event.pointerId);
          setBrush([slotAt(event), slotAt(event)]);
        }}
        onPointerMove={(event) => brush !== null && setBrush([brush[0], slotAt(event)])}
        onPointerCancel={() => setBrush(null)}
        onPointerUp={() => {
          if (brush === null) return;
          onRange(time(Math.min(...brush)), time(Math.max(...brush) + 1));
          setBrush(null);
        }}
      >
        {brush !== null && <rect x={Math.min(...brush)} width={Math.abs(brush[1] - brush[0]) + 1} y="0" height={HEIGHT} class="brush" />}
        {found.buckets.map((bucket, index) => {
          let top = HEIGHT;
          return (
            <g key={bucket.at}>
              <title>{`${exact(bucket.at)}: ${count(sums[index]!)}`}</title>
              {ORDER.filter((phase) => bucket.phases[phase] !== undefined).map((phase) => {
                const height = Math.max(1, (bucket.phases[phase]! / most) * (HEIGHT - 2));
                top -= height;
                return <rect key={phase} class={`p-${phase}`} x={(Date.parse(bucket.at) - from) / step + 0.06} width="0.88" y={top} height={height} fill="var(--pb)" />;
              })}
            </g>
          );
        })}
      </svg>
      <figcaption class="row dim3">
        <span class="grow">{label(from)}</span>
        {!found.exact && <span class="grow">at least</span>}
        <span>{label(from + slots * step)}</span>
      </figcaption>
    </figure>
  );
}
