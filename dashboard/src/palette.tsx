import { Fragment } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { useLocation, useRouter } from "wouter-preact";
import type { Schemas } from "./api/client";
import { useGet } from "./api/query";
import { commands } from "./keys";
import { Dialog } from "./parts/dialog";
import { errorWords, shortId } from "./model/words";
import { PhaseIcon, phaseWord } from "./parts/phase";
import { Key, Shown } from "./parts/text";

interface Found {
  group: "Executions" | "Do" | "Go to";
  title: string;
  hint?: string;
  keys?: string;
  phase?: string;
  /** Where it leads: `mod+enter` opens it in a new tab. */
  path?: string;
  run?: () => void;
}

const GROUPS = ["Executions", "Do", "Go to"] as const;

/** Names that begin with the words, and where each leads. */
function named(found: Schemas["SearchResults"]): Found[] {
  const place = (word: string, names: readonly string[], path: (name: string) => string): Found[] =>
    names.map((name) => ({ group: "Go to", title: `${word} ${name}`, path: path(encodeURIComponent(name)) }));
  return [
    ...place("Workflow", found.workflows, (name) => `/workflows/${name}`),
    ...place("Agent", found.agents, (name) => `/agents/${name}`),
    ...place("Queue", found.queues, (name) => `/queues?queue=${name}`),
    ...place("Topic", found.topics, (name) => `/events/topics/${name}`),
    ...place("Session", found.sessions, (name) => `/executions?session_id=${name}`),
    ...place("Deployment", found.deployments, (name) => `/deployments?id=${name}`),
  ];
}

/** `#` begins a tag, `@` a user; other words may be the beginning of a key. */
function filters(asked: string): Found[] {
  const rest = asked.slice(1).trim();
  const to = (title: string, name: string, value: string): Found[] =>
    value.length < 2 ? [] : [{ group: "Do", title, path: `/executions?${new URLSearchParams({ [name]: value })}` }];
  if (asked.startsWith("#")) return to(`Filter executions: tag is ${rest}`, "tag", rest);
  if (asked.startsWith("@")) return to(`Filter executions: user is ${rest}`, "user_id", rest);
  return asked.startsWith(">") ? [] : to(`Filter executions: key begins with ${asked}`, "q", asked);
}

/** Finds executions, everything with a name, pages, and what can be done here. */
export function Palette({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [, navigate] = useLocation();
  const { base } = useRouter();
  const here = useMemo(() => commands().filter((command) => command.quiet !== true), []);
  const asked = text.trim();
  const wanted = asked.replace(/^>\s*/, "").toLowerCase();
  const searches = asked.length >= 2 && !/^[>#@]/.test(asked);
  const search = useGet("/api/v1/search", { params: { query: { q: asked } } }, { enabled: searches });
  const results = searches ? search.data : undefined;
  const all: Found[] = [
    ...(results?.executions ?? []).map(
      (one): Found => ({
        group: "Executions",
        title: one.workflow_id,
        hint: [one.key ?? shortId(one.id), one.details == null ? null : errorWords(one.details)].filter(Boolean).join(" · "),
        phase: one.phase,
        path: `/executions/${one.id}`,
      }),
    ),
    ...here
      .filter((command) => wanted.split(/\s+/).every((word) => command.title.toLowerCase().includes(word)))
      .map((command): Found => ({ group: command.group === "Go to" ? "Go to" : "Do", title: command.title, keys: command.key, run: command.run })),
    ...filters(asked),
    ...(results === undefined ? [] : named(results)),
  ];
  const found = GROUPS.flatMap((group) => all.filter((one) => one.group === group)).slice(0, 40);
  const chosen = Math.min(at, found.length - 1);
  const run = (one: Found | undefined, elsewhere = false) => {
    if (one === undefined) return;
    onClose();
    if (one.run !== undefined) one.run();
    else if (elsewhere) open(base + one.path!, "_blank", "noopener");
    else navigate(one.path!);
  };
  useEffect(() => document.getElementById(`palette-${chosen}`)?.scrollIntoView({ block: "nearest" }), [chosen]);
  return (
    <Dialog
      title="Search or jump to"
      onClose={onClose}
      footer={
        <span class="row dim3 gap12">
          <span>
            <Key keys="↑ ↓" /> choose
          </span>
          <span>
            <Key keys="enter" /> open
          </span>
          <span>
            <Key keys="mod+enter" /> open in a new tab
          </span>
          <span>
            <Key keys="> # @" /> actions, tags, users
          </span>
        </span>
      }
    >
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
          else if (event.key === "Enter") run(found[chosen], event.metaKey || event.ctrlKey);
          else return;
          event.preventDefault();
        }}
      />
      <ul id="palette-found" class="found" role="listbox" aria-label="Found">
        {found.map((one, index) => (
          <Fragment key={`${one.group} ${one.title} ${one.path ?? ""}`}>
            {found[index - 1]?.group !== one.group && (
              <li role="presentation" class="dim3 heading">
                {one.group}
              </li>
            )}
            <li
              id={`palette-${index}`}
              role="option"
              aria-selected={index === chosen}
              class={index === chosen ? "row on" : "row"}
              onClick={() => run(one)}
              onMouseMove={() => setAt(index)}
            >
              {one.phase !== undefined && (
                <span class={`ph p-${one.phase}`} title={phaseWord(one.phase)}>
                  <PhaseIcon phase={one.phase} />
                </span>
              )}
              <span class="trunc">
                <Shown text={one.title} />
              </span>
              <span class="grow dim3 trunc">
                <Shown text={one.hint ?? ""} />
              </span>
              {one.keys !== undefined && <Key keys={one.keys} />}
            </li>
          </Fragment>
        ))}
        {found.length === 0 && <li class="dim">Nothing found for “{asked}”.</li>}
      </ul>
    </Dialog>
  );
}
