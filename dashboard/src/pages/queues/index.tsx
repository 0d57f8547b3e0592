import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Pause, Play } from "lucide-preact";
import { now, type Schemas } from "../../api/client";
import { useQueryClient } from "@tanstack/preact-query";
import { useLive } from "../../api/live";
import { useGet } from "../../api/query";
import { duration } from "../../model/time";
import { count, counted } from "../../model/words";
import { EndBars, Use } from "../../parts/bars";
import { useCommands } from "../../keys";
import { Page } from "../../parts/page";
import { PauseDialog, PausedNote } from "../../parts/pauses";
import { PhaseIcon } from "../../parts/phase";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown } from "../../parts/text";
import { useMay } from "../../session";
import { useQueryParams } from "../../url";
import "./queues.css";

type QueueState = Schemas["QueueState"];

const EXAMPLE = `from perdure import Context, Queue, workflow

mail = Queue("mail", concurrency_limit=50)

@workflow(queue=mail)
async def send_mail(ctx: Context, to: str) -> None: ...`;

export default function Queues() {
  const queues = useGet("/api/v1/queues", {}, { every: 30_000 });
  const client = useQueryClient();
  useLive("queues", ({ event, data }) => {
    if (event === "queues") client.setQueriesData<Schemas["QueueList"]>({ queryKey: ["/api/v1/queues"] }, { queues: data.queues });
  });
  return (
    <Page title="Queues" bare>
      <Loaded of={queues}>
        {({ queues: found }) =>
          found.length === 0 ? (
            <Empty title="No queues yet" code={EXAMPLE} docs="docs/workflows.md#queues">
              A queue limits how many executions run at once. It appears here when a worker registers it, or when an execution uses it.
            </Empty>
          ) : (
            <List queues={found} />
          )
        }
      </Loaded>
    </Page>
  );
}

