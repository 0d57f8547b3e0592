import { cloneElement, type ComponentChildren, type VNode } from "preact";
import { useId } from "preact/hooks";
import "./controls.css";

/** A choice of a few, side by side. */
export function Segments<T extends string>({ label, of, value, onChange }: { label: string; of: readonly (readonly [T, string])[]; value: T; onChange: (value: T) => void }) {
  return (
    <span class="seg" role="group" aria-label={label}>
      {of.map(([one, word]) => (
        <button key={one} type="button" class={one === value ? "on" : ""} aria-pressed={one === value} onClick={() => onChange(one)}>
          {word}
        </button>
      ))}
    </span>
  );
}

/** What a page is about, and beside it what is open: a form, or one item. */
export function Split({ children, aside, label }: { children: ComponentChildren; aside: ComponentChildren; label: string }) {
  return (
    <div class="split">
      <div class="left">{children}</div>
      {aside !== null && (
        <aside class="right" aria-label={label}>
          {aside}
        </aside>
      )}
    </div>
  );
}

export function Switch({ on, word, disabled, id, onChange }: { id?: string | undefined; on: boolean; word: string; disabled?: boolean; onChange: (on: boolean) => void }) {
  return <button type="button" id={id} role="switch" aria-checked={on} aria-label={word} disabled={disabled} class={on ? "switch on" : "switch"} onClick={() => onChange(!on)} />;
}

/** A field of a form, with its help and what is wrong with it. The control is its only child. */
export function Labelled({ label, help, wrong, path, children }: { label: ComponentChildren; help?: ComponentChildren; wrong?: string | undefined; path?: string; children: VNode }) {
  const id = useId();
  const described = wrong !== undefined || help !== undefined ? `${id}-help` : undefined;
  return (
    <div class="field" data-path={path}>
      <label for={id}>{label}</label>
      {cloneElement(children, { id, "aria-describedby": described, "aria-invalid": wrong !== undefined })}
      {described !== undefined && (
        <small id={described}>
          {wrong !== undefined && <span class="bad">{wrong} </span>}
          {help}
        </small>
      )}
    </div>
  );
}
