import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { X } from "lucide-preact";
import { useCommands } from "../keys";

interface Props {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  footer?: ComponentChildren;
  wide?: boolean;
  /** It cannot be closed. */
  held?: boolean;
}

/** A modal dialog. The browser keeps the focus in it and gives it back. */
export function Dialog({ title, onClose, children, footer, wide, held }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    dialog.current?.showModal();
    dialog.current?.querySelector<HTMLElement>("[autofocus]")?.focus();
  }, []);
  useCommands([{ title: "Close the dialog", key: "escape", everywhere: true, quiet: true, run: onClose }]);
  return (
    <dialog
      ref={dialog}
      class={`pop dialog${wide === true ? " wide" : ""}`}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      <header class="row">
        <h2 id={id} class="grow">
          {title}
        </h2>
        {held !== true && (
          <button type="button" class="btn ghost icon sm" aria-label="Close" onClick={onClose}>
            <X size={16} aria-hidden="true" />
          </button>
        )}
      </header>
      <div class="body">{children}</div>
      {footer !== undefined && <footer class="row wrap">{footer}</footer>}
    </dialog>
  );
}
