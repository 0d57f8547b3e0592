import { useEffect } from "preact/hooks";
import { Link } from "wouter-preact";
import { Page } from "../../parts/page";
import { named, useQueryParams } from "../../url";
import { Turns } from "../sessions/one";

/** Talk to an agent. The address names the session, so a reload goes on with it. */
export default function Chat({ params: { id } }: { params: Record<string, string> }) {
  const agent = named(id);
  const [params, change] = useQueryParams();
  const session = params.get("session");
  useEffect(() => {
    if (session === null) change({ session: `chat-${crypto.randomUUID()}` });
  }, [session]);
  return (
    <Page
      title={`Chat with ${agent}`}
      bare
      actions={
        <>
          <Link href={`/agents/${encodeURIComponent(agent)}`} class="btn">
            About the agent
          </Link>
          <button type="button" class="btn" onClick={() => change({ session: `chat-${crypto.randomUUID()}` }, true)}>
            New session
          </button>
        </>
      }
    >
      {session !== null && <Turns key={session} session={session} agent={agent} />}
    </Page>
  );
}
