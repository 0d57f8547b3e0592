import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Plus } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { quoted } from "../../model/calls";
import { ActionDialog } from "../../parts/action";
import { Labelled, Segments } from "../../parts/controls";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useMay } from "../../session";
import { useQueryParams } from "../../url";

type Webhook = Schemas["WebhookResponse"];
type Delivery = Schemas["DeliveryResponse"];
type State = "all" | Delivery["state"];

export function Webhooks() {
  const may = useMay("admin");
  const [params, change] = useQueryParams();
  const webhooks = useGet("/api/v1/webhooks");
  const [making, setMaking] = useState(false);
  const [gone, setGone] = useState<Webhook | null>(null);
  const chosen = params.get("webhook");
  return (
    <>
      <div class="row">
        <p class="dim grow">The server calls the URL when an execution without a parent ends. Each call is signed.</p>
        <button type="button" class="btn" disabled={!may} title={may ? undefined : "Needs the role admin."} onClick={() => setMaking(true)}>
          <Plus size={14} aria-hidden="true" /> New webhook
        </button>
      </div>
      <Loaded of={webhooks}>
        {({ webhooks: found }) =>
          found.length === 0 ? (
            <Empty title="No webhooks yet" code="perdure webhooks create https://example.com/perdure --workflow order" docs="docs/webhooks.md">
              A webhook and its deliveries appear here. One start may also name a URL of its own.
            </Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>URL</th>
                  <th>Workflow</th>
                  <th>Description</th>
                  <th>Created</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {found.map((one) => (
                  <tr key={one.id} class={one.id === chosen ? "cur" : ""}>
                    <td>
                      <button type="button" class="link" aria-pressed={one.id === chosen} onClick={() => change({ webhook: one.id === chosen ? null : one.id })}>
                        <Shown text={one.url} />
                      </button>
                    </td>
                    <td>{one.workflow_id === null ? <span class="dim">all</span> : <Shown text={one.workflow_id} />}</td>
                    <td class="dim">{one.description !== null && <Shown text={one.description} />}</td>
                    <td>
                      <Time at={one.created_at} />
                    </td>
                    <td class="r">
                      {may && (
                        <button type="button" class="btn sm ghost" aria-label={`Delete the webhook ${one.url}`} onClick={() => setGone(one)}>
                          Delete
                        </button>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
      <Deliveries webhook={chosen} />
      {making && <NewWebhook onClose={() => setMaking(false)} />}
      {gone !== null && (
        <ActionDialog
          title={`Delete the webhook ${gone.url}`}
          effects={["Deleting it stops everything, including retries in progress. They are marked as failed."]}
          word="Delete"
          danger
          role="admin"
          call={{ method: "DELETE", path: `/api/v1/webhooks/${gone.id}` }}
          command={`perdure webhooks delete ${gone.id}`}
          done="Deleted the webhook."
          refresh={["/api/v1/webhooks"]}
          onClose={() => setGone(null)}
        />
      )}
    </>
  );
}

function NewWebhook({ onClose }: { onClose: () => void }) {
  const [url, setUrl] = useState("");
  const [workflow, setWorkflow] = useState("");
  const [description, setDescription] = useState("");
  const body = { url, ...(workflow === "" ? {} : { workflow_id: workflow }), ...(description === "" ? {} : { description }) };
  return (
    <ActionDialog
      title="New webhook"
      effects={["The server calls the URL at the end of each execution without a parent."]}
      word="Create"
      role="admin"
      call={{ method: "POST", path: "/api/v1/webhooks", body }}
      command={`perdure webhooks create ${quoted(url)}${workflow === "" ? "" : ` --workflow ${quoted(workflow)}`}${description === "" ? "" : ` --description ${quoted(description)}`}`}
      invalid={/^https?:\/\/\S+$/.test(url) ? null : "The URL begins with http:// or https://."}
      done="Created the webhook."
      refresh={["/api/v1/webhooks"]}
      onClose={onClose}
    >
      <Labelled label="URL">
        <input class="input" type="url" autofocus placeholder="https://example.com/perdure" value={url} onInput={(event) => setUrl(event.currentTarget.value)} />
      </Labelled>
      <div class="two">
        <Labelled label="Workflow (optional)" help="Without one: all workflows.">
          <input class="input" value={workflow} onInput={(event) => setWorkflow(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="Description (optional)">
          <input class="input" value={description} onInput={(event) => setDescription(event.currentTarget.value)} />
        </Labelled>
      </div>
    </ActionDialog>
  );
}

function Deliveries({ webhook }: { webhook: string | null }) {
  const [params, change] = useQueryParams();
  const state = (params.get("state") ?? "all") as State;
  const query = { limit: 50, ...(webhook === null ? {} : { webhook_id: webhook }), ...(state === "all" ? {} : { state }) };
  const deliveries = useGet("/api/v1/webhooks/deliveries", { params: { query } }, { every: 5_000 });
  const [again, setAgain] = useState<Delivery | null>(null);
  return (
    <section aria-label="Deliveries">
      <div class="row">
        <h2 class="grow">Deliveries{webhook !== null && " of the chosen webhook"}</h2>
        <Segments
          label="State"
          of={
            [
              ["all", "All"],
              ["pending", "Pending"],
              ["failed", "Failed"],
              ["delivered", "Delivered"],
            ] as const
          }
          value={state}
          onChange={(next) => change({ state: next === "all" ? null : next })}
        />
      </div>
      <Loaded of={deliveries}>
        {({ deliveries: found }) =>
          found.length === 0 ? (
            <p class="dim">No deliveries{state === "all" ? " yet" : ` are ${state}`}.</p>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>State</th>
                  <th>Execution</th>
                  <th>URL</th>
                  <th class="r">Tries</th>
                  <th>Answer</th>
                  <th>Last try</th>
                  <th>Next try</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {found.map((one) => (
                  <tr key={one.id}>
                    <td class={one.state === "failed" ? "bad" : one.state === "pending" ? "dim" : "good"}>{one.state}</td>
                    <td>
                      <Link href={`/executions/${one.execution_id}`}>
                        <code>…{one.execution_id.slice(-8)}</code>
                      </Link>
                    </td>
                    <td class="dim trunc url">
                      <Shown text={one.url} />
                    </td>
                    <td class="r num">{one.tries}</td>
                    <td class="fit dim">
                      {one.status !== null && <span class="num">{one.status}</span>} {one.answer !== null && <Shown text={one.answer} />}
                    </td>
                    <td>{one.tried_at === null ? <span class="dim3">–</span> : <Time at={one.tried_at} />}</td>
                    <td>{one.next_try_at === null ? <span class="dim3">–</span> : <Time at={one.next_try_at} />}</td>
                    <td class="r">
                      <button type="button" class="btn sm ghost" aria-label={`Send ${one.id} again`} onClick={() => setAgain(one)}>
                        Send again
                      </button>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
      {again !== null && (
        <ActionDialog
          title="Send the delivery again"
          effects={[
            <>
              The server calls <Shown text={again.url} mono /> now, under the same id.
            </>,
            "A receiver that keeps ids ignores it if it has it already.",
          ]}
          word="Send"
          call={{ method: "POST", path: `/api/v1/webhooks/deliveries/${encodeURIComponent(again.id)}/redeliver` }}
          command={`perdure webhooks redeliver ${quoted(again.id)}`}
          done="The delivery is sent again."
          refresh={["/api/v1/webhooks"]}
          onClose={() => setAgain(null)}
        />
      )}
    </section>
  );
}
