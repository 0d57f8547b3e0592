import { Link } from "wouter-preact";
import { useListChanges } from "../../api/live";
import { useGet } from "../../api/query";
import type { Json } from "../../model/schema";
import { words } from "../../model/conversation";
import { count, counted, spent } from "../../model/words";
import { Segments } from "../../parts/controls";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { Value } from "../../parts/value";
import { named, useQueryParams } from "../../url";
import "../workflows/workflows.css";
import Conversation, { NextMessage } from "../agent/conversation";

const TABS = [
  ["conversation", "Conversation"],
  ["transcript", "Transcript"],
  ["memory", "Memory"],
] as const;
const TURNS = 20;

/** A session: its turns as one conversation, what its model is shown, and what the agent remembers. */
export default function OneSession({ params: { id } }: { params: Record<string, string> }) {
  const [params, change] = useQueryParams();
  const tab = TABS.find(([name]) => name === params.get("tab"))?.[0] ?? "conversation";
  const found = useGet("/api/v1/sessions/{execution_id}", { params: { path: { execution_id: named(id) } } }, { every: 30_000 });
  const session = found.data?.session_id ?? named(id);
  return (
    <Page title={session} bare actions={<Link href="/sessions">All sessions</Link>}>
      <Loaded of={found}>
        {(one) => (
          <>
            <div class="row pad wrap gap12">
              <Link href={`/agents/${encodeURIComponent(one.agent_id)}`} class="accent">
                <Shown text={one.agent_id} />
              </Link>
              <span class="dim num">
                {one.whole != null && `${counted(one.whole.turns, "turn")} · `}
                {count(Math.max(one.total_input_tokens, one.whole?.input_tokens ?? 0))} → {counted(Math.max(one.total_output_tokens, one.whole?.output_tokens ?? 0), "token")} ·{" "}
                {one.whole != null && one.whole.calls > 0 && `${spent(one.whole, one.whole.exact)} · `}
                {counted(one.tool_call_count, "call")} · {counted(one.approval_count, "question")}
              </span>
            </div>
            <div class="row sesstabs">
              <Segments label="Parts of the session" of={TABS} value={tab} onChange={(to) => change({ tab: to === "conversation" ? null : to })} />
            </div>
            {tab === "conversation" && <Turns session={session} agent={one.agent_id} />}
            {tab === "transcript" && <Transcript session={session} />}
            {tab === "memory" && <Memory session={session} />}
          </>
        )}
      </Loaded>
    </Page>
  );
}

/** The newest turns, oldest first, and the field for the next message. */
export function Turns({ session, agent }: { session: string; agent: string }) {
  const found = useGet("/api/v1/executions/summaries", { params: { query: { session_id: session, limit: 100 } } });
  useListChanges(new URLSearchParams({ session_id: session, limit: "100" }).toString(), "/api/v1/executions/summaries", "/api/v1/executions/{execution_id}", "/api/v1/sessions");
  return (
    <div class="col gap16">
      <Loaded of={found}>
        {({ executions }) => {
          const turns = executions.filter((one) => one.parent_execution_id === null);
          return (
            <>
              {turns.length > TURNS && (
                <p class="pad dim">
                  The newest {TURNS} turns.{" "}
                  <Link href={`/executions?session=${encodeURIComponent(session)}`} class="accent">
                    All turns
                  </Link>
                </p>
              )}
              {turns
                .slice(0, TURNS)
                .toReversed()
                .map((turn) => (
                  <Turn key={turn.id} id={turn.id} phase={turn.phase} at={turn.created_at} />
                ))}
            </>
          );
        }}
      </Loaded>
      <div class="pad">
        <NextMessage execution={{ workflow_id: agent, session_id: session, user_id: null }} onSent={() => {}} />
      </div>
    </div>
  );
}

function Turn({ id, phase, at }: { id: string; phase: string; at: string }) {
  const found = useGet("/api/v1/executions/{execution_id}", { params: { path: { execution_id: id } } });
  return (
    <section aria-label={`Turn of ${at}`}>
      <div class="row pad dim">
        <Phase phase={phase} />
        <Link href={`/executions/${id}`} class="accent">
          Open the execution
        </Link>
        <span class="grow" />
        <Time at={at} />
      </div>
      <Loaded of={found}>{(execution) => <Conversation execution={execution} turn />}</Loaded>
    </section>
  );
}

function Transcript({ session }: { session: string }) {
  const found = useGet("/internal/session/{session_id}/transcript", { params: { path: { session_id: session } } });
  return (
    <div class="page">
      <Loaded of={found}>
        {({ version, entries, next }) => (
          <>
            <p class="lead">
              The model is shown these messages at the beginning of the next turn. Version {version}, {counted(entries.length, "message")}
              {next != null && " on this page"}.
            </p>
            {entries.map((entry) => (
              <section key={entry.seq} class="col gap4">
                <span class="row dim">
                  <span class="num">{entry.seq}</span>
                  {entry.summary_of != null && <span class="tag">Summary of {counted(entry.summary_of, "message")}</span>}
                </span>
                <div class="box">
                  <Value value={entry.message as Json} />
                </div>
              </section>
            ))}
          </>
        )}
      </Loaded>
    </div>
  );
}

function Memory({ session }: { session: string }) {
  const found = useGet("/internal/session/{session_id}/memory", { params: { path: { session_id: session } } });
  return (
    <div class="page">
      <Loaded of={found}>
        {({ version, summary, messages }) =>
          version === 0 ? (
            <p class="lead">The agent remembers nothing of this session beyond its transcript.</p>
          ) : (
            <>
              <p class="lead">Version {version}.</p>
              {summary != null && (
                <p class="valtext">
                  <Shown text={words(summary)} />
                </p>
              )}
              <div class="box">
                <Value value={messages as Json} />
              </div>
            </>
          )
        }
      </Loaded>
    </div>
  );
}
