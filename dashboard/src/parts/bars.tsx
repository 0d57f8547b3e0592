import { useState } from "preact/hooks";
import { clock, exact } from "../model/time";
import { count } from "../model/words";
import type { PhaseName } from "./phase";
import "./bars.css";
import "./controls.css";

export interface Bucket {
  at: string;
  completed: number;
  failed: number;
  cancelled: number;
}

const kinds = ["completed", "cancelled", "failed"] as const;

/** Ends over time, stacked by phase. Each bar has its numbers in its title; the table has them all. */
export function EndBars({ buckets, height = 72 }: { buckets: Bucket[]; height?: number }) {
  const [table, setTable] = useState(false);
  const sum = (one: Bucket) => one.completed + one.failed + one.cancelled;
  const most = Math.max(1, ...buckets.map(sum));
  const width = 8;
  const first = buckets[0];
  const last = buckets.at(-1);
  return (
    <figure class="bars">
      {table ? (
        <div class="tall">
          <table>
            <thead>
              <tr>
                <th>From</th>
                {kinds.map((kind) => (
                  <th class="r" key={kind}>
                    {kind}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {buckets
                .filter((one) => sum(one) > 0)
                .map((one) => (
                  <tr key={one.at}>
                    <td>{exact(one.at)}</td>
                    {kinds.map((kind) => (
                      <td class="r num" key={kind}>
                        {count(one[kind])}
                      </td>
                    ))}
                  </tr>
                ))}
            </tbody>
          </table>
        </div>
      ) : (
        <svg viewBox={`0 0 ${buckets.length * width} ${height}`} preserveAspectRatio="none" role="img" aria-label={`Ended over time, at most ${count(most)} at once`}>
          {buckets.map((one, at) => {
            let top = height;
            return (
              <g key={one.at}>
                <title>{`${exact(one.at)}: ${kinds.map((kind) => `${count(one[kind])} ${kind}`).join(", ")}`}</title>
                <rect x={at * width} y={0} width={width} height={height} fill="transparent" />
                {kinds.map((kind) => {
                  if (one[kind] === 0) return null;
                  const tall = Math.max(2, (one[kind] / most) * (height - 2));
                  top -= tall;
                  return <rect key={kind} class={`p-${kind}`} x={at * width + 1} y={top} width={width - 2} height={tall} />;
                })}
              </g>
            );
          })}
        </svg>
      )}
      <figcaption class="row dim3">
        {first !== undefined && !table && <span>{clock(first.at).slice(0, 5)}</span>}
        <span class="grow" />
        <button type="button" class="link" onClick={() => setTable(!table)}>
          {table ? "Show as chart" : "Show as table"}
        </button>
        <span class="grow" />
        {last !== undefined && !table && <span>now</span>}
      </figcaption>
    </figure>
  );
}

/** Amounts over time in one row of bars; each has its words in its title. */
export function Amounts({ of, label, height = 48 }: { of: { at: string; value: number; words: string }[]; label: string; height?: number }) {
  const most = Math.max(...of.map((one) => one.value)) || 1;
  return (
    <svg class="amounts" viewBox={`0 0 ${of.length * 8} ${height}`} preserveAspectRatio="none" role="img" aria-label={label} style={{ height: `${height}px` }}>
      {of.map((one, at) => {
        const tall = one.value === 0 ? 0 : Math.max(2, (one.value / most) * (height - 1));
        return (
          <g key={one.at}>
            <title>{`${exact(one.at)}: ${one.words}`}</title>
            <rect x={at * 8} y={0} width={8} height={height} fill="transparent" />
            <rect class="amount" x={at * 8 + 1} y={height - tall} width={6} height={tall} />
          </g>
        );
      })}
    </svg>
  );
}

/** `60 of 60` with a meter; without a limit the number alone. */
export function Use({ n, limit, shown = count, phase = "running" }: { n: number; limit: number | null; shown?: (n: number) => string; phase?: PhaseName }) {
  return (
    <div class="row">
      <span class="num n">
        {shown(n)} {limit !== null && <span class="dim3">of {shown(limit)}</span>}
      </span>
      {limit !== null && (
        <span class={`meter p-${phase} grow`}>
          <i style={{ width: `${Math.min(100, (100 * n) / Math.max(1, limit))}%` }} />
        </span>
      )}
    </div>
  );
}
