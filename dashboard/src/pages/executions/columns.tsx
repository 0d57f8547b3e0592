import type { ComponentChildren } from "preact";
import { now } from "../../api/client";
import { duration } from "../../model/time";
import { shortId } from "../../model/words";
import { Dialog } from "../../parts/dialog";
import { Shown, Time } from "../../parts/text";
import type { Sort, Summary } from "./list";

export interface Column {
  name: string;
  word: string;
  /** Pixels. */
  width: number;
  right?: boolean;
  show: (row: Summary) => ComponentChildren;
}

const text = (name: string, word: string, width: number, value: (row: Summary) => string | null | undefined): Column => ({
  name,
  word,
  width,
  show: (row) => <Shown text={value(row) ?? ""} />,
});
const time = (name: string, word: string, at: (row: Summary) => string | null | undefined): Column => ({
  name,
  word,
  width: 112,
  right: true,
  show: (row) => {
    const value = at(row);
    return value == null ? null : <Time at={value} />;
  },
});

/** What a row may show beside its phase, name and details. */
export const COLUMNS: readonly Column[] = [
  text("queue", "Queue", 110, (row) => row.queue_name),
  text("deployment", "Deployment", 120, (row) => row.deployment_id),
  text("user", "User", 110, (row) => row.user_id),
  text("session", "Session", 110, (row) => (row.session_id === row.id ? null : shortId(row.session_id))),
  text("batch", "Batch", 100, (row) => row.batch_id && shortId(row.batch_id)),
  text("parent", "Parent", 100, (row) => row.parent_execution_id && shortId(row.parent_execution_id)),
  text("concurrency_key", "Concurrency key", 130, (row) => row.concurrency_key),
  text("worker", "Worker", 100, (row) => row.assigned_to_worker && shortId(row.assigned_to_worker)),
  text("tags", "Tags", 160, (row) => Object.entries((row.tags ?? {}) as Record<string, unknown>).map(([name, value]) => `${name}=${String(value)}`).join(", ")),
  text("progress", "Progress", 120, (row) => progress(row.progress)),
  text("losses", "Losses", 80, (row) => (row.losses === 0 ? null : String(row.losses))),
  text("tries", "Tries", 80, (row) => (row.tries === 1 ? null : String(row.tries))),
  time("created", "Created", (row) => row.created_at),
  time("started", "Started", (row) => row.started_at),
  time("since", "In phase since", (row) => row.since),
  time("ended", "Ended", (row) => row.completed_at),
  { name: "took", word: "Duration", width: 96, right: true, show: (row) => <Took row={row} /> },
];

function progress(value: unknown): string | null {
  const given = value as { done?: number; total?: number | null; text?: string | null } | null;
  if (given == null || typeof given.done !== "number") return null;
  const amount = given.total == null ? `${Math.round(given.done * 100)} %` : `${given.done} of ${given.total}`;
  return given.text == null ? amount : `${amount}, ${given.text}`;
}

/** How long it took, or how long it has run so far. */
function Took({ row }: { row: Summary }) {
  if (row.took_ms != null) return <>{duration(row.took_ms)}</>;
  if (row.started_at == null || row.completed_at != null) return null;
  return <span class="dim3">{duration(now() - Date.parse(row.started_at))}</span>;
}

function usual(sort: Sort): string[] {
  return ["queue", sort, "took"];
}

/** The columns that the address names, in the order of COLUMNS. */
export function columnsOf(cols: string | null, sort: Sort): Column[] {
  const names = new Set(cols === null ? usual(sort) : cols.split(","));
  return COLUMNS.filter((column) => names.has(column.name));
}

interface Props {
  shown: readonly Column[];
  sort: Sort;
  /** With the value of `cols`; null: the usual ones. */
  onChange: (cols: string | null) => void;
  onClose: () => void;
}

export function ColumnsDialog({ shown, sort, onChange, onClose }: Props) {
  const names = shown.map((column) => column.name);
  return (
    <Dialog
      title="Columns"
      onClose={onClose}
      footer={
        <>
          <span class="grow dim3">The address of the page keeps them.</span>
          <button type="button" class="btn" onClick={() => onChange(null)}>
            Use the usual ones
          </button>
          <button type="button" class="btn pri" onClick={onClose}>
            Close
          </button>
        </>
      }
    >
      <div class="columns">
        {COLUMNS.map((column) => (
          <label class="row" key={column.name}>
            <input
              type="checkbox"
              checked={names.includes(column.name)}
              onChange={(event) => {
                const next = event.currentTarget.checked ? [...names, column.name] : names.filter((name) => name !== column.name);
                onChange(next.toSorted().join(",") === usual(sort).toSorted().join(",") ? null : next.join(","));
              }}
            />
            {column.word}
          </label>
        ))}
      </div>
    </Dialog>
  );
}
