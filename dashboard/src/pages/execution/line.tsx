import { Link } from "wouter-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { count, counted, plainer, shortId, visible } from "../../model/words";
import { Phase } from "../../parts/phase";
import { Shown, Time } from "../../parts/text";

const SHOWN = 20;

/** Who is before a queued execution, and who holds what it waits for. */
export function Line({ execution, why }: { execution: Schemas["ExecutionResponse"]; why: Schemas["Why"] | undefined }) {
  const name = execution.queue_name ?? execution.workflow_id;
  const next = useGet("/api/v1/queues/{name}/next", { params: { path: { name }, query: { limit: SHOWN } } }, { every: 5_000 }).data;
  const place = next?.executions.findIndex((one) => one.id === execution.id) ?? -1;
  const holders = why?.holders ?? [];
  const held = why?.held_by_count ?? holders.length;
  return (
    <div class="pad col gap16">
      {holders.length > 0 && (
        <section aria-label="What it waits for">
          <h2>{why?.rule === "turn" ? "The turn before" : "Who uses the slots"}</h2>
          <table>
            <thead>
              <tr>
                <th>Phase</th>
                <th>Execution</th>
                <th class="r">Running since</th>
              </tr>
            </thead>
            <tbody>
              {holders.map((one) => (
                <tr key={one.execution_id}>
                  <td>
                    <Phase phase={one.phase} />
                  </td>
                  <td>
                    <Link href={`/executions/${one.execution_id}`}>
                      <Shown text={one.workflow_id} /> <code class="dim">{shortId(one.execution_id)}</code>
                    </Link>
                  </td>
                  <td class="r">{one.since != null && <Time at={one.since} />}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {held > holders.length && <p class="dim3">And {counted(held - holders.length, "more", "more")}.</p>}
        </section>
      )}
      {next !== undefined && next.executions.length > 0 && (
        <section aria-label="Next in line">
          <h2>
            Next in line of <Shown text={name} />
            <span class="dim"> · {place >= 0 ? `this one is number ${count(place + 1)}` : next.executions.length === SHOWN ? `this one is behind the first ${SHOWN}` : "this one is not in line yet"}</span>
          </h2>
          <table>
            <thead>
              <tr>
                <th class="r">Place</th>
                <th>Execution</th>
                <th>Ready</th>
                <th>Why it waits</th>
              </tr>
            </thead>
            <tbody>
              {next.executions.map((one, at) => (
                <tr key={one.id} class={one.id === execution.id ? "cur" : undefined} aria-current={one.id === execution.id ? "true" : undefined}>
                  <td class="r num">{at + 1}</td>
                  <td>
                    {one.id === execution.id ? <b>This execution</b> : (
                      <Link href={`/executions/${one.id}`}>
                        <Shown text={one.key ?? shortId(one.id)} mono />
                      </Link>
                    )}{" "}
                    {one.concurrency_key != null && (
                      <span class="tag">
                        <Shown text={one.concurrency_key} />
                      </span>
                    )}
                  </td>
                  <td>
                    <Time at={one.ready_at} />
                  </td>
                  <td class="trunc dim">{visible(plainer(one.why?.sentence ?? "It has left the queue."))}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <p style={{ marginTop: "8px" }}>
            <Link class="accent" href={`/queues?queue=${encodeURIComponent(name)}`}>Open the queue</Link>
          </p>
        </section>
      )}
    </div>
  );
}
