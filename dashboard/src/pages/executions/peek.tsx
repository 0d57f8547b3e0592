import { useEffect } from "preact/hooks";
import { Link } from "wouter-preact";
import { X } from "lucide-preact";
import { useGet } from "../../api/query";
import { Phase } from "../../parts/phase";
import { Problem } from "../../parts/state";
import { Id, Key, Shown, Time } from "../../parts/text";
import { Details } from ".";
import type { Summary } from "./list";

const FINAL = ["completed", "failed", "cancelled"];

/** An execution beside the list: where it stands, and why. */
export function Peek({ id, row, onClose }: { id: string; row: Summary | undefined; onClose: () => void }) {
  const open = row !== undefined && !FINAL.includes(row.phase);
  const why = useGet("/api/v1/executions/{execution_id}/why", { params: { path: { execution_id: id } } }, { enabled: open, every: 10_000 });
  useEffect(() => void (open && why.refetch()), [row]); // the feed has replaced it

  return (
    <aside class="peek" aria-label="The chosen execution">
      <header class="row">
        {row !== undefined && <Phase phase={row.phase} big />}
        <h2 class="grow trunc">
          <Shown text={row?.workflow_id ?? "Execution"} />
        </h2>
        <button type="button" class="btn ghost icon sm" aria-label="Close the side panel" onClick={onClose}>
          <X size={16} aria-hidden="true" />
        </button>
      </header>
      {open && why.data !== undefined && why.data.sentence != null && (
        <p class="m">
          <Shown text={why.data.sentence} />
        </p>
      )}
      {why.error !== null && open && <Problem error={why.error} again={() => void why.refetch()} />}
      {row?.phase === "failed" && row.details != null && (
        <div class="box err">
          <Details row={row} />
        </div>
      )}
      {row !== undefined && (
        <dl class="dl tight">
          <dt>Key</dt>
          <dd>{row.key === null ? "none" : <Shown text={row.key} mono />}</dd>
          <dt>Id</dt>
          <dd>
            <Id id={row.id} />
          </dd>
          <dt>{row.phase.charAt(0).toUpperCase() + row.phase.slice(1)} since</dt>
          <dd>
            <Time at={row.since} />
          </dd>
          <dt>Created</dt>
          <dd>
            <Time at={row.created_at} />
          </dd>
          <dt>Queue</dt>
          <dd>
            <Shown text={row.queue_name} />
          </dd>
          <dt>Deployment</dt>
          <dd>
            <Shown text={row.deployment_id ?? "none"} />
          </dd>
          <dt>Session</dt>
          <dd>
            <Shown text={row.session_id} mono />
          </dd>
          {row.user_id !== null && (
            <>
              <dt>User</dt>
              <dd>
                <Shown text={row.user_id} />
              </dd>
            </>
          )}
          {row.tags != null && (
            <>
              <dt>Tags</dt>
              <dd class="row gap4 wrap">
                {Object.entries(row.tags as Record<string, unknown>).map(([name, value]) => (
                  <span class="tag" key={name}>
                    <Shown text={`${name}=${String(value)}`} />
                  </span>
                ))}
              </dd>
            </>
          )}
        </dl>
      )}
      <p>
        <Link href={`/executions/${id}`} class="btn">
          Open <Key keys="o" />
        </Link>
      </p>
    </aside>
  );
}
