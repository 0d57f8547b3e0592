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
import { ROLES } from "./keys";
import { Secret } from "./secret";

type Member = Schemas["ProjectMemberResponse"];
const NAMES = ["Read", "Write", "Admin"] as const;

function nameOf(one: Member): string {
  return one.user?.display_name ?? one.user?.email ?? one.user_id;
}

export function Members() {
  const { project_id, user_id } = useIdentity();
  const may = useMay("admin");
  const path = { params: { path: { project_id: project_id ?? "" } } };
  const members = useGet("/api/v1/projects/{project_id}/members", path);
  const invitations = useGet("/api/v1/projects/{project_id}/invitations", path, { enabled: may });
  const [adding, setAdding] = useState(false);
  const [act, setAct] = useState<{ kind: "role" | "remove"; of: Member } | null>(null);
  const [withdrawn, setWithdrawn] = useState<string | null>(null);
  const [made, setMade] = useState<string | null>(null);
  const base = `/api/v1/projects/${project_id}`;
  const refresh = ["/api/v1/projects"];
  return (
    <>
      <div class="row">
        <p class="dim grow">People who sign in with e-mail and password. An invitation's link makes its holder a member.</p>
        <button type="button" class="btn" disabled={!may} title={may ? undefined : "Needs the role admin."} onClick={() => setAdding(true)}>
          <Plus size={14} aria-hidden="true" /> Add a member
        </button>
      </div>
      <Loaded of={members}>
        {(found) =>
          found.length === 0 ? (
            <p class="dim">No members yet. Workers and commands need only an API key.</p>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Member</th>
                  <th>E-mail</th>
                  <th>Role</th>
                  <th>Since</th>
                  <th />
                </tr>
              </thead>
              <tbody>
                {found.map((one) => (
                  <tr key={one.id}>
                    <td class="m">
                      <Shown text={nameOf(one)} /> {one.user_id === user_id && <span class="tag">you</span>}
                    </td>
                    <td class="dim">
                      <Shown text={one.user?.email ?? ""} />
                    </td>
                    <td>{one.role.toLowerCase()}</td>
                    <td>
                      <Time at={one.created_at} />
                    </td>
                    <td class="r">
                      {may && (
                        <span class="row acts">
                          <button type="button" class="btn sm ghost" aria-label={`Change the role of ${nameOf(one)}`} onClick={() => setAct({ kind: "role", of: one })}>
                            Change role
                          </button>
                          <button type="button" class="btn sm ghost" aria-label={`Remove ${nameOf(one)}`} onClick={() => setAct({ kind: "remove", of: one })}>
                            Remove
                          </button>
                        </span>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
      {(invitations.data ?? []).length > 0 && (
        <section>
          <h2>Open invitations</h2>
          <table>
            <tbody>
              {invitations.data!.map((one) => (
                <tr key={one.email}>
                  <td>
                    <Shown text={one.email} />
                  </td>
                  <td class="dim">{one.role.toLowerCase()}</td>
                  <td class="dim">
                    ends <Time at={one.expires_at} />
                  </td>
                  <td class="r">
                    <button type="button" class="btn sm ghost" aria-label={`Withdraw the invitation of ${one.email}`} onClick={() => setWithdrawn(one.email)}>
                      Withdraw
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
      {adding && (
        <AddMember
          base={base}
          onClose={() => setAdding(false)}
          onMade={(answer) => {
            const { path } = answer as Schemas["AddMemberResponse"];
            if (path != null) setMade(location.origin + path);
          }}
        />
      )}
      {made !== null && (
        <Secret title="The invitation" secret={made} onClose={() => setMade(null)}>
          Hand this link to the person only: its holder becomes a member. The server keeps only its hash.
        </Secret>
      )}
      {act?.kind === "role" && <ChangeRole base={base} of={act.of} onClose={() => setAct(null)} />}
      {act?.kind === "remove" && (
        <ActionDialog
          title={`Remove ${nameOf(act.of)}`}
          effects={["The member loses access to this project at once.", "The user and their other projects stay."]}
          word="Remove"
          danger
          role="admin"
          call={{ method: "DELETE", path: `${base}/members/${encodeURIComponent(act.of.user_id)}` }}
          command={act.of.user == null ? undefined : `perdure members remove ${quoted(act.of.user.email)}`}
          done={`Removed ${nameOf(act.of)}.`}
          refresh={refresh}
          onClose={() => setAct(null)}
        />
      )}
      {withdrawn !== null && (
        <ActionDialog
          title={`Withdraw the invitation of ${withdrawn}`}
          effects={["Its token does not work any more."]}
          word="Withdraw"
          role="admin"
          call={{ method: "DELETE", path: `${base}/invitations/${encodeURIComponent(withdrawn)}` }}
          command={`perdure members withdraw ${quoted(withdrawn)}`}
          done={`Withdrew the invitation of ${withdrawn}.`}
          refresh={refresh}
          onClose={() => setWithdrawn(null)}
        />
      )}
    </>
  );
}

function RoleField({ role, onChange }: { role: string; onChange: (role: string) => void }) {
  return (
    <Labelled label="Role" help={ROLES.find(([one]) => one === role.toLowerCase())?.[1]}>
      <select class="input" value={role} onChange={(event) => onChange(event.currentTarget.value)}>
        {NAMES.map((one) => (
          <option key={one} value={one}>
            {one.toLowerCase()}
          </option>
        ))}
      </select>
    </Labelled>
  );
}

function AddMember({ base, onClose, onMade }: { base: string; onClose: () => void; onMade: (answer: unknown) => void }) {
  const [email, setEmail] = useState("");
  const [role, setRole] = useState("Write");
  return (
    <ActionDialog
      title="Add a member"
      effects={["You get a link, shown once. Hand it to the person: its holder becomes a member."]}
      word="Add"
      role="admin"
      call={{ method: "POST", path: `${base}/members`, body: { email, role } }}
      command={`perdure members add ${quoted(email)} --role ${role.toLowerCase()}`}
      invalid={/^\S+@\S+$/.test(email) ? null : "The e-mail needs a value."}
      refresh={["/api/v1/projects"]}
      onClose={onClose}
      onDone={onMade}
    >
      <Labelled label="E-mail">
        <input class="input" type="email" autofocus value={email} onInput={(event) => setEmail(event.currentTarget.value)} />
      </Labelled>
      <RoleField role={role} onChange={setRole} />
    </ActionDialog>
  );
}

function ChangeRole({ base, of, onClose }: { base: string; of: Member; onClose: () => void }) {
  const [role, setRole] = useState<string>(of.role);
  return (
    <ActionDialog
      title={`Change the role of ${nameOf(of)}`}
      effects={["It takes effect at once."]}
      word="Change"
      role="admin"
      call={{ method: "PUT", path: `${base}/members/${encodeURIComponent(of.user_id)}`, body: { role } }}
      invalid={role === of.role ? `The role is ${of.role.toLowerCase()} now.` : null}
      done={`${nameOf(of)} has the role ${role.toLowerCase()}.`}
      refresh={["/api/v1/projects", "/api/v1/me"]}
      onClose={onClose}
    >
      <RoleField role={role} onChange={setRole} />
    </ActionDialog>
  );
}
