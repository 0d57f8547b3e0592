import { useMemo, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { useGet } from "./api/query";
import { commands } from "./keys";
import { Dialog } from "./parts/dialog";
import { Phase } from "./parts/phase";
import { Key, Shown } from "./parts/text";

interface Found {
  key: string;
  title: string;
  hint?: string;
  keys?: string;
  phase?: string;
  run: () => void;
}

/** Finds executions, pages and what can be done here. */
export function Palette({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [, navigate] = useLocation();
  const here = useMemo(() => commands().filter((command) => command.quiet !== true), []);
  const asked = text.trim();
  const wanted = asked.replace(/^>\s*/, "").toLowerCase();
  const executions = useGet(
    "/api/v1/executions",
    { params: { query: { limit: 6, key_part: asked } } },
    { enabled: asked.length >= 2 && !asked.startsWith(">") },
  );
  const found: Found[] = [
    ...here
      .filter((command) => wanted.split(/\s+/).every((word) => command.title.toLowerCase().includes(word)))
      .map((command) => ({ key: command.title, title: command.title, keys: command.key, hint: command.group, run: command.run })),
    ...(executions.data?.executions ?? []).map((one) => ({
      key: one.id,
      title: one.key ?? one.id,
      hint: one.workflow_id,
      phase: one.phase,
      run: () => navigate(`/executions/${one.id}`),
    })),
    ...(/^[0-9a-f-]{36}$/i.test(asked)
      ? [{ key: asked, title: `Open execution ${asked}`, run: () => navigate(`/executions/${asked.toLowerCase()}`) }]
      : []),
  ].slice(0, 40);
  const chosen = Math.min(at, found.length - 1);
  const run = (one: Found | undefined) => {
    if (one === undefined) return;
    onClose();
    one.run();
  };
  return (
    <Dialog title="Search or jump to" onClose={onClose}>
      <input
        class="input palette"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-found"
        aria-activedescendant={found.length > 0 ? `palette-${chosen}` : undefined}
        placeholder="A key, an id, a page or an action"
        autofocus
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, found.length - 1));
          else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
          else if (event.key === "Enter") run(found[chosen]);
          else return;
          event.preventDefault();
        }}
      />
      <ul id="palette-found" class="found" role="listbox" aria-label="Found">
        {found.map((one, index) => (
          <li
            key={one.key}
            id={`palette-${index}`}
            role="option"
            aria-selected={index === chosen}
            class={index === chosen ? "row on" : "row"}
            onClick={() => run(one)}
            onMouseMove={() => setAt(index)}
          >
            {one.phase !== undefined && <Phase phase={one.phase} />}
            <span class="grow trunc">
              <Shown text={one.title} />
            </span>
            {one.hint !== undefined && (
              <span class="dim3 trunc">
                <Shown text={one.hint} />
              </span>
            )}
            {one.keys !== undefined && <Key keys={one.keys} />}
          </li>
        ))}
        {found.length === 0 && <li class="dim">Nothing found for “{asked}”.</li>}
      </ul>
    </Dialog>
  );
}
