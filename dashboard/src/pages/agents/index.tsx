import { Link, useLocation } from "wouter-preact";
import { MessageSquare } from "lucide-preact";
import { useGet } from "../../api/query";
import { Page } from "../../parts/page";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";

const EXAMPLE = `from pydantic_ai import Agent

from perdure.agents import durable

support = durable(Agent("test", name="support", instructions="Answer customers."))`;

/** Agents of the deployments that are not retired; the newest definition of each. */
export default function Agents() {
  const [, navigate] = useLocation();
  const found = useGet("/api/v1/agents", {}, { every: 10_000 });
  const agents = [...new Map((found.data ?? []).toReversed().map((one) => [one.id, one])).values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  const { row } = useRows(agents.length, (at) => navigate(`/agents/${encodeURIComponent(agents[at]!.id)}`));
  return (
    <Page title="Agents" bare>
      <Loaded of={found}>
        {() =>
          agents.length === 0 ? (
            <Empty title="No agent yet" code={EXAMPLE} docs="docs/agents.md">
              Workers register their agents when they start. Write one, and run it with perdure dev:
            </Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Agent</th>
                  <th>Model</th>
                  <th>Tools</th>
                  <th>Deployment</th>
                  <th>Changed</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {agents.map((one, at) => (
                  <tr key={one.id} {...row(at)}>
                    <td>
                      <Link href={`/agents/${encodeURIComponent(one.id)}`} class="m">
                        <Shown text={one.id} />
                      </Link>
                    </td>
                    <td class="dim">
                      <Shown text={`${one.provider}: ${one.model}`} />
                    </td>
                    <td class="num">{Array.isArray(one.tools) ? one.tools.length : 0}</td>
                    <td>
                      <Shown text={one.deployment_id} />
                    </td>
                    <td>
                      <Time at={one.updated_at} />
                    </td>
                    <td>
                      <Link href={`/agents/${encodeURIComponent(one.id)}/chat`} class="btn sm">
                        <MessageSquare size={13} aria-hidden="true" /> Chat
                      </Link>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
    </Page>
  );
}
