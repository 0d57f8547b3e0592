import { useState } from "preact/hooks";
import { Play } from "lucide-preact";
import type { Schemas } from "../api/client";
import { counted } from "../model/words";
import { quoted } from "../model/calls";
import { ActionDialog } from "./action";
import { Labelled } from "./controls";
import { PhaseIcon } from "./phase";
import { Shown, Time } from "./text";

type Pause = Schemas["Pause"];

/** A pause says who began it, when and why, and that nothing is lost. */
export function PausedNote({ pause, onEnd }: { pause: Pause; onEnd: () => void }) {
  return (
    <div class="note p-held" role="status">
      <PhaseIcon phase="held" />
      <span class="grow">
        <b class="m">
          <Shown text={pause.concurrency_key == null ? pause.name : `${pause.name}, key ${pause.concurrency_key}`} /> is paused
        </b>{" "}
        <span class="dim">
          by <Shown text={pause.paused_by} />, <Time at={pause.paused_at} />
          {pause.note != null && (
            <>
              : “<Shown text={pause.note} />”
            </>
          )}
          . {counted(pause.held, "execution")} {pause.held === 1 ? "is" : "are"} held. Nothing is lost.
          {pause.until != null && (
            <>
              {" "}
              It ends <Time at={pause.until} />.
            </>
          )}
        </span>
      </span>
      <button type="button" class="btn sm" onClick={onEnd}>
        <Play size={13} aria-hidden="true" /> Resume <Shown text={pause.name} />
      </button>
    </div>
  );
}

interface Props {
  kind: "queue" | "workflow" | "deployment";
  name: string;
  /** Set: the dialog ends this pause. */
  pause: Pause | undefined;
  onClose: () => void;
}

/** Pause a queue, a workflow or a deployment, or end its pause. */
export function PauseDialog({ kind, name, pause, onClose }: Props) {
  const [note, setNote] = useState("");
  const [until, setUntil] = useState("");
  const refresh = ["/api/v1/pauses", "/api/v1/queues", "/api/v1/workflows", "/api/v1/executions"];
  if (pause !== undefined) {
    const query = new URLSearchParams({ kind, name, ...(pause.concurrency_key == null ? {} : { concurrency_key: pause.concurrency_key }) });
    return (
      <ActionDialog
        title={`Resume ${name}`}
        effects={[`${counted(pause.held, "execution")} can be claimed again, in their order.`]}
        word="Resume"
        role="admin"
        call={{ method: "DELETE", path: `/api/v1/pauses?${query}` }}
        command={`perdure unpause ${kind} ${quoted(name)}`}
        done={`Resumed ${name}.`}
        refresh={refresh}
        onClose={onClose}
      />
    );
  }
  const at = until === "" ? null : new Date(until);
  const body = { kind, name, note: note === "" ? undefined : note, until: at === null ? undefined : at.toISOString() };
  const flags = `${note === "" ? "" : ` --note ${quoted(note)}`}${at === null ? "" : ` --until ${at.toISOString()}`}`;
  return (
    <ActionDialog
      title={`Pause ${name}`}
      effects={["Executions that run go on to their end.", "Workers get no further execution of it until the pause ends.", "Queued executions wait. Nothing is lost."]}
      word="Pause"
      role="admin"
      call={{ method: "POST", path: "/api/v1/pauses", body }}
      command={`perdure pause ${kind} ${quoted(name)}${flags}`}
      done={`Paused ${name}.`}
      refresh={refresh}
      onClose={onClose}
    >
      <Labelled label="Reason" help="Shown wherever an execution waits for this pause.">
        <input class="input" autofocus value={note} maxLength={200} onInput={(event) => setNote(event.currentTarget.value)} />
      </Labelled>
      <Labelled label="Ends by itself (optional)">
        <input class="input" type="datetime-local" value={until} onInput={(event) => setUntil(event.currentTarget.value)} />
      </Labelled>
    </ActionDialog>
  );
}
