import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Pencil, Plus, Trash2 } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { count } from "../../model/words";
import { ActionDialog } from "../../parts/action";
import { Labelled } from "../../parts/controls";
import { Empty, Loaded } from "../../parts/state";
import { Shown } from "../../parts/text";

type Trigger = Schemas["EventTriggerResponse"];

const EXAMPLE = `from perdure import Context, TopicEvent, workflow

@workflow(trigger_on="orders/placed")
async def confirm(ctx: Context, event: TopicEvent) -> None: ...`;

/** Workflows that events start, with how far behind each is. */
export function Triggers() {
  const triggers = useGet("/api/v1/event-triggers", { params: { query: { limit: 500 } } }, { every: 2_000 });
  const [gone, setGone] = useState<Trigger | null>(null);
  const [made, setMade] = useState<Trigger | "new" | null>(null);
  return (
    <>
      <p class="row pad">
        <button type="button" class="btn" onClick={() => setMade("new")}>
          <Plus size={14} aria-hidden="true" /> New trigger
        </button>
      </p>
      <Loaded of={triggers}>
        {({ triggers: found }) =>
          found.length === 0 ? (
            <Empty title="No triggers yet" code={EXAMPLE} docs="docs/triggers.md">
              A trigger starts a workflow for each event of a topic, or for batches of events.
            </Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Topic</th>
                  <th>Starts</th>
                  <th>Batch</th>
                  <th class="r">Cursor</th>
                  <th class="r">Behind</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {found.map((one) => (
                  <tr key={one.id}>
                    <td>
                      <Link href={`/events/topics/${encodeURIComponent(one.event_topic)}`} class="m">
                        <Shown text={one.event_topic} />
                      </Link>
                    </td>
                    <td>
                      <Link href={`/workflows/${encodeURIComponent(one.workflow_id)}`}>
                        <Shown text={one.workflow_id} />
                      </Link>
                    </td>
                    <td class="dim">
                      {one.batch_size === 1 ? "each event" : `${count(one.batch_size)} events`}
                      {one.batch_timeout_seconds != null && ` or after ${one.batch_timeout_seconds} s`}
                    </td>
                    <td class="r num dim">{count(one.last_sequence_id)}</td>
                    <td class={one.waiting > 0 ? "r num warn" : "r num dim"}>{count(one.waiting)}</td>
                    <td class="r">
                      <button type="button" class="btn sm ghost" aria-label={`Edit the trigger of ${one.workflow_id} on ${one.event_topic}`} onClick={() => setMade(one)}>
                        <Pencil size={13} aria-hidden="true" />
                      </button>
                      <button type="button" class="btn sm ghost" aria-label={`Delete the trigger of ${one.workflow_id} on ${one.event_topic}`} onClick={() => setGone(one)}>
                        <Trash2 size={13} aria-hidden="true" />
                      </button>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
      {made !== null && <TriggerForm of={made === "new" ? null : made} onClose={() => setMade(null)} />}
      {gone !== null && (
        <ActionDialog
          title={`Delete the trigger of ${gone.workflow_id} on ${gone.event_topic}`}
          effects={[
            "Events of the topic no longer start it. Executions that it started stay.",
            ...(gone.waiting > 0 ? [`${count(gone.waiting)} events that it has not taken start nothing.`] : []),
            ...(gone.declared ? ["The code declares it: the next registration of the current deployment makes it again, at the end of the topic."] : []),
          ]}
          word="Delete"
          danger
          call={{ method: "DELETE", path: `/api/v1/event-triggers/${gone.id}` }}
          done="Deleted the trigger."
          refresh={["/api/v1/event-triggers"]}
          onClose={() => setGone(null)}
        />
      )}
    </>
  );
}

/** Make a trigger, or change how an existing one takes its events. The pair of topic and workflow names it. */
function TriggerForm({ of, onClose }: { of: Trigger | null; onClose: () => void }) {
  const workflows = useGet("/api/v1/workflows", { params: { query: { limit: 1_000 } } });
  const deployments = useGet("/api/v1/deployments", { params: { query: { limit: 200 } } });
  const current = deployments.data?.deployments.find((one) => one.current)?.id;
  const names = [...new Set((workflows.data ?? []).filter((one) => one.deployment_id === current).map((one) => one.workflow_id))];
  const [topic, setTopic] = useState(of?.event_topic ?? "");
  const [chosen, setWorkflow] = useState(of?.workflow_id ?? "");
  const [size, setSize] = useState(String(of?.batch_size ?? 1));
  const [seconds, setSeconds] = useState(of?.batch_timeout_seconds == null ? "" : String(of.batch_timeout_seconds));
  const [queue, setQueue] = useState(of?.queue_name ?? "");
  const workflow = chosen || (names[0] ?? "");
  const whole = (text: string, most: number) => /^[1-9]\d*$/.test(text) && Number(text) <= most;
  const wrong = {
    topic: topic.trim() === "" ? "Name the topic." : undefined,
    size: whole(size, 10_000) ? undefined : "1 to 10,000.",
    seconds: seconds === "" || whole(seconds, 2_678_400) ? undefined : "1 to 2,678,400, or empty.",
  };
  const each = size === "1" && seconds === "";
  return (
    <ActionDialog
      title={of === null ? "New trigger" : `Change the trigger of ${of.workflow_id} on ${of.event_topic}`}
      effects={[
        each ? `Each event of the topic starts an execution of ${workflow}.` : `Up to ${size} events of the topic start one execution of ${workflow}.`,
        of === null ? "It takes events that are published from now on." : "It goes on behind the last event that it took.",
        ...(of?.declared === true ? ["The code declares this trigger: the next registration of the current deployment takes the change back."] : []),
      ]}
      word={of === null ? "Create" : "Change"}
      invalid={current === undefined ? "No deployment is in use yet." : workflow === "" ? "The current deployment has no workflow." : (wrong.topic ?? wrong.size ?? wrong.seconds ?? null)}
      call={{
        method: "POST",
        path: "/api/v1/event-triggers/register",
        body: {
          workflow_id: workflow,
          deployment_id: current ?? "",
          event_topic: topic.trim(),
          batch_size: Number(size),
          ...(seconds === "" ? {} : { batch_timeout_seconds: Number(seconds) }),
          ...(queue === "" ? {} : { queue_name: queue }),
        },
      }}
      done={of === null ? "Created the trigger." : "Changed the trigger."}
      refresh={["/api/v1/event-triggers"]}
      onClose={onClose}
    >
      {of === null && (
        <>
          <Labelled label="Topic" wrong={topic === "" ? undefined : wrong.topic}>
            <input class="input" autofocus value={topic} onInput={(event) => setTopic(event.currentTarget.value)} />
          </Labelled>
          <Labelled label="Workflow">
            <select class="input" value={workflow} onChange={(event) => setWorkflow(event.currentTarget.value)}>
              {names.map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </select>
          </Labelled>
        </>
      )}
      <div class="two">
        <Labelled label="Events for one execution" wrong={wrong.size}>
          <input class="input" inputMode="numeric" value={size} onInput={(event) => setSize(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="Seconds to wait for them (optional)" help="Then a smaller batch starts." wrong={wrong.seconds}>
          <input class="input" inputMode="numeric" value={seconds} onInput={(event) => setSeconds(event.currentTarget.value)} />
        </Labelled>
      </div>
      <Labelled label="Queue (optional)" help="The workflow's own queue by default.">
        <input class="input" value={queue} onInput={(event) => setQueue(event.currentTarget.value)} />
      </Labelled>
    </ActionDialog>
  );
}
