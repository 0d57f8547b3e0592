import { useLayoutEffect, useRef } from "preact/hooks";

/** Something that the user can do here: by key, from the palette, or by a button. */
export interface Command {
  /** Verb first: "Retry this execution". */
  title: string;
  /** `r`, `g e`, `shift+k`, `mod+k`, `escape`. Without one it is in the palette only. */
  key?: string;
  run: () => void;
  /** The heading in the palette and in the list of keys. */
  group?: string;
  /** Also while the focus is in a text field. */
  everywhere?: boolean;
  /** In the list of keys but not in the palette. */
  quiet?: boolean;
}

const stack: (() => Command[])[] = [];
let first = "";
let timer = 0;

/** All commands of what is shown now; the newest first, so that a dialog's come before its page's. */
export function commands(): Command[] {
  return stack.toReversed().flatMap((given) => given());
}

/** The commands of a part, from the moment it is in the page: a key that is pressed at once must not be lost. */
export function useCommands(given: Command[]): void {
  const latest = useRef(given);
  latest.current = given;
  useLayoutEffect(() => {
    const entry = () => latest.current;
    stack.push(entry);
    return () => void stack.splice(stack.indexOf(entry), 1);
  }, []);
}

function name(event: KeyboardEvent): string {
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  const shifted = event.shiftKey && /^[a-z]$|^.{2,}$/.test(key) ? "shift+" : "";
  return `${event.metaKey || event.ctrlKey ? "mod+" : ""}${shifted}${key}`;
}

function writes(target: EventTarget | null): boolean {
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button", "submit", "range"].includes(target.type);
  return target instanceof HTMLElement && (target.isContentEditable || /^(textarea|select)$/i.test(target.tagName));
}

/** Enter and space belong to what has the focus, if it takes them. */
function takes(target: EventTarget | null, key: string): boolean {
  return (key === "enter" || key === "space") && target instanceof Element && target.closest("button, a, summary, input, [role=option]") !== null;
}

export function listen(): () => void {
  const onKey = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.altKey || event.isComposing) return;
    const key = name(event);
    if (takes(event.target, key)) return;
    const typed = first === "" ? key : `${first} ${key}`;
    const all = commands();
    const found =
      all.find((command) => command.key === typed && (command.everywhere === true || !writes(event.target))) ??
      (first === "" ? undefined : all.find((command) => command.key === key && !writes(event.target)));
    clearTimeout(timer);
    first = "";
    if (found !== undefined) {
      event.preventDefault();
      found.run();
    } else if (!writes(event.target) && all.some((command) => command.key?.startsWith(`${key} `))) {
      first = key;
      timer = window.setTimeout(() => (first = ""), 1_000);
    }
  };
  addEventListener("keydown", onKey);
  return () => removeEventListener("keydown", onKey);
}
