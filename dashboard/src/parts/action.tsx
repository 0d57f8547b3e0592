import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { currentProject, send } from "../api/client";
import { useRefresh } from "../api/query";
import { type Call, asCurl } from "../model/calls";
import { useBlocked, useMay, type Role } from "../session";
import { Lock } from "lucide-preact";
import { Dialog } from "./dialog";
import { Problem } from "./state";
import { CopyButton, Key } from "./text";
import { toast } from "./toast";
import { useCommands } from "../keys";

interface Props {
  /** The action and what it changes: "Cancel 12 executions and 31 children". */
  title: string;
  /** What happens, one plain sentence a line, the worst last. */
  effects: ComponentChildren[];
  /** The word on the button: "Retry 410". */
  word: string;
  danger?: boolean;
  call: Call;
  /** The same as a command: `perdure retry ID`. */
  command?: string;
  /** The same in Python: `await client.retry("ID")`. */
  python?: string;
  /** Fields of the action. */
  children?: ComponentChildren;
  /** Why the action cannot be sent as the fields stand. */
  invalid?: string | null;
  /** The user types this before the button works. */
  typed?: string;
  role?: Role;
  onClose: () => void;
  /** With the server's answer. The default says `done`. */
  onDone?: (answer: unknown) => void;
  done?: string;
  /** What is asked for again afterwards; by default everything that is shown. */
  refresh?: string[];
}

/** An action that says what it will do before it does it, and that can be copied. */
export function ActionDialog(props: Props) {
  const may = useMay(props.role ?? "write");
  const blocked = useBlocked(props.role ?? "write");
  const refresh = useRefresh();
  const key = useMemo(() => crypto.randomUUID(), []); // a second click, or a lost answer, is the same action
  const [sending, setSending] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [typed, setTyped] = useState("");
  const ready = blocked === undefined && !sending && (props.invalid ?? null) === null && (props.typed === undefined || typed === props.typed);

  const run = async () => {
    if (!ready) return;
    setSending(true);
    setError(null);
    try {
      const answer = await send(props.call.method, props.call.path, props.call.body, props.call.method === "POST" ? key : undefined);
      refresh(...(props.refresh ?? []));
      props.onClose();
      if (props.onDone !== undefined) props.onDone(answer);
      else if (props.done !== undefined) toast(props.done);
    } catch (problem) {
      setError(problem);
      setSending(false);
    }
  };
  useCommands([{ title: props.title, key: "mod+enter", everywhere: true, quiet: true, run: () => void run() }]);

  return (
    <Dialog
      title={props.title}
      onClose={props.onClose}
      footer={
        <>
          <Copies call={props.call} command={props.command} python={props.python} />
          <span class="grow" />
          <button type="button" class="btn" onClick={props.onClose}>
            Close
          </button>
          <button
            type="button"
            class={`btn ${props.danger === true ? "dangerfill" : "pri"}`}
            disabled={!ready}
            title={blocked}
            onClick={() => void run()}
          >
            {!may && <Lock size={13} aria-hidden="true" />}
            {props.word} <Key keys="mod+enter" />
          </button>
        </>
      }
    >
      <ul class="box effects">
        {props.effects.map((effect, at) => (
          <li key={at}>{effect}</li>
        ))}
      </ul>
      {props.children}
      {props.typed !== undefined && (
        <label class="field">
          <span>
            Type <b>{props.typed}</b> to go on
          </span>
          <input class="input" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        </label>
      )}
      {(props.invalid ?? null) !== null && <p class="bad">{props.invalid}</p>}
      {blocked !== undefined && <p class="dim">{may ? blocked : `You may not do this: it needs the role ${props.role ?? "write"}.`}</p>}
      {error !== null && <Problem error={error} />}
    </Dialog>
  );
}

/** "Copy as": curl, the `perdure` command and Python. */
export function Copies({ call, command, python }: { call: Call; command?: string | undefined; python?: string | undefined }) {
  return (
    <span class="row gap4 copies">
      <span class="dim3">Copy as</span>
      <span class="row gap4">
        curl <CopyButton text={asCurl(call, location.origin, currentProject())} what="curl command" />
      </span>
      {command !== undefined && (
        <span class="row gap4">
          command <CopyButton text={command} what="command" />
        </span>
      )}
      {python !== undefined && (
        <span class="row gap4">
          Python <CopyButton text={python} what="Python call" />
        </span>
      )}
    </span>
  );
}
