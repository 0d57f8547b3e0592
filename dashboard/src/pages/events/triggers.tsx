import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Trash2 } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { count } from "../../model/words";
import { ActionDialog } from "../../parts/action";
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
  return (
    <>
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
      {gone !== null && (
        <ActionDialog
          title={`Delete the trigger of ${gone.workflow_id} on ${gone.event_topic}`}
          effects={[
            "Events of the topic start it no more. Executions that it started stay.",
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
