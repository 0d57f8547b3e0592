import { useEffect, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Pause, Play, Plus, Trash2 } from "lucide-preact";
import { now, type Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { quoted, type Call } from "../../model/calls";
import { inWords } from "../../model/cron";
import { faultOf } from "../../model/schema";
import { clock } from "../../model/time";
import { ActionDialog } from "../../parts/action";
import { Labelled } from "../../parts/controls";
import { Page } from "../../parts/page";
import { PhaseIcon } from "../../parts/phase";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";
import "./schedules.css";

type Schedule = Schemas["ScheduleResponse"];
type Act = { kind: "run" | "turn" | "delete"; of: Schedule };

const EXAMPLE = `from perdure import Context, Schedule, ScheduledFor, workflow

@workflow(schedule=Schedule("0 9 * * MON-FRI", timezone="Europe/Berlin"))
async def report(ctx: Context, due: ScheduledFor) -> str:
    return f"for {due.timestamp:%A}"`;

export default function Schedules() {
  const [params, change] = useQueryParams();
  const schedules = useGet("/api/v1/schedules", { params: { query: { limit: 500 } } }, { every: 5_000 });
  const [act, setAct] = useState<Act | null>(null);
  return (
    <Page
      title="Schedules"
      bare
      actions={
        <button type="button" class="btn" onClick={() => change({ new: "1" })}>
          <Plus size={14} aria-hidden="true" /> New schedule
        </button>
      }
    >
      <Loaded of={schedules}>
        {({ schedules: found }) =>
          found.length === 0 ? (
            <Empty title="No schedules yet" code={EXAMPLE} docs="docs/schedules.md">
              A schedule starts a workflow by the clock. It appears here when a worker registers it, or when you make one.
            </Empty>
          ) : (
            <div class="schedules">
              <List found={found} chosen={params.get("id")} onAct={setAct} onOpen={(id) => change({ id })} />
              <Week found={found} />
              {found.filter((one) => one.id === params.get("id")).map((one) => <Fires key={one.id} id={one.id} paused={one.status === "paused"} />)}
            </div>
          )
        }
      </Loaded>
      {act !== null && <Acting {...act} onClose={() => setAct(null)} />}
      {params.get("new") !== null && <NewSchedule onClose={() => change({ new: null })} />}
    </Page>
  );
}

function List({ found, chosen, onAct, onOpen }: { found: Schedule[]; chosen: string | null; onAct: (act: Act) => void; onOpen: (id: string) => void }) {
  const { row } = useRows(found.length, (at) => onOpen(found[at]!.id));
  return (
    <table>
      <thead>
        <tr>
          <th>Workflow</th>
          <th>When</th>
          <th>Next</th>
          <th>Last</th>
          <th>If one is still open</th>
          <th>If missed</th>
          <th />
        </tr>
      </thead>
      <tbody>
        {found.map((one, at) => {
          const words = inWords(one.cron, one.timezone);
          const paused = one.status === "paused";
          return (
            <tr key={one.id} {...row(at)} class={one.id === chosen ? "cur" : row(at).class}>
              <td>
                <button type="button" class="name" aria-pressed={one.id === chosen} onClick={() => onOpen(one.id)}>
                  <Shown text={one.workflow_id} />
                </button>{" "}
                <span class="dim3">
                  <Shown text={one.key} mono />
                </span>
              </td>
              <td>
                {words !== null && <span title={one.timezone}>{words}</span>}{" "}
                <code class="dim3">
                  {one.cron}
                  {words === null && ` ${one.timezone}`}
                </code>
              </td>
              <td>
                {paused ? (
                  <span class="ph p-held">
                    <PhaseIcon phase="held" /> paused
                  </span>
                ) : (
                  <Time at={one.next_run_at} />
                )}
              </td>
              <td>{one.last_run_at == null ? <span class="dim3">–</span> : <Time at={one.last_run_at} />}</td>
              <td class="dim">{{ queue: "waits its turn", skip: "skipped", allow: "starts beside it" }[one.overlap]}</td>
              <td class="dim">{{ latest: "the last one", skip: "none", all: "all of them" }[one.missed]}</td>
              <td class="r">
                <span class="row acts">
                  <button type="button" class="btn sm" aria-label={`Run ${one.workflow_id} ${one.key} now`} onClick={() => onAct({ kind: "run", of: one })}>
                    Run now
                  </button>
                  <button type="button" class="btn sm" aria-label={`${paused ? "Resume" : "Pause"} ${one.workflow_id} ${one.key}`} onClick={() => onAct({ kind: "turn", of: one })}>
                    {paused ? <Play size={13} aria-hidden="true" /> : <Pause size={13} aria-hidden="true" />}
                  </button>
                  <button type="button" class="btn sm ghost" aria-label={`Delete ${one.workflow_id} ${one.key}`} onClick={() => onAct({ kind: "delete", of: one })}>
                    <Trash2 size={13} aria-hidden="true" />
                  </button>
                </span>
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

function Acting({ kind, of, onClose }: Act & { onClose: () => void }) {
  const path = `/api/v1/schedules/${of.id}`;
  const name = `${of.workflow_id} ${of.key}`;
  const shared = { onClose, refresh: ["/api/v1/schedules", "/api/v1/executions"] };
  if (kind === "run") {
    return (
      <ActionDialog
        {...shared}
        title={`Run ${name} now`}
        effects={[`One execution of ${of.workflow_id} starts now, with the input of the schedule.`, "Due times stay as they are."]}
        word="Run"
        call={{ method: "POST", path: `${path}/run` }}
        command={`perdure schedules run ${of.id}`}
        python={`await client.schedules.run("${of.id}")`}
        done={`Started ${of.workflow_id}.`}
      />
    );
  }
  if (kind === "delete") {
    return (
      <ActionDialog
        {...shared}
        title={`Delete the schedule ${name}`}
        effects={[
          "It starts nothing more. Executions that it started stay.",
          ...(of.declared ? ["The code declares it: the next registration of the current deployment makes it again. Pause it to keep it from running."] : []),
        ]}
        word="Delete"
        danger
        call={{ method: "DELETE", path }}
        command={`perdure schedules delete ${of.id}`}
        python={`await client.schedules.delete("${of.id}")`}
        done={`Deleted the schedule ${name}.`}
      />
    );
  }
  const paused = of.status === "paused";
  return (
    <ActionDialog
      {...shared}
      title={`${paused ? "Resume" : "Pause"} the schedule ${name}`}
      effects={paused ? ["It goes on with its next due time."] : ["It starts nothing until you resume it.", "Due times that pass meanwhile do not count as missed."]}
      word={paused ? "Resume" : "Pause"}
      call={{ method: "PATCH", path, body: { status: paused ? "active" : "paused" } }}
      command={`perdure schedules ${paused ? "resume" : "pause"} ${of.id}`}
      done={`${paused ? "Resumed" : "Paused"} the schedule ${name}.`}
    />
  );
}

const DAY = 86_400_000;

/** Seven days of 24 hours: yesterday and the days after it. A tick for each due time. */
function Week({ found }: { found: Schedule[] }) {
  const today = new Date(now());
  today.setHours(0, 0, 0, 0);
  const days = Array.from({ length: 7 }, (_, at) => {
    const day = new Date(today);
    day.setDate(day.getDate() + at - 1);
    return day;
  });
  const end = new Date(days[6]!);
  end.setDate(end.getDate() + 1);
  const calendar = useGet("/api/v1/schedules/calendar", { params: { query: { from: days[0]!.toISOString(), to: end.toISOString() } } }, { every: 30_000 }).data;
  if (calendar === undefined) return null;
  const known = new Set(found.map((one) => one.id));
  const slots = calendar.schedules.filter((one) => known.has(one.schedule_id)).flatMap((one) => one.slots.map((slot) => ({ ...slot, name: `${one.workflow_id} ${one.key}` })));
  return (
    <section aria-label="Seven days">
      <div class="row">
        <h2 class="nowrap">Seven days</h2>
        <span class="dim3">your time zone · filled: started · hollow: due · crossed: skipped</span>
      </div>
      <div class="week" role="table" aria-label="Due times of seven days">
        <div class="hours" aria-hidden="true">
          {[0, 6, 12, 18].map((hour) => (
            <span key={hour} style={{ left: `${(100 * hour) / 24}%` }}>
              {hour}:00
            </span>
          ))}
        </div>
        {days.map((day, at) => {
          const next = days[at + 1] ?? end;
          const length = next.getTime() - day.getTime(); // 23 or 25 hours where clocks change
          const inside = slots.filter((slot) => Date.parse(slot.due_at) >= day.getTime() && Date.parse(slot.due_at) < next.getTime());
          return (
            <div class="day" key={day.getTime()} role="row">
              <span role="rowheader" class={day.getTime() === today.getTime() ? "m" : "dim"}>
                {day.toLocaleDateString("en-GB", { weekday: "short", day: "numeric" })}
                {length !== DAY && <span class="dim3"> {length / 3_600_000} h</span>}
              </span>
              <div class="ticks" role="cell" aria-label={`${inside.length} due times`}>
                {inside.map((slot) => (
                  <i key={`${slot.due_at} ${slot.name}`} class={`due ${slot.state}`} title={`${slot.name}: ${clock(slot.due_at).slice(0, 5)}, ${slot.state}`} style={{ left: `${(100 * (Date.parse(slot.due_at) - day.getTime())) / length}%` }} />
                ))}
                {day.getTime() === today.getTime() && <i class="nowline" style={{ left: `${(100 * (now() - day.getTime())) / length}%` }} />}
              </div>
            </div>
          );
        })}
      </div>
      {calendar.schedules.some((one) => one.more) && <p class="dim3">Schedules with more than 500 due times show the first 500.</p>}
    </section>
  );
}

/** What became of the latest due times, and the ones to come. */
function Fires({ id, paused }: { id: string; paused: boolean }) {
  const path = { params: { path: { schedule_id: id } } };
  const fires = useGet("/api/v1/schedules/{schedule_id}/fires", { params: { ...path.params, query: { limit: 20 } } }, { every: 5_000 });
  const next = useGet("/api/v1/schedules/{schedule_id}/next", { params: { ...path.params, query: { count: 10 } } }, { every: 30_000 });
  return (
    <div class="cols">
      <section aria-label="Latest due times">
        <h2>Latest due times</h2>
        <Loaded of={fires}>
          {({ fires: found }) =>
            found.length === 0 ? (
              <p class="dim">None yet.</p>
            ) : (
              <table>
                <tbody>
                  {found.map((one) => (
                    <tr key={`${one.due_at} ${one.fired_at}`}>
                      <td>
                        <Time at={one.due_at} />
                      </td>
                      <td>
                        {one.state} {one.by_hand && <span class="tag">by hand</span>}
                      </td>
                      <td class="fit dim">{one.reason != null && <Shown text={one.reason} />}</td>
                      <td class="r">{one.execution_id != null && <Link href={`/executions/${one.execution_id}`}>Open</Link>}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )
          }
        </Loaded>
      </section>
      <section aria-label="Next due times">
        <h2>Next due times</h2>
        {paused && <p class="dim">The schedule is paused. Until a person resumes it, these times start nothing.</p>}
        <Loaded of={next}>{({ next: times }) => <Times of={times} />}</Loaded>
      </section>
    </div>
  );
}

/** In the schedule's zone, as the server writes them: `2026-11-30T09:00:00+01:00`. */
function Times({ of }: { of: string[] }) {
  return (
    <ol class="times num">
      {of.map((one) => (
        <li key={one} title={one}>
          {new Date(`${one.slice(0, 19)}Z`).toLocaleString("en-GB", { timeZone: "UTC", weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" })}{" "}
          <span class="dim3">UTC{one.replace(/^.*?([+-]\d\d:\d\d)$/, "$1").replace("+00:00", "")}</span>
        </li>
      ))}
    </ol>
  );
}

function NewSchedule({ onClose }: { onClose: () => void }) {
  const zones = ["UTC", ...Intl.supportedValuesOf("timeZone").filter((zone) => zone !== "UTC")];
  const [fields, setFields] = useState({ workflow: "", cron: "0 9 * * MON-FRI", timezone: Intl.DateTimeFormat().resolvedOptions().timeZone, key: "default", overlap: "queue", missed: "latest", payload: "" });
  const workflows = useGet("/api/v1/workflows", { params: { query: { limit: 1_000 } } });
  const names = [...new Set((workflows.data ?? []).map((one) => one.workflow_id))];
  const workflow = fields.workflow === "" ? (names[0] ?? "") : fields.workflow;
  const [asked, setAsked] = useState({ cron: fields.cron, timezone: fields.timezone });
  useEffect(() => {
    const timer = setTimeout(() => setAsked({ cron: fields.cron, timezone: fields.timezone }), 250);
    return () => clearTimeout(timer);
  }, [fields.cron, fields.timezone]);
  const preview = useGet("/api/v1/schedules/preview", { params: { query: { ...asked, count: 10 } } });
  const fault = fields.payload.trim() === "" ? null : faultOf(fields.payload);
  const body = {
    workflow_id: workflow,
    cron: fields.cron,
    timezone: fields.timezone,
    key: fields.key,
    overlap: fields.overlap,
    missed: fields.missed,
    ...(fields.payload.trim() === "" || fault !== null ? {} : { payload: JSON.parse(fields.payload) as unknown }),
  };
  const call: Call = { method: "POST", path: "/api/v1/schedules", body };
  const set = (name: keyof typeof fields) => (event: { currentTarget: { value: string } }) => setFields({ ...fields, [name]: event.currentTarget.value });
  const input = "payload" in body ? ` --input ${quoted(JSON.stringify(body.payload))}` : "";
  return (
    <ActionDialog
      title="New schedule"
      effects={["It starts the workflow at each due time. A schedule of the same workflow and key is replaced."]}
      word="Create"
      call={call}
      command={`perdure schedules create ${quoted(workflow)} ${quoted(fields.cron)} --timezone ${quoted(fields.timezone)} --key ${quoted(fields.key)} --overlap ${fields.overlap} --missed ${fields.missed}${input}`}
      invalid={workflow === "" ? "Register a workflow first: a schedule starts one." : fields.key === "" ? "The key needs a value." : fault}
      done={`Created the schedule ${workflow} ${fields.key}.`}
      refresh={["/api/v1/schedules"]}
      onClose={onClose}
    >
      <div class="two">
        <Labelled label="Workflow">
          <select class="input" value={workflow} onChange={set("workflow")}>
            {names.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </Labelled>
        <Labelled label="Key" help="Its name within the workflow.">
          <input class="input" value={fields.key} onInput={set("key")} />
        </Labelled>
        <Labelled label="Cron expression" wrong={preview.error === null ? undefined : preview.error.message} help={preview.error === null ? (inWords(fields.cron, fields.timezone) ?? "Minute, hour, day, month, weekday") : undefined}>
          <input class="input" value={fields.cron} autofocus onInput={set("cron")} />
        </Labelled>
        <Labelled label="Time zone">
          <select class="input" value={fields.timezone} onChange={set("timezone")}>
            {zones.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </Labelled>
        <Labelled label="If one is still open">
          <select class="input" value={fields.overlap} onChange={set("overlap")}>
            <option value="queue">wait</option>
            <option value="skip">skip</option>
            <option value="allow">start beside it</option>
          </select>
        </Labelled>
        <Labelled label="If missed while no server ran">
          <select class="input" value={fields.missed} onChange={set("missed")}>
            <option value="latest">start the last one</option>
            <option value="skip">start none</option>
            <option value="all">start all</option>
          </select>
        </Labelled>
      </div>
      <Labelled label="Input as JSON (optional)" help="Without it, the input is the due time with its context." wrong={fault ?? undefined}>
        <textarea class="input" spellcheck={false} value={fields.payload} onInput={set("payload")} />
      </Labelled>
      {preview.error === null && preview.data !== undefined && (
        <section aria-label="The next ten times">
          <h3>The next ten times</h3>
          <Times of={preview.data.next} />
        </section>
      )}
    </ActionDialog>
  );
}
