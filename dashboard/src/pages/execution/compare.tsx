import { useEffect, useRef, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { useQuery } from "@tanstack/preact-query";
import { currentProject, projectHeaders } from "../../api/client";
import { errorOf, reach } from "../../api/errors";
import { align, differing, folded, type Outcome, type Pair } from "../../model/compare";
import { pretty, rawAt, rawItems, readString } from "../../model/json";
import { bytes, counted, visible } from "../../model/words";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { Loaded, Problem } from "../../parts/state";
import { Id } from "../../parts/text";
import "./execution.css";

const OUTCOMES = new Set(["step", "step_failed", "timer", "event", "resume", "child", "published", "sent"]);
const MOST_ROWS = 5_000;
const LONGEST = 40_000;

interface Side {
  id: string;
  workflow: string;
  phase: string;
  outcomes: Outcome[];
  /** There are more rows than the page reads. */
  cut: boolean;
}

async function text(path: string, signal: AbortSignal): Promise<string> {
  const reply = await reach(path, { headers: projectHeaders(), signal });
  if (!reply.ok) throw errorOf(reply.status, await reply.json().catch(() => null));
  return reply.text();
}

async function side(id: string, signal: AbortSignal): Promise<Side> {
  const execution = await text(`/api/v1/executions/${id}`, signal);
  const outcomes = new Map<string, Outcome>();
  outcomes.set("\0input", { key: "input", kind: "input", ok: true, value: rawAt(execution, ["payload"]) ?? "null" });
  let after = 0;
  let more = true;
  while (more && after < MOST_ROWS) {
    const page = await text(`/api/v1/executions/${id}/steps?after=${after}&limit=500`, signal);
    const rows = rawItems(rawAt(page, ["steps"]) ?? "[]");
    for (const row of rows) {
      after = Number(rawAt(row, ["seq"]));
      const kind = readString(rawAt(row, ["kind"]) ?? '""');
      const key = rawAt(row, ["key"]) ?? "null";
      if (!OUTCOMES.has(kind) || key === "null") continue;
      const name = readString(key);
      outcomes.set(name, { key: name, kind, ok: rawAt(row, ["ok"]) === "true" && kind !== "step_failed", value: rawAt(row, ["value"]) ?? "null" });
    }
    more = rawAt(page, ["has_more"]) === "true" && rows.length > 0;
  }
  const phase = readString(rawAt(execution, ["phase"]) ?? '""');
  const error = rawAt(execution, ["error"]) ?? "null";
  if (error !== "null") outcomes.set("\0end", { key: "error", kind: "error", ok: false, value: error });
  else if (phase === "completed") outcomes.set("\0end", { key: "result", kind: "result", ok: true, value: rawAt(execution, ["result"]) ?? "null" });
  return { id, workflow: readString(rawAt(execution, ["workflow_id"]) ?? '""'), phase, outcomes: [...outcomes.values()], cut: more };
}

/** Two executions side by side. The page opens at the first difference. */
export default function Compare({ params }: { params: Record<string, string> }) {
  const both = useQuery<[Side, Side], Error>({
    queryKey: ["compare", currentProject(), params.id, params.other],
    placeholderData: undefined,
    queryFn: ({ signal }) => Promise.all([side(params.id!, signal), side(params.other!, signal)]),
  });
  return (
    <Page title="Compare two executions" styled="execution">
      <Loaded of={both}>{([left, right]) => <Sides left={left} right={right} />}</Loaded>
    </Page>
  );
}

function Sides({ left, right }: { left: Side; right: Side }) {
  const pairs = align(left.outcomes, right.outcomes);
  const differences = pairs.filter((pair) => !pair.same).length;
  const first = useRef<HTMLDivElement>(null);
  const [open, setOpen] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => first.current?.scrollIntoView({ block: "center" }), [left, right]);
  let marked = false;
  return (
    <>
      <p style={{ fontSize: "13.5px", marginBottom: "12px" }}>
        <b class="m">{differences === 0 ? "All recorded outcomes are equal." : `${counted(differences, "difference")}, ${counted(pairs.length - differences, "equal outcome")}.`}</b>
      </p>
      {(left.cut || right.cut) && <Problem error={`Only the first ${MOST_ROWS} journal rows are compared.`} />}
      <div class="cmp">
        <div />
        {[left, right].map((one) => (
          <div key={one.id} class="row wrap">
            <Phase phase={one.phase} />
            <Link href={`/executions/${one.id}`} class="accent trunc">
              {visible(one.workflow)}
            </Link>
            <Id id={one.id} />
          </div>
        ))}
        {folded(pairs).map((shown, index) => {
          if ("same" in shown && !open.has(index)) {
            return (
              <div key={index} class="same">
                <button type="button" class="btn ghost sm" aria-expanded={false} onClick={() => setOpen(new Set([...open, index]))}>
                  {counted(shown.same.length, "equal outcome")}: {visible(shown.same.map((pair) => pair.key).slice(0, 4).join(", "))}
                  {shown.same.length > 4 && " …"}
                </button>
              </div>
            );
          }
          const list = "same" in shown ? shown.same : [shown.pair];
          return list.map((pair) => {
            const here = !pair.same && !marked;
            marked ||= here;
            return <Line key={pair.key} pair={pair} mark={here ? first : null} />;
          });
        })}
      </div>
    </>
  );
}

function Line({ pair, mark }: { pair: Pair; mark: { current: HTMLDivElement | null } | null }) {
  const texts = [pair.left, pair.right].map((one) => (one === null || one.value.length > LONGEST ? null : one.ok ? pretty(one.value) : errorText(one.value)));
  const [left, right] = differing(texts[0] ?? "", texts[1] ?? "");
  return (
    <>
      <div ref={mark} class={pair.same ? "dim" : "m"}>
        {visible(pair.key)} <span class="dim3">{(pair.left ?? pair.right)!.kind === pair.key ? "" : (pair.left ?? pair.right)!.kind}</span>
      </div>
      <Value of={pair.left} text={texts[0] ?? null} marked={pair.same || pair.right === null ? null : left} />
      <Value of={pair.right} text={texts[1] ?? null} marked={pair.same || pair.left === null ? null : right} />
    </>
  );
}

/** An error without its traceback, which differs by paths only. */
function errorText(value: string): string {
  const type = rawAt(value, ["type"]);
  const message = rawAt(value, ["message"]);
  return message === undefined ? pretty(value) : `${readString(type ?? '"Error"')}: ${readString(message)}`;
}

function Value({ of, text, marked }: { of: Outcome | null; text: string | null; marked: ReadonlySet<number> | null }) {
  if (of === null) return <div class="dim3">not recorded</div>;
  return (
    <div>
      {!of.ok && <span class="bad">failed </span>}
      {text === null ? (
        <span class="dim">A value of {bytes(of.value.length)}</span>
      ) : (
        <pre class="json" style={{ margin: 0, whiteSpace: "pre-wrap" }}>
          {text.split("\n").map((line, at) => (
            <div key={at} class={marked?.has(at) === true ? "diff" : ""}>
              {visible(line)}
            </div>
          ))}
        </pre>
      )}
    </div>
  );
}
