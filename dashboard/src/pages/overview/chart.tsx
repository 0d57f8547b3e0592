import { useState } from "preact/hooks";
import type { Schemas } from "../../api/client";
import { labels, niceTop } from "../../model/overview";
import { clock, duration, exact } from "../../model/time";
import { count } from "../../model/words";
import { Shown } from "../../parts/text";

const HEIGHT = 136;
const STEPS: Record<number, string> = { 60: "minute", 300: "5 minutes", 900: "15 minutes", 7_200: "2 hours", 28_800: "8 hours" };
const KINDS = ["completed", "cancelled", "failed"] as const;

/** What ended in each slot of the range, stacked; the moments at which deployments came into use are dashed. */
export function EndedChart({ data }: { data: Schemas["Overview"] }) {
  const [table, setTable] = useState(false);
  const { ended, ended_total: total } = data;
  const top = niceTop(Math.max(0, ...ended.map((one) => one.completed + one.failed + one.cancelled)));
  const from = Date.parse(data.from);
  const span = ended.length * data.step_seconds * 1_000;
  const place = (at: string) => `${(100 * (Date.parse(at) - from)) / span}%`;
  // Where flags would cover each other, the newest has one.
  const markers = data.markers.filter((one) => Date.parse(one.at) >= from);
  return (
    <figure class="ended">
      <figcaption class="row">
        <h2 class="grow">Ended, every {STEPS[data.step_seconds] ?? duration(data.step_seconds * 1_000)}</h2>
        {KINDS.filter((kind) => total[kind] > 0).map((kind) => (
          <span key={kind} class={`legend p-${kind}`}>
            {kind} <span class="num">{count(total[kind])}</span>
          </span>
        ))}
        <button type="button" class="btn sm ghost" aria-pressed={table} onClick={() => setTable(!table)}>
          {table ? "Show as chart" : "Show as table"}
        </button>
      </figcaption>
      {table ? (
        <div class="plot scroll">
          <table>
            <thead>
              <tr>
                <th>From</th>
                {KINDS.map((kind) => (
                  <th key={kind} class="r">
                    {kind}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {ended
                .filter((one) => one.completed + one.failed + one.cancelled > 0)
                .map((one) => (
                  <tr key={one.at}>
                    <td>{exact(one.at)}</td>
                    {KINDS.map((kind) => (
                      <td key={kind} class="r num">
                        {count(one[kind])}
                      </td>
                    ))}
                  </tr>
                ))}
            </tbody>
          </table>
        </div>
      ) : (
        <div class="plot">
          <svg viewBox={`0 0 ${ended.length} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`Ended: ${KINDS.map((kind) => `${count(total[kind])} ${kind}`).join(", ")}`}>
            {[0.5, 1].map((part) => (
              <line key={part} x1="0" x2={ended.length} y1={HEIGHT * (1 - part) + 0.5} y2={HEIGHT * (1 - part) + 0.5} class="gridline" />
            ))}
            {ended.map((one, index) => {
              let y = HEIGHT;
              return (
                <g key={one.at}>
                  <title>{`${exact(one.at)}: ${KINDS.map((kind) => `${count(one[kind])} ${kind}`).join(", ")}`}</title>
                  <rect x={index} width="1" y="0" height={HEIGHT} fill="transparent" />
                  {KINDS.map((kind) => {
                    if (one[kind] === 0) return null;
                    const tall = Math.max(1.5, (one[kind] / top) * HEIGHT);
                    y -= tall;
                    return <rect key={kind} class={`p-${kind}`} x={index + 0.06} width="0.88" y={y} height={tall} fill="var(--pb)" opacity={kind === "completed" ? 0.75 : 1} />;
                  })}
                </g>
              );
            })}
          </svg>
          <span class="tick" style={{ top: "0" }}>
            {count(top)}
          </span>
          <span class="tick" style={{ top: "50%" }}>
            {count(top / 2)}
          </span>
          {markers.slice(-3).map((one, at, all) => (
            <span key={one.deployment_id} class="marker" style={{ left: place(one.at) }}>
              {!(Date.parse(all[at + 1]?.at ?? "") - Date.parse(one.at) < span / 4) && (
                <span class={`tag acc${Date.parse(one.at) - from > span / 2 ? " left" : ""}`}>
                  <Shown text={one.deployment_id} /> in use, {clock(one.at).slice(0, 5)}
                </span>
              )}
            </span>
          ))}
        </div>
      )}
      {!table && (
        <div class="axis" aria-hidden="true">
          {labels(from, span).map(({ at, text }) => (
            <span key={at} style={{ left: `${(100 * (at - from)) / span}%` }}>
              {text}
            </span>
          ))}
        </div>
      )}
    </figure>
  );
}