function List({ queues }: { queues: QueueState[] }) {
  const [params, change] = useQueryParams();
  const pauses = useGet("/api/v1/pauses", {}, { every: 5_000 });
  const [turning, setTurning] = useState<string | null>(null);
  const may = useMay("admin");
  const open = queues.find((one) => one.name === params.get("queue")) ?? queues.toSorted((a, b) => b.queued - a.queued || b.running - a.running)[0]!;
  const { row } = useRows(queues.length, (at) => change({ queue: queues[at]!.name }));
  useCommands([{ title: open.pause == null ? `Pause ${open.name}` : `Resume ${open.name}`, run: () => setTurning(open.name) }]);
  const others = (pauses.data?.pauses ?? []).filter((one) => one.kind === "key");
  const turned = queues.find((one) => one.name === turning);
  return (
    <div class="queues">
      {queues
        .filter((one) => one.pause != null)
        .map((one) => (
          <PausedNote key={one.name} pause={one.pause!} onEnd={() => setTurning(one.name)} />
        ))}
      {others.map((pause) => (
        <div class="note p-held" key={`${pause.name} ${pause.concurrency_key}`}>
          <PhaseIcon phase="held" />
          <span>
            The key <Shown text={pause.concurrency_key ?? ""} mono /> of <Shown text={pause.name} /> is paused: {counted(pause.held, "execution")} held.
          </span>
        </div>
      ))}
      <table>
        <thead>
          <tr>
            <th>Queue</th>
            <th>Running</th>
            <th class="r">Queued</th>
            <th>Per key</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {queues.map((one, at) => (
            <tr key={one.name} {...row(at)} class={one.name === open.name ? "cur tall" : `${row(at).class} tall`}>
              <td>
                <button type="button" class="name" aria-pressed={one.name === open.name} onClick={() => change({ queue: one.name })}>
                  <Shown text={one.name} />
                </button>{" "}
                {one.pause != null && (
                  <span class="ph p-held">
                    <PhaseIcon phase="held" /> paused
                  </span>
                )}
              </td>
              <td class="use">
                <Use n={one.running} limit={one.total_limit ?? null} />
              </td>
              <td class="r num">{count(one.queued)}</td>
              <td class="dim">{one.concurrency_limit == null ? "–" : `${count(one.concurrency_limit)} at once`}</td>
              <td class="r">
                <button
                  type="button"
                  class={`btn sm ${one.pause != null ? "pri" : ""}`}
                  disabled={!may}
                  title={may ? undefined : "Needs the role admin."}
                  aria-label={`${one.pause != null ? "Resume" : "Pause"} ${one.name}`}
                  onClick={() => setTurning(one.name)}
                >
                  {one.pause != null ? <Play size={13} aria-hidden="true" /> : <Pause size={13} aria-hidden="true" />}
                  {one.pause != null ? "Resume" : "Pause"}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <One key={open.name} queue={open} />
      {turned !== undefined && <PauseDialog kind="queue" name={turned.name} pause={turned.pause ?? undefined} onClose={() => setTurning(null)} />}
    </div>
  );
}

/** One queue: its keys as slots, who is next and why, and what ended. */
function One({ queue }: { queue: QueueState }) {
  const stats = useGet("/api/v1/queues/{name}/stats", { params: { path: { name: queue.name }, query: { range: "24h" } } }, { every: 3_000 }).data;
  const next = useGet("/api/v1/queues/{name}/next", { params: { path: { name: queue.name }, query: { limit: 20 } } }, { every: 2_000 }).data;
  const limit = queue.concurrency_limit ?? null;
  const oldest = next?.executions[0]?.ready_at;
  return (
    <>
      <div class="cols">
        {stats !== undefined && stats.keys.length > 0 && (
          <section aria-label="Keys">
            <div class="row">
              <h2>
                <Shown text={queue.name} />: slots in use
              </h2>
              <span class="dim3">{counted(stats.keys.length, "key")}</span>
            </div>
            <table>
              <thead>
                <tr>
                  <th>Key</th>
                  <th>Running</th>
                  <th class="r">Queued</th>
                </tr>
              </thead>
              <tbody>
                {stats.keys.slice(0, 20).map((one) => (
                  <tr key={one.concurrency_key ?? ""}>
                    <td>{one.concurrency_key === null ? <span class="dim">no key</span> : <Shown text={one.concurrency_key} mono />}</td>
                    <td>
                      <Slots n={one.running} limit={limit} />
                    </td>
                    <td class="r num">{count(one.queued)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
        )}
        {next !== undefined && (
          <section aria-label="Next in line">
            <div class="row">
              <h2>
                <Shown text={queue.name} />: next in line
              </h2>
              <span class="grow" />
              <span class="dim3">{oldest == null ? "in the order of the server" : `the first is ready for ${duration(now() - Date.parse(oldest))}`}</span>
            </div>
            {next.executions.length === 0 ? (
              <p class="dim">Nothing is queued.</p>
            ) : (
              <ol class="line">
                {next.executions.map((one, at) => (
                  <li class="row" key={one.id}>
                    <span class="num dim3 at">{at + 1}</span>
                    <span class="p-queued">
                      <PhaseIcon phase="queued" />
                    </span>
                    <Link href={`/executions/${one.id}`} class="nowrap">
                      <Shown text={one.key ?? `…${one.id.slice(-8)}`} mono />
                    </Link>
                    {one.concurrency_key !== null && (
                      <span class="tag">
                        <Shown text={one.concurrency_key} />
                      </span>
                    )}
                    <span class="grow" />
                    <span class="dim trunc" title={one.why?.sentence}>
                      <Shown text={one.why?.sentence ?? "It has left the queue."} />
                    </span>
                  </li>
                ))}
              </ol>
            )}
          </section>
        )}
      </div>
      {stats !== undefined && (
        <section aria-label="Ended">
          <div class="row">
            <h2>
              <Shown text={queue.name} />: ended, 24 hours
            </h2>
            <span class="grow" />
            <Link href={`/executions?queue_name=${encodeURIComponent(queue.name)}`} class="dim">
              Its executions
            </Link>
          </div>
          <EndBars buckets={stats.ended} />
        </section>
      )}
      {stats === undefined && (
        <p class="dim">
          <Link href={`/executions?queue_name=${encodeURIComponent(queue.name)}`}>
            Executions of <Shown text={queue.name} />
          </Link>
        </p>
      )}
    </>
  );
}

function Slots({ n, limit }: { n: number; limit: number | null }) {
  if (limit === null || limit > 12) return <Use n={n} limit={limit} />;
  return (
    <span class="row">
      <span class="slots" aria-hidden="true">
        {Array.from({ length: Math.max(limit, n) }, (_, at) => (
          <i key={at} class={at < n ? "on" : ""} />
        ))}
      </span>
      <span class="num dim3">
        {n} of {limit}
      </span>
    </span>
  );
}
