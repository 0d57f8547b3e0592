import type { ComponentChildren } from "preact";
import { duration } from "../model/time";
import type { SpanRow } from "../model/spans";
import { Shown } from "./text";
import "./spans.css";

interface Props {
  rows: SpanRow[];
  label: string;
  chosen?: string | null;
  onChoose?: (id: string) => void;
  /** Beside the bar of a row. */
  note?: (row: SpanRow) => ComponentChildren;
}

/** A waterfall to scale: one row a span. */
export function Spans({ rows, label, chosen, onChoose, note }: Props) {
  return (
    <ol class="spans" aria-label={label}>
      {rows.map((row) => {
        const took = row.to === null ? "open" : duration(row.to - row.from);
        const state = row.failed ? "failed" : row.to === null ? (row.kind === "wait" ? "waiting" : "running") : row.kind === "wait" ? "waiting" : "completed";
        const words = (
          <>
            <span class="lab trunc" style={{ paddingLeft: `${Math.min(row.depth, 12) * 14}px` }}>
              <Shown text={row.name} />
              <span class="sr">{`, ${row.kind}, ${state}, `}</span>
            </span>
            <span class="num took">{took}</span>
            <span class="track">
              <i class={`${row.kind === "wait" ? "wait " : ""}${row.kind === "workflow" || row.kind === "agent" ? "outer " : ""}p-${state}`} style={{ left: `${100 * row.left}%`, width: `${100 * row.width}%` }} />
              {note !== undefined && (
                <span class="beside" style={row.left + row.width < 0.75 ? { left: `${100 * (row.left + row.width)}%` } : { right: `${100 * (1 - row.left)}%` }}>
                  {note(row)}
                </span>
              )}
            </span>
          </>
        );
        return (
          <li key={row.id} class={row.id === chosen ? "cur" : ""}>
            {onChoose === undefined ? (
              <div class="line1">{words}</div>
            ) : (
              <button type="button" class="line1" aria-pressed={row.id === chosen} onClick={() => onChoose(row.id)}>
                {words}
              </button>
            )}
          </li>
        );
      })}
    </ol>
  );
}
