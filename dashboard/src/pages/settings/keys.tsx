import { useState } from "preact/hooks";
import { Plus } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { quoted } from "../../model/calls";
import { ActionDialog } from "../../parts/action";
import { Labelled } from "../../parts/controls";
import { Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useIdentity, useMay } from "../../session";
import { Secret } from "./secret";

type ApiKey = Schemas["ApiKeyResponse"];

export const ROLES = [
  ["read", "sees everything but secrets"],
  ["write", "also starts executions, answers questions and acts on executions"],
  ["admin", "also pauses, runs bulk jobs, and manages keys, members and webhooks"],
] as const;
/** Members have no role of workers. */
const KEY_ROLES = [ROLES[0], ["work", "for workers: also runs and starts executions and publishes events, but decides nothing"], ROLES[1], ROLES[2]] as const;

export function Keys() {
  const identity = useIdentity();
  const may = useMay("admin");
  const keys = useGet("/api/v1/api-keys", {}, { enabled: may });
  const [making, setMaking] = useState(false);
  const [gone, setGone] = useState<ApiKey | null>(null);
  const [made, setMade] = useState<{ key: string; name: string } | null>(null);
  if (!may) return <p class="dim">You may not see the API keys: it needs the role admin.</p>;
  return (
    <>
      <div class="row">
        <p class="dim grow">Workers, clients and commands sign in with a key. A key belongs to this project.</p>
        <button type="button" class="btn" onClick={() => setMaking(true)}>
          <Plus size={14} aria-hidden="true" /> New key
        </button>
      </div>
      <Loaded of={keys}>
        {({ keys: found }) =>
          found.length === 0 ? (
            <p class="dim">No keys yet.</p>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>Key</th>
                  <th>Role</th>
                  <th>Created</th>
                  <th>Last used</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {found.map((one) => (
                  <tr key={one.id}>
                    <td class="m">
                      <Shown text={one.name} /> {one.development && <span class="tag">development</span>}
                    </td>
                    <td>
                      <code class="dim">…{one.last_four_digits}</code>
                    </td>
                    <td>{one.role}</td>
                    <td>
                      <Time at={one.created_at} />
                    </td>
                    <td>{one.last_used_at == null ? <span class="dim3">never</span> : <Time at={one.last_used_at} />}</td>
                    <td class="r">
                      <button type="button" class="btn sm ghost" aria-label={`Delete the key ${one.name}`} onClick={() => setGone(one)}>
                        Delete
                      </button>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
      {making && <NewKey project={identity.project_id!} onClose={() => setMaking(false)} onMade={setMade} />}
      {made !== null && (
        <Secret title={`The key ${made.name}`} secret={made.key} onClose={() => setMade(null)}>
          Copy it now: the server keeps only its hash. Programs read it from <code>PERDURE_API_KEY</code>.
        </Secret>
      )}
      {gone !== null && (
        <ActionDialog
          title={`Delete the key ${gone.name}`}
          effects={["The server refuses the key from then on.", "Workers and clients that use it stop working.", gone.last_used_at == null ? "It was never used." : <>It was last used <Time at={gone.last_used_at} />.</>]}
          word="Delete"
          danger
          role="admin"
          call={{ method: "DELETE", path: `/api/v1/api-keys/${encodeURIComponent(gone.id)}` }}
          command={`perdure keys delete ${quoted(gone.id)}`}
          done={`Deleted the key ${gone.name}.`}
          refresh={["/api/v1/api-keys"]}
          onClose={() => setGone(null)}
        />
      )}
    </>
  );
}

function NewKey({ project, onClose, onMade }: { project: string; onClose: () => void; onMade: (made: { key: string; name: string }) => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<string>("write");
  return (
    <ActionDialog
      title="New API key"
      effects={["The key is shown once, after you create it."]}
      word="Create"
      role="admin"
      call={{ method: "POST", path: "/api/v1/api-keys", body: { name, project_id: project, role } }}
      command={`perdure keys create ${quoted(name)} --role ${role}`}
      invalid={name.trim() === "" ? "The key needs a name." : null}
      refresh={["/api/v1/api-keys"]}
      onClose={onClose}
      onDone={(answer) => onMade(answer as { key: string; name: string })}
    >
      <Labelled label="Name">
        <input class="input" autofocus value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </Labelled>
      <Labelled label="Role" help={KEY_ROLES.find(([one]) => one === role)?.[1]}>
        <select class="input" value={role} onChange={(event) => setRole(event.currentTarget.value)}>
          {KEY_ROLES.map(([one]) => (
            <option key={one}>{one}</option>
          ))}
        </select>
      </Labelled>
    </ActionDialog>
  );
}
