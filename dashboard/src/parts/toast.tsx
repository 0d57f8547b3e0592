import { useEffect, useState } from "preact/hooks";

interface Message {
  text: string;
  action?: { word: string; run: () => void };
}

let show: (message: Message) => void = () => {};

/** One sentence at the bottom for six seconds, or for as long as the pointer is on it. */
export function toast(text: string, action?: Message["action"]): void {
  show({ text, action });
}

export function copy(text: string, what: string): void {
  void navigator.clipboard.writeText(text).then(
    () => toast(`Copied the ${what}.`),
    () => toast(`The browser did not let the page copy the ${what}.`),
  );
}

export function Toasts() {
  const [message, setMessage] = useState<Message | null>(null);
  const [held, setHeld] = useState(false);
  show = setMessage;
  useEffect(() => {
    if (message === null || held) return;
    const timer = setTimeout(() => setMessage(null), 6_000);
    return () => clearTimeout(timer);
  }, [message, held]);
  return (
    <div class="dock" role="status" onMouseEnter={() => setHeld(true)} onMouseLeave={() => setHeld(false)}>
      {message !== null && (
        <div class="toast">
          <span>{message.text}</span>
          {message.action !== undefined && (
            <button
              type="button"
              class="btn sm ghost inherit"
              onClick={() => {
                setMessage(null);
                message.action?.run();
              }}
            >
              {message.action.word}
            </button>
          )}
        </div>
      )}
    </div>
  );
}
