import { Link } from "wouter-preact";
import type { Schemas } from "../../api/client";
import { count } from "../../model/words";
import { PhaseIcon } from "../../parts/phase";
import { Empty } from "../../parts/state";
import { CopyButton, Shown, Time } from "../../parts/text";

type Worker = Schemas["WorkerResponse"];

/** Workers with what they hold. `lapsed`: the lease has ended, and its executions go to another worker. */
export function Workers({ found, full, deployment }: { found: Worker[]; full: boolean; deployment: string | null }) {
  const shown = found.filter((one) => deployment === null || one.deployment_id === deployment);
  const online = shown.filter((one) => one.state === "online").length;
  if (shown.length === 0) {
    return full ? (
      <Empty title="No workers" code="perdure work app.py --restart" docs="docs/operating.md">
        A worker runs the code of your workflows. It appears here when it registers, and for a while after its end.
      </Empty>
    ) : (
      <p class="note p-waiting">
        <span>
          No worker is registered. Start one: <code>perdure work app.py</code>
        </span>
        <CopyButton text="perdure work app.py" what="command" />
      </p>
    );
  }
  return (
    <section aria-label="Workers">
      <div class="row">
        <h2>Workers</h2>
        <span class="dim3">
          {count(online)} online{shown.length > online && `, ${count(shown.length - online)} not`}
        </span>
      </div>
      <table>
        <thead>
          <tr>
            <th>Worker</th>
            <th>Deployment</th>
            <th>Holds</th>
            <th>Python</th>
            <th>Last beat</th>
            <th>State</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((one) => {
            const phase = one.state === "lapsed" ? "failed" : one.state === "registered" ? "queued" : "running";
            const word = one.state === "lapsed" ? "lost: its lease has ended" : one.state === "registered" ? "registered, no beat yet" : "online";
            return (
              <tr key={one.id}>
                <td>
                  <span class={`p-${phase} row gap6`}>
                    <PhaseIcon phase={phase} />
                    <code title={one.id}>{one.id.slice(0, 8)}</code>
                    {one.kind !== "native" && <span class="tag">{one.kind}</span>}
                    {(one.host ?? one.url) != null && (
                      <span class="dim trunc" title={one.pid == null ? undefined : `Process ${one.pid} on ${one.host}`}>
                        <Shown text={(one.host ?? one.url)!} />
                        {one.pid != null && <span class="dim3 num"> · {one.pid}</span>}
                      </span>
                    )}
                  </span>
                </td>
                <td>
                  <Link href={`/deployments?id=${encodeURIComponent(one.deployment_id)}`}>
                    <Shown text={one.deployment_id} />
                  </Link>
                </td>
                <td class="holds">
                  <span class="row">
                    <span class="meter p-running">
                      <i style={{ width: `${Math.min(100, (100 * one.running) / Math.max(1, one.capacity))}%` }} />
                    </span>
                    <span class="num dim">
                      {count(one.running)} of {count(one.capacity)}
                    </span>
                  </span>
                </td>
                <td class="dim num">{one.python ?? "–"}</td>
                <td>{one.last_beat_at == null ? "–" : <Time at={one.last_beat_at} />}</td>
                <td class={one.state === "lapsed" ? "bad" : "dim"}>{word}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}
