import { useEffect, useMemo, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { useQuery } from "@tanstack/preact-query";
import { currentProject, now, send, type Schemas } from "../../api/client";
import { useRefresh } from "../../api/query";
import { callFor, effects, ING, leftOut, NO_OPTIONS, selection, VERB, wrongOptions, type Act, type Options } from "../../model/bulk";
import { asFlags, type Filters } from "../../model/filters";
import { count, counted, shortId } from "../../model/words";
import { ActionDialog } from "../../parts/action";
import { LaterField } from "../../parts/later";
import { Dialog } from "../../parts/dialog";
import { Problem } from "../../parts/state";
import { Key, Shown } from "../../parts/text";
import { toast } from "../../parts/toast";
import { useCommands } from "../../keys";
import { HOLD_SECONDS, say, type Job } from "../bulk/held";
import type { Summary } from "./list";

export type { Act };
/** Rows that are selected, or all that match. */
export type Chosen = { rows: Summary[] } | { filters: Filters };

const TYPED_ABOVE = 1_000;
const AT_ONCE = 4;

interface Props {
  act: Act;
  onClose: () => void;
  onDone: () => void;
}

export function BulkDialog({ chosen, ...props }: Props & { chosen: Chosen }) {
  if ("filters" in chosen) return <AllThatMatch {...props} filters={chosen.filters} />;
  return chosen.rows.length === 1 ? <One {...props} row={chosen.rows[0]!} /> : <Several {...props} rows={chosen.rows} />;
}

function One({ act, row, onClose, onDone }: Props & { row: Summary }) {
  const [options, setOptions] = useState(NO_OPTIONS);
  const [, navigate] = useLocation();
  const out = leftOut(act, row);
  const wrong = out === null ? wrongOptions(act, options) : `This execution is ${out}.`;
  return (
    <ActionDialog
      title={`${VERB[act]} ${row.key ?? `execution ${shortId(row.id)}`} of ${row.workflow_id}`}
      effects={effects(act, 1)}
      word={VERB[act]}
      danger={act === "cancel" || act === "delete"}
      call={wrongOptions(act, options) === null ? callFor(act, row.id, options) : callFor(act, row.id, NO_OPTIONS)}
      invalid={wrong}
      onClose={onClose}
      onDone={(answer) => {
        onDone();
        const made = act === "retry" || act === "fork" ? (answer as Schemas["ForkResponse"]).execution_id : null;
        toast(`${ING[act]} ${row.key ?? shortId(row.id)}`, made === null ? undefined : { word: "Open the new one", run: () => navigate(`/executions/${made}`) });
      }}
    >
      <Fields act={act} options={options} onChange={setOptions} single />
    </ActionDialog>
  );
}

function AllThatMatch({ act, filters, onClose, onDone }: Props & { filters: Filters }) {
  const [options, setOptions] = useState(NO_OPTIONS);
  const [, navigate] = useLocation();
  const [at] = useState(now);
  const refresh = useRefresh();
  const wrong = wrongOptions(act, options);
  const body = wrong === null ? selection(act, filters, options, at) : null;
  const asked = useSettled(JSON.stringify(body));
  const preview = useQuery({
    queryKey: ["/api/v1/bulk/preview", currentProject(), asked],
    queryFn: () => send("POST", "/api/v1/bulk/preview", JSON.parse(asked)) as Promise<Schemas["BulkPreview"]>,
    enabled: asked !== "null",
    retry: false,
    gcTime: 0,
    placeholderData: undefined,
    refetchOnWindowFocus: false,
  });
  const found = asked === JSON.stringify(body) ? preview.data : undefined;
  const n = found?.count ?? 0;
  const note = options.note.trim();
  const flags = asFlags(filters);
  return (
    <ActionDialog
      title={found === undefined ? `${VERB[act]} all that match` : `${VERB[act]} ${found.at_least ? "at least " : ""}${counted(n, "execution")}`}
      effects={[
        ...(found === undefined ? [] : effects(act, n)),
        found !== undefined && found.later > 0 && `${counted(found.later, "execution")} called further steps after the failure, such as refunds, and will be refused. Choose below what becomes of these steps.`,
        "Executions that start after this count are left out.",
        `The job starts after ${HOLD_SECONDS} s and can be undone until then. Later it can be stopped and continued.`,
      ].filter((one) => one !== false)}
      word={found === undefined ? VERB[act] : `${VERB[act]} ${count(n)}`}
      danger={act === "cancel" || act === "delete"}
      role="admin"
      call={{
        method: "POST",
        path: "/api/v1/bulk",
        body: { ...body, hold_seconds: HOLD_SECONDS, ...(found === undefined ? {} : { newest: found.newest, expect: found.at_least ? undefined : n }), ...(note === "" ? {} : { note }) },
      }}
      command={flags === null || act === "resume" ? undefined : ["perdure bulk", act, ...flags.map((one) => (/^[\w@%+=:,./-]+$/.test(one) ? one : `'${one}'`))].join(" ")}
      invalid={wrong ?? (found === undefined ? (preview.error === null ? "Counting…" : "The count failed.") : null)}
      typed={found !== undefined && (n > TYPED_ABOVE || act === "delete") ? String(n) : undefined}
      onClose={onClose}
      onDone={(answer) => {
        onDone();
        const job = answer as Job;
        say(job, () => navigate(`/bulk/${job.id}`), refresh);
      }}
    >
      {preview.error !== null && <Problem error={preview.error} again={() => void preview.refetch()} />}
      {found !== undefined && n > 0 && (
        <p class="dim3">
          Among them:{" "}
          {found.sample.slice(0, 3).map((one, index) => (
            <span key={one.id}>
              {index > 0 && ", "}
              <code>
                <Shown text={one.key ?? shortId(one.id)} />
              </code>{" "}
              of <Shown text={one.workflow_id} />
            </span>
          ))}
          {n > 3 && ` and ${count(n - 3)} more`}.
        </p>
      )}
      <Fields act={act} options={options} onChange={setOptions} />
    </ActionDialog>
  );
}

interface Outcome {
  row: Summary;
  problem: string | null;
}

/** One request for each selected execution, a few at once. */
function Several({ act, rows, onClose, onDone }: Props & { rows: Summary[] }) {
  const [options, setOptions] = useState(NO_OPTIONS);
  const [outcomes, setOutcomes] = useState<Outcome[]>([]);
  const [running, setRunning] = useState(false);
  const refresh = useRefresh();
  const keys = useMemo(() => new Map(rows.map((row) => [row.id, crypto.randomUUID()])), [rows]);
  const taken = rows.filter((row) => leftOut(act, row) === null);
  const reasons = new Map<string, number>();
  for (const row of rows) {
    const why = leftOut(act, row);
    if (why !== null) reasons.set(why, (reasons.get(why) ?? 0) + 1);
  }
  const wrong = wrongOptions(act, options);
  const ready = !running && wrong === null && taken.length > 0 && outcomes.length === 0;
  const refused = outcomes.filter((one) => one.problem !== null);

  const run = async () => {
    if (!ready) return;
    setRunning(true);
    const left = [...taken];
    const done: Outcome[] = [];
    const work = async () => {
      for (let row = left.shift(); row !== undefined; row = left.shift()) {
        const call = callFor(act, row.id, options);
        const problem = await send(call.method, call.path, call.body, keys.get(row.id)).then(
          () => null,
          (error: Error) => error.message,
        );
        done.push({ row, problem });
        setOutcomes([...done]);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    setRunning(false);
    refresh();
    onDone();
    if (done.every((one) => one.problem === null)) {
      onClose();
      toast(`${ING[act]} ${counted(done.length, "execution")}`);
    }
  };
  useCommands([{ title: VERB[act], key: "mod+enter", everywhere: true, quiet: true, run: () => void run() }]);

  return (
    <Dialog
      title={taken.length === 0 ? `Nothing to ${VERB[act].toLowerCase()}` : `${VERB[act]} ${counted(taken.length, "execution")}`}
      onClose={onClose}
      footer={
        <>
          <span class="grow dim3" role="status">
            {(running || outcomes.length > 0) && `${count(outcomes.length)} of ${count(taken.length)}`}
          </span>
          <button type="button" class="btn" onClick={onClose}>
            Close
          </button>
          <button type="button" class={`btn ${act === "cancel" || act === "delete" ? "dangerfill" : "pri"}`} disabled={!ready} onClick={() => void run()}>
            {VERB[act]} {count(taken.length)} <Key keys="mod+enter" />
          </button>
        </>
      }
    >
      <ul class="box effects">
        {taken.length > 0 && effects(act, taken.length).map((line) => <li key={line}>{line}</li>)}
        {[...reasons].map(([why, n]) => (
          <li key={why}>
            {count(n)} {n === 1 ? "is" : "are"} {why} and left out.
          </li>
        ))}
      </ul>
      {outcomes.length === 0 && <Fields act={act} options={options} onChange={setOptions} />}
      {wrong !== null && <p class="bad">{wrong}</p>}
      {refused.length > 0 && (
        <div role="alert">
          <p class="bad">{counted(refused.length, "execution")} refused:</p>
          <ul class="box effects">
            {refused.slice(0, 20).map((one) => (
              <li key={one.row.id}>
                <code>
                  <Shown text={one.row.key ?? shortId(one.row.id)} />
                </code>
                : <Shown text={one.problem!} />
              </li>
            ))}
          </ul>
        </div>
      )}
    </Dialog>
  );
}

/** The value, 300 ms after its last change. */
function useSettled(value: string): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), 300);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

function Fields({ act, options, onChange, single }: { act: Act; options: Options; onChange: (options: Options) => void; single?: boolean }) {
  const text = (name: "fromStep" | "deployment" | "key" | "note", word: string, placeholder: string) => (
    <label class="field grow">
      <span>{word}</span>
      <input class="input" value={options[name]} placeholder={placeholder} onInput={(event) => onChange({ ...options, [name]: event.currentTarget.value })} />
    </label>
  );
  const json = (name: "payload" | "data", word: string, placeholder: string) => (
    <label class="field">
      <span>{word}</span>
      <textarea class="input" rows={3} value={options[name]} placeholder={placeholder} spellcheck={false} onInput={(event) => onChange({ ...options, [name]: event.currentTarget.value })} />
    </label>
  );
  return (
    <>
      {act === "resume" && text("key", "Step that waits for an answer", "approve")}
      {act === "resume" && json("data", "Answer (JSON)", "null")}
      {(act === "retry" || act === "fork") && (
        <div class="row gap12">
          {text("fromStep", "First step that runs again", act === "retry" ? "the step that failed" : "all")}
          {text("deployment", "Deployment", "the current one")}
        </div>
      )}
      {act === "retry" && <LaterField value={options.later} onChange={(later) => onChange({ ...options, later })} />}
      {act === "fork" && json("payload", "Input (JSON)", "as it was")}
      {(act === "retry" || act === "fork") && (
        <label class="row">
          <input type="checkbox" checked={options.freshKeys} onChange={(event) => onChange({ ...options, freshKeys: event.currentTarget.checked })} />
          Give the steps new idempotency keys
        </label>
      )}
      {((single !== true && (act === "retry" || act === "fork")) || single !== true) && text("note", "Note", "why, for the people after you")}
    </>
  );
}
