import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Undo2 } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { quoted } from "../../model/calls";
import { errorCount, total } from "../../model/deploys";
import { count, counted, share } from "../../model/words";
import { ActionDialog } from "../../parts/action";
import { Shown, Time } from "../../parts/text";
import { BulkDialog } from "../executions/bulk";
import "./overview.css";

type Stats = Schemas["DeploymentStats"];

/** What ended on a deployment since it came into use, and what to do about the failures. */
export function SinceDeploy({ of, named = false }: { of: Stats; named?: boolean }) {
  const [act, setAct] = useState<"use" | "retry" | null>(null);
  const ended = total(of);
  const [group] = of.errors;
  const bad = group?.is_new === true;
  return (
    <div class={`row gap12 wrap since ${bad ? "new" : ""}`} role="group" aria-label={`Since ${of.deployment_id} came into use`}>
      <p class="grow">
        {ended === 0 ? <span class="dim">Nothing ended</span> : of.failed === 0 ? <span>None of {count(ended)} failed</span> : <b class={bad ? "m bad" : "m"}>{`${count(of.failed)} of ${count(ended)} failed (${share(of.failed, ended)})`}</b>}{" "}
        <span class="dim">
          {of.from > of.used_from ? "in the last 7 days" : "since "}
          {of.from <= of.used_from && (named ? <Shown text={of.deployment_id!} /> : "it")}
          {of.from <= of.used_from && (
            <>
              {" "}
              came into use <Time at={of.used_from} />
            </>
          )}
          {of.before != null && total(of.before) > 0 && (
            <>
              {" "}
              · before, on <Shown text={of.before.deployment_id!} />: {share(of.before.failed, total(of.before))} of {count(total(of.before))}
            </>
          )}
          {of.workers_lost > 0 && ` · ${counted(of.workers_lost, "worker")} lost in 24 hours`}
        </span>
        {group !== undefined && (
          <span class="trunc small block">
            {errorCount(group)}: <code>{<Shown text={group.class == null ? group.message : `${group.class}: ${group.message}`} />}</code>
          </span>
        )}
      </p>
      {group !== undefined && (
        <>
          <Link href={`/executions/${group.first_id}`} class="btn sm">
            See the first
          </Link>
          <button type="button" class="btn sm" onClick={() => setAct("retry")}>
            Retry {count(group.count)}
          </button>
        </>
      )}
      {of.can_roll_back && of.failed > 0 && (
        <button type="button" class={bad ? "btn sm pri" : "btn sm"} onClick={() => setAct("use")}>
          <Undo2 size={13} aria-hidden="true" /> Roll back
        </button>
      )}
      {act === "retry" && <BulkDialog act="retry" chosen={{ filters: { ...group!.filter, retried: "false" } }} onClose={() => setAct(null)} onDone={() => {}} />}
      {act === "use" && <UseDialog id={of.before!.deployment_id!} onClose={() => setAct(null)} />}
    </div>
  );
}

/** As `SinceDeploy`, once its numbers are here. */
export function StatsOf({ id }: { id: string }) {
  const { data } = useGet("/api/v1/deployments/{deployment_id}/stats", { params: { path: { deployment_id: id } } }, { every: 30_000 });
  return data === undefined || total(data) + data.workers_lost === 0 ? null : <SinceDeploy of={data} />;
}

/** Sends new executions to a deployment. */
export function UseDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const deployments = useGet("/api/v1/deployments", { params: { query: { limit: 200 } } });
  const all = deployments.data?.deployments ?? [];
  const target = all.find((one) => one.id === id);
  const current = all.find((one) => one.current);
  const open = Object.values(current?.open ?? {}).reduce((sum, n) => sum + n, 0);
  return (
    <ActionDialog
      title={`Send new executions to ${id}`}
      effects={[
        `New executions start on ${id}${current === undefined ? "" : ` instead of ${current.id}`}.`,
        current === undefined || open === 0 ? "Open executions stay on their deployment." : `${counted(open, "open execution stays", "open executions stay")} on ${current.id}.`,
        ...(target?.workers === 0 ? [<b class="m bad">It has no worker now: new executions wait for one.</b>] : []),
      ]}
      word="Use"
      call={{ method: "POST", path: `/api/v1/deployments/${encodeURIComponent(id)}/use` }}
      command={`perdure deployments use ${quoted(id)}`}
      done={`New executions start on ${id}.`}
      refresh={["/api/v1/deployments", "/api/v1/overview"]}
      onClose={onClose}
    />
  );
}
