import { useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { Plus } from "lucide-preact";
import { useGet } from "../../api/query";
import { asPython, quoted } from "../../model/calls";
import { faultOf } from "../../model/schema";
import { count } from "../../model/words";
import { ActionDialog } from "../../parts/action";
import { Labelled, Segments } from "../../parts/controls";
import { Page } from "../../parts/page";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";
import { Triggers } from "./triggers";
import "./events.css";

const EXAMPLE = `perdure publish orders/placed --data '{"order_id": 7}'`;

export default function Events() {
  const [path, navigate] = useLocation();
  const [params, change] = useQueryParams();
  const view = path.endsWith("/triggers") ? "triggers" : "topics";
  const prefix = params.get("q") ?? "";
  const topics = useGet("/api/v1/topics", { params: { query: { limit: 200, ...(prefix === "" ? {} : { prefix }) } } }, { every: 2_000 });
  return (
    <Page
      title="Events"
      bare
      actions={
        <>
          <Segments
            label="Show"
            of={
              [
                ["topics", "Topics"],
                ["triggers", "Triggers"],
              ] as const
            }
            value={view}
            onChange={(next) => navigate(next === "topics" ? "/events" : "/events/triggers")}
          />
          {view === "topics" && (
            <input class="input find" type="search" aria-label="Find a topic" placeholder="Topic begins with" value={prefix} onInput={(event) => change({ q: event.currentTarget.value === "" ? null : event.currentTarget.value })} />
          )}
          <button type="button" class="btn" onClick={() => change({ publish: "1" })}>
            <Plus size={14} aria-hidden="true" /> Publish
          </button>
        </>
      }
    >
      {view === "triggers" ? (
        <Triggers />
      ) : (
        <Loaded of={topics}>
          {({ topics: found, next_cursor }) =>
            found.length === 0 ? (
              prefix === "" ? (
                <Empty title="No topics yet" code={EXAMPLE} docs="docs/triggers.md">
                  A topic appears here with its first event. Workflows wait for events and publish them; triggers start workflows from them.
                </Empty>
              ) : (
                <Empty title={`No topic begins with “${prefix}”`}>Change or clear the words above.</Empty>
              )
            ) : (
              <>
                <TopicTable found={found} />
                {next_cursor != null && <p class="dim pad">The first {count(found.length)} topics. Type the beginning of a name to see others.</p>}
              </>
            )
          }
        </Loaded>
      )}
      {params.get("publish") !== null && <Publish topic="" onClose={() => change({ publish: null })} />}
    </Page>
  );
}

function TopicTable({ found }: { found: { topic: string; last_sequence_id: number; first_sequence_id?: number | null; last_event_at?: string | null; last_event_type?: string | null }[] }) {
  const [, navigate] = useLocation();
  const { row } = useRows(found.length, (at) => navigate(`/events/topics/${encodeURIComponent(found[at]!.topic)}`));
  return (
    <table>
      <thead>
        <tr>
          <th>Topic</th>
          <th class="r">Events kept</th>
          <th class="r">Last number</th>
          <th>Last type</th>
          <th class="r">Last event</th>
        </tr>
      </thead>
      <tbody>
        {found.map((one, at) => (
          <tr key={one.topic} {...row(at)}>
            <td>
              <Link href={`/events/topics/${encodeURIComponent(one.topic)}`} class="m">
                <Shown text={one.topic} />
              </Link>
            </td>
            <td class="r num">{count(one.first_sequence_id == null ? 0 : one.last_sequence_id - one.first_sequence_id + 1)}</td>
            <td class="r num dim">{count(one.last_sequence_id)}</td>
            <td class="dim">{one.last_event_type != null && <Shown text={one.last_event_type} />}</td>
            <td class="r">{one.last_event_at == null ? <span class="dim3">–</span> : <Time at={one.last_event_at} />}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Publish one event. */
export function Publish({ topic: given, onClose }: { topic: string; onClose: () => void }) {
  const [topic, setTopic] = useState(given);
  const [text, setText] = useState("{}");
  const [type, setType] = useState("");
  const [dedup, setDedup] = useState("");
  const fault = faultOf(text);
  const data = fault === null ? (JSON.parse(text) as unknown) : null;
  const event = { data, ...(type === "" ? {} : { event_type: type }), ...(dedup === "" ? {} : { dedup_key: dedup }) };
  return (
    <ActionDialog
      title={given === "" ? "Publish an event" : `Publish to ${given}`}
      effects={["Executions that wait for it continue, and triggers of the topic start workflows.", "An event cannot be taken back."]}
      word="Publish"
      call={{ method: "POST", path: "/api/v1/events/publish", body: { topic, events: [event] } }}
      command={`perdure publish ${quoted(topic)} --data ${quoted(JSON.stringify(data))}${type === "" ? "" : ` --type ${quoted(type)}`}${dedup === "" ? "" : ` --dedup-key ${quoted(dedup)}`}`}
      python={`await client.publish(${asPython(topic)}, ${asPython(data)}${type === "" ? "" : `, event_type=${asPython(type)}`}${dedup === "" ? "" : `, dedup_key=${asPython(dedup)}`})`}
      invalid={topic === "" ? "The topic needs a name." : fault}
      done={`Published to ${topic}.`}
      refresh={["/api/v1/topics", "/api/v1/events", "/api/v1/event-triggers"]}
      onClose={onClose}
    >
      {given === "" && (
        <Labelled label="Topic">
          <input class="input" autofocus value={topic} onInput={(event) => setTopic(event.currentTarget.value)} />
        </Labelled>
      )}
      <Labelled label="Data as JSON">
        <textarea class="input" spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      </Labelled>
      <div class="two">
        <Labelled label="Type (optional)">
          <input class="input" value={type} onInput={(event) => setType(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="Deduplication key (optional)" help="A second event with the same key is not published.">
          <input class="input" value={dedup} onInput={(event) => setDedup(event.currentTarget.value)} />
        </Labelled>
      </div>
    </ActionDialog>
  );
}
