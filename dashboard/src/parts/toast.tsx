import { useEffect, useState } from "preact/hooks";
import { now } from "../api/client";
import { useCommands } from "../keys";
import { secondsLeft } from "../model/time";
import { useTick } from "./tick";

interface Action {
  word: string;
  key?: string;
  run: () => void;
}

/** Something that begins at a time of the server. */
interface Hold {
  until: number;
  /** When it has begun. */
  begun: () => void;
}

interface Message {
  text: string;
  actions: readonly Action[];
  hold?: Hold | undefined;
}

let show: (message: Message | null) => void = () => {};

/** One sentence at the bottom for six seconds, or for as long as the pointer is on it or what it says is held. */
export function toast(text: string, actions: Action | readonly Action[] = [], hold?: Hold): void {
  show({ text, actions: "word" in actions ? [actions] : actions, hold });
}

export function copy(text: string, what: string): void {
  void navigator.clipboard.writeText(text).then(
    () => toast(`Copied the ${what}.`),
    () => toast(`The browser did not let the page copy the ${what}.`),
  );
}

export function Toasts() {
  const [message, setMessage] = useState<Message | null>(null);
  const [pointed, setPointed] = useState(false);
  show = setMessage;
  const hold = message?.hold;
  useEffect(() => {
    if (message === null || (pointed && hold === undefined)) return;
    const end = () => {
      setMessage((shown) => (shown === message ? null : shown));
      hold?.begun();
    };
    const timer = setTimeout(end, hold === undefined ? 6_000 : Math.max(0, hold.until - now()));
    return () => clearTimeout(timer);
  }, [message, pointed && hold === undefined]);
  return (
    <div class="dock" role="status" onMouseEnter={() => setPointed(true)} onMouseLeave={() => setPointed(false)}>
      {message !== null && (
        <div class="toast">
          <span>
            {message.text}
            {hold !== undefined && <Countdown until={hold.until} />}
          </span>
          {message.actions.map((action) => (
            <Act key={action.word} action={action} close={() => setMessage(null)} />
          ))}
        </div>
      )}
    </div>
  );
}

/** Hidden from screen readers, which would read each second. */
function Countdown({ until }: { until: number }) {
  useTick(250);
  return (
    <span class="num" aria-hidden="true">
      {" "}
      in {secondsLeft(until, now())}
    </span>
  );
}

function Act({ action, close }: { action: Action; close: () => void }) {
  const run = () => {
    close();
    action.run();
  };
  useCommands(action.key === undefined ? [] : [{ title: action.word, key: action.key, run }]);
  return (
    <button type="button" class="btn sm ghost inherit" onClick={run}>
      {action.word}
    </button>
  );
}
