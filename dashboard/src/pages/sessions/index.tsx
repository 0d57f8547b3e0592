import { Link, useLocation } from "wouter-preact";
import { useGet } from "../../api/query";
import { count, shortId, spent } from "../../model/words";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";

const EXAMPLE = `handle = await client.start(support, "Where is my parcel?", session_id="mara")`;

/** Conversations of agents, the newest first. */
export default function Sessions() {
  const [params, change] = useQueryParams();
  const [, navigate] = useLocation();
  const agent = params.get("agent") ?? "";
  const words = params.get("q") ?? "";
  const cursor = params.get("cursor");
  const found = useGet("/api/v1/sessions", { params: { query: { limit: 50, ...(words === "" ? {} : { q: words }), ...(agent === "" ? {} : { agent_id: agent }), ...(cursor === null ? {} : { cursor }) } } }, { every: 5_000 });
  const agents = useGet("/api/v1/agents");
  const names = [...new Set((agents.data ?? []).map((one) => one.id))];
  const sessions = found.data?.sessions ?? [];
  const { row } = useRows(sessions.length, (at) => navigate(`/sessions/${sessions[at]!.execution_id}`));
  return (
    <Page
      title="Sessions"
      bare
      actions={
        <>
          <input
            class="input find"
            type="search"
            aria-label="Find a session"
            placeholder="Name, key or message"
            value={words}
            onInput={(event) => change({ q: event.currentTarget.value || null, cursor: null })}
          />
          {(names.length > 1 || agent !== "") && (
            <select class="input" style={{ width: "200px" }} aria-label="Agent" value={agent} onChange={(event) => change({ agent: event.currentTarget.value || null, cursor: null })}>
              <option value="">All agents</option>
              {names.map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </select>
          )}
        </>
      }
    >
      <Loaded of={found}>
        {({ next_cursor }) =>
          sessions.length === 0 && words !== "" ? (
            <Empty title={`No session for “${words}”`}>The search takes the beginning of a session's name, of an execution's key or id, and words of the newest messages.</Empty>
          ) : sessions.length === 0 ? (
            <Empty title="No conversation yet" code={EXAMPLE} docs="docs/sessions.md">
              A session holds the turns of a conversation with an agent. Start one with a session:
            </Empty>
          ) : (
            <>
              <table>
                <thead>
                  <tr>
                    <th>Session</th>
                    <th>Agent</th>
                    <th>Last message</th>
                    <th>State</th>
                    <th class="r">Turns</th>
                    <th class="r">Calls</th>
                    <th class="r">Tokens</th>
                    <th class="r">Cost</th>
                    <th>Last turn</th>
                  </tr>
                </thead>
                <tbody>
                  {sessions.map((one, at) => (
                    <tr key={one.execution_id} {...row(at)}>
                      <td>
                        <Link href={`/sessions/${one.execution_id}`}>
                          {one.whole?.turns === 1 && one.session_id === one.execution_id ? <code title={one.execution_id}>{shortId(one.execution_id)}</code> : <Shown text={one.session_id ?? one.execution_id} mono />}
                        </Link>
                      </td>
                      <td>
                        <Shown text={one.agent_id} />
                      </td>
                      <td class="fit dim">
                        <Shown text={one.last_message_preview ?? one.user_message_preview ?? ""} />
                      </td>
                      <td>
                        <Phase phase={one.phase} />
                      </td>
                      <td class="r num">{count(one.whole?.turns ?? one.execution_count)}</td>
                      <td class="r num">{count(one.tool_call_count)}</td>
                      <td class="r num">{count(Math.max(one.total_tokens, one.whole == null ? 0 : one.whole.input_tokens + one.whole.output_tokens))}</td>
                      <td class="r num">{one.whole == null || one.whole.calls === 0 ? "–" : spent(one.whole, one.whole.exact)}</td>
                      <td>
                        <Time at={one.last_at ?? one.created_at} />
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
              {next_cursor != null && (
                <p class="pad">
                  <button type="button" class="btn" onClick={() => change({ cursor: next_cursor }, true)}>
                    Older sessions
                  </button>
                </p>
              )}
            </>
          )
        }
      </Loaded>
    </Page>
  );
}
