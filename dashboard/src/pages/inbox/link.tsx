import { useState } from "preact/hooks";
import type { Schemas } from "../../api/client";
import { ActionDialog } from "../../parts/action";
import { Labelled } from "../../parts/controls";
import { Dialog } from "../../parts/dialog";
import type { Asked } from "../../parts/question";
import { CopyButton, Time } from "../../parts/text";

const HOURS = [
  ["1", "1 hour"],
  ["24", "1 day"],
  ["168", "7 days"],
  ["720", "30 days"],
] as const;

export type MadeLink = Schemas["ApprovalLinkResponse"];

/** A signed link with which a person without an account answers this one question. */
export function LinkDialog({ of, onClose, onMade }: { of: Asked; onClose: () => void; onMade: (link: MadeLink) => void }) {
  const [name, setName] = useState("");
  const [hours, setHours] = useState("24");
  return (
    <ActionDialog
      title="Create a link to this question"
      effects={["Its holder may answer this question, and nothing else.", "The answer is recorded with the name that you give here."]}
      word="Create link"
      call={{
        method: "POST",
        path: `/api/v1/approvals/${encodeURIComponent(of.execution_id)}/${encodeURIComponent(of.step_key)}/links`,
        body: { name, expires_in_seconds: Number(hours) * 3_600 },
      }}
      invalid={name.trim() === "" ? "Say for whom it is." : null}
      onClose={onClose}
      onDone={(answer) => onMade(answer as MadeLink)}
      refresh={[]}
    >
      <Labelled label="For whom">
        <input class="input" autofocus value={name} placeholder="ann@example.com" onInput={(event) => setName(event.currentTarget.value)} />
      </Labelled>
      <Labelled label="Works for">
        <select class="input" value={hours} onChange={(event) => setHours(event.currentTarget.value)}>
          {HOURS.map(([value, word]) => (
            <option key={value} value={value}>
              {word}
            </option>
          ))}
        </select>
      </Labelled>
    </ActionDialog>
  );
}

export function Made({ link, onClose }: { link: MadeLink; onClose: () => void }) {
  const url = location.origin + link.path;
  return (
    <Dialog title="The link" onClose={onClose}>
      <p>
        Send it as you would send a password. It works until <Time at={link.expires_at} />, or until the question is answered.
      </p>
      <div class="box row">
        <code class="grow trunc">{url}</code>
        <CopyButton text={url} what="link" />
      </div>
    </Dialog>
  );
}
