import type { ComponentChildren } from "preact";
import { Dialog } from "../../parts/dialog";
import { CopyButton } from "../../parts/text";

/** A secret that is shown once. It is in no address and in no cache. */
export function Secret({ title, secret, children, onClose }: { title: string; secret: string; children: ComponentChildren; onClose: () => void }) {
  return (
    <Dialog
      title={title}
      onClose={onClose}
      footer={
        <>
          <span class="grow" />
          <button type="button" class="btn pri" onClick={onClose}>
            I have copied it
          </button>
        </>
      }
    >
      <p>{children}</p>
      <div class="box row">
        <code class="grow secret">{secret}</code>
        <CopyButton text={secret} what="secret" />
      </div>
    </Dialog>
  );
}
