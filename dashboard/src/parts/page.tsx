import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

/** A page: its bar with title and actions, and what scrolls below. `styled` is the class that scopes its styles. */
export function Page({ title, actions, children, bare, styled }: { title: string; actions?: ComponentChildren; children: ComponentChildren; bare?: boolean; styled?: string }) {
  useEffect(() => {
    document.title = `${title} · Perdure`;
  }, [title]);
  return (
    <main class={`main ${styled ?? ""}`}>
      <header class="bar">
        <h1 class="grow trunc">{title}</h1>
        {actions}
      </header>
      <div class={bare === true ? "scroll" : "scroll pad"}>{children}</div>
    </main>
  );
}
