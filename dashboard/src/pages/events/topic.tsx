import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Pause, Play, Plus } from "lucide-preact";
import { useGet } from "../../api/query";
import { useCommands } from "../../keys";
import { quoted } from "../../model/calls";
import { clock, exact } from "../../model/time";
import { count, counted } from "../../model/words";
import { Page } from "../../parts/page";
import { Empty, Loaded } from "../../parts/state";
import { CopyButton, Shown } from "../../parts/text";
import { named, useQueryParams } from "../../url";
import { Publish } from "./index";
import "./events.css";

/** The newest events of a topic, live. */
export default function Topic({ params: { topic } }: { params: Record<string, string> }) {
  const name = named(topic);
  const [params, change] = useQueryParams();
  const [still, setStill] = useState(false);
  const words = (params.get("q") ?? "").toLowerCase();
  const open = params.get("event");
  const events = useGet("/api/v1/events", { params: { query: { topic: name, limit: 200, sort: "desc" } } }, { every: still ? undefined : 1_500 });
  const triggers = useGet("/api/v1/event-triggers", { params: { query: { limit: 1_000 } } }, { every: 5_000 });
  const mine = (triggers.data?.triggers ?? []).filter((one) => one.event_topic === name);
  useCommands([{ title: still ? "Follow the topic" : "Stop following the topic", key: "w", run: () => setStill(!still) }]);
  return (
    <Page
      title={name}
      bare
      actions={
        <>
          <input class="input find" type="search" aria-label="Find in the events" placeholder="Find in these events" value={params.get("q") ?? ""} onInput={(event) => change({ q: event.currentTarget.value === "" ? null : event.currentTarget.value })} />
          <button type="button" class="btn" aria-pressed={still} onClick={() => setStill(!still)}>
            {still ? <Play size={13} aria-hidden="true" /> : <Pause size={13} aria-hidden="true" />}
            {still ? "Follow" : "Hold still"}
          </button>
          <button type="button" class="btn pri" onClick={() => change({ publish: "1" })}>
            <Plus size={14} aria-hidden="true" /> Publish
          </button>
        </>
      }
    >
      {mine.length > 0 && (
        <p class="dim above">
          Starts{" "}
          {mine.map((one, at) => (
            <span key={one.id}>
              {at > 0 && ", "}
              <Link href={`/workflows/${encodeURIComponent(one.workflow_id)}`}>
                <Shown text={one.workflow_id} />
              </Link>
              {one.waiting > 0 && <span class="warn"> ({count(one.waiting)} behind)</span>}
            </span>
          ))}
          .
        </p>
      )}
      <Loaded of={events}>
        {({ events: found, has_more }) => {
          const shown = words === "" ? found : found.filter((one) => `${one.event_type ?? ""} ${JSON.stringify(one.data)}`.toLowerCase().includes(words));
          if (found.length === 0) {
            return (
              <Empty title="No events kept" code={`perdure publish ${quoted(name)} --data '{"order_id": 7}'`}>
                Each event of the topic appears here, newest first.
              </Empty>
            );
          }
          return (
            <>
              <table class="tail">
                <thead>
                  <tr>
                    <th class="r">Number</th>
                    <th>Time</th>
                    <th>Type</th>
                    <th>Data</th>
                  </tr>
                </thead>
                <tbody>
                  {shown.map((one) => {
                    const text = JSON.stringify(one.data);
                    const on = String(one.sequence_id) === open;
                    return (
                      <tr key={one.sequence_id} class={on ? "cur open" : ""}>
                        <td class="r num">{count(one.sequence_id)}</td>
                        <td class="num" title={exact(one.created_at)}>
                          {clock(one.created_at, true)}
                        </td>
                        <td class="dim">{one.event_type != null && <Shown text={one.event_type} />}</td>
                        <td class="fit">
                          <button type="button" class="data" aria-expanded={on} onClick={() => change({ event: on ? null : String(one.sequence_id) })}>
                            {on ? <Shown text={JSON.stringify(one.data, null, 2)} /> : <Shown text={text.length > 300 ? `${text.slice(0, 300)}…` : text} />}
                          </button>
                          {on && <CopyButton text={JSON.stringify(one.data, null, 2)} what="data" />}
                        </td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
              <p class="dim3 pad">
                {words === "" ? counted(found.length, "event") : `${shown.length} of ${counted(found.length, "event")}`}
                {has_more && " (the newest; older ones: GET /api/v1/events)"}
              </p>
            </>
          );
        }}
      </Loaded>
      {params.get("publish") !== null && <Publish topic={name} onClose={() => change({ publish: null })} />}
    </Page>
  );
}
