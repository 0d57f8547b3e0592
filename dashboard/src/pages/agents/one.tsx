import { Link } from "wouter-preact";
import { Hand, MessageSquare } from "lucide-preact";
import { useListChanges } from "../../api/live";
import { useGet } from "../../api/query";
import { duration } from "../../model/time";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { named } from "../../url";
import { Spend } from "./spend";
import "../workflows/workflows.css";

interface Tool {
  name: string;
  description?: string | null;
  requires_approval?: boolean;
}

/** What an agent is told, what it may do, and its newest executions. */
export default function OneAgent({ params: { id } }: { params: Record<string, string> }) {
  const agent = named(id);
  const found = useGet("/api/v1/agents/{agent_id}", { params: { path: { agent_id: agent } } });
  const runs = useGet("/api/v1/executions/summaries", { params: { query: { workflow_id: agent, limit: 20 } } });
  useListChanges(new URLSearchParams({ workflow_id: agent, limit: "20" }).toString(), "/api/v1/executions/summaries");
  return (
    <Page
      title={agent}
      bare
      actions={
        <>
          <Link href={`/workflows/${encodeURIComponent(agent)}`} class="btn">
            Numbers over time
          </Link>
          <Link href={`/agents/${encodeURIComponent(agent)}/chat`} class="btn pri">
            <MessageSquare size={14} aria-hidden="true" /> Chat
          </Link>
        </>
      }
    >
      <div class="page">
        <Loaded of={found}>
          {(one) => (
            <>
              <dl class="figures">
                {[
                  ["Model", `${one.provider}: ${one.model}`],
                  ["Deployment", one.deployment_id],
                  ...(one.temperature == null ? [] : [["Temperature", String(one.temperature)]]),
                  ...(one.max_output_tokens == null ? [] : [["Output at most", `${one.max_output_tokens} tokens`]]),
                ].map(([name, value]) => (
                  <div key={name}>
                    <dt>{name}</dt>
                    <dd>
                      <Shown text={value!} />
                    </dd>
                  </div>
                ))}
              </dl>
              <section>
                <h2>Prompt</h2>
                {one.system_prompt == null ? (
                  <p class="dim">The worker did not register a prompt. It may make one for each run.</p>
                ) : (
                  <p class="valtext">
                    <Shown text={one.system_prompt} />
                  </p>
                )}
              </section>
              <section>
                <h2>Tools</h2>
                {Array.isArray(one.tools) && one.tools.length > 0 ? (
                  <table>
                    <tbody>
                      {(one.tools as unknown as Tool[]).map((tool) => (
                        <tr key={tool.name}>
                          <td class="m">
                            <Shown text={String(tool.name)} />
                          </td>
                          <td class="fit dim">
                            <Shown text={String(tool.description ?? "")} />
                          </td>
                          <td>
                            {tool.requires_approval === true && (
                              <span class="tag p-waiting">
                                <Hand size={12} aria-hidden="true" /> needs an approval
                              </span>
                            )}
                          </td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                ) : (
                  <p class="dim">No tools are registered.</p>
                )}
              </section>
            </>
          )}
        </Loaded>
        <Spend agent={agent} />
        <section>
          <h2>Newest executions</h2>
          <Loaded of={runs}>
            {({ executions }) =>
              executions.length === 0 ? (
                <Empty title="It has not run yet">Start a chat with it.</Empty>
              ) : (
                <table>
                  <tbody>
                    {executions.map((run) => (
                      <tr key={run.id}>
                        <td>
                          <Phase phase={run.phase} />
                        </td>
                        <td>
                          <Link href={`/executions/${run.id}`}>
                            <Shown text={run.key ?? run.session_id} mono />
                          </Link>
                        </td>
                        <td class="fit dim">
                          <Shown text={run.details ?? ""} />
                        </td>
                        <td class="num">{run.took_ms == null ? "" : duration(run.took_ms)}</td>
                        <td>
                          <Time at={run.created_at} />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              )
            }
          </Loaded>
        </section>
      </div>
    </Page>
  );
}
