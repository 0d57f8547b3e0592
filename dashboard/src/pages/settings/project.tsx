import { useState } from "preact/hooks";
import { useQueryClient } from "@tanstack/preact-query";
import { send } from "../../api/client";
import { Labelled } from "../../parts/controls";
import { Problem } from "../../parts/state";
import { CopyButton, Time } from "../../parts/text";
import { toast } from "../../parts/toast";
import { useIdentity, useMay } from "../../session";

export function Project() {
  const identity = useIdentity();
  const client = useQueryClient();
  const may = useMay("admin");
  const project = identity.projects.find((one) => one.id === identity.project_id);
  const [name, setName] = useState(project?.name ?? "");
  const [description, setDescription] = useState(project?.description ?? "");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  if (project === undefined) return <p class="dim">This sign-in names no project.</p>;
  const save = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await send("PATCH", `/api/v1/projects/${project.id}`, { name, description });
      await client.invalidateQueries({ queryKey: ["/api/v1/me"] });
      toast("Saved the project.");
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  return (
    <>
      <form class="col gap12 narrow" onSubmit={(event) => void save(event)}>
        <Labelled label="Name">
          <input class="input" value={name} required disabled={!may} onInput={(event) => setName(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="Description">
          <input class="input" value={description} disabled={!may} onInput={(event) => setDescription(event.currentTarget.value)} />
        </Labelled>
        {error !== null && <Problem error={error} />}
        <div class="row">
          <button type="submit" class="btn pri" disabled={!may || busy || name.trim() === ""}>
            Save
          </button>
          {!may && <span class="dim">Needs the role admin.</span>}
        </div>
      </form>
      <dl class="dl">
        <dt>Id</dt>
        <dd class="row gap4">
          <code>{project.id}</code> <CopyButton text={project.id} what="id" />
        </dd>
        <dt>Created</dt>
        <dd>
          <Time at={project.created_at} />
        </dd>
        <dt>Signed in as</dt>
        <dd>
          {identity.name}, role {identity.role}
        </dd>
        <dt>Server</dt>
        <dd>
          Perdure {identity.version} on {identity.store === "sqlite" ? "SQLite" : "PostgreSQL"}
        </dd>
      </dl>
    </>
  );
}
