import { Link } from "wouter-preact";
import { now } from "../api/client";
import { exact, when } from "../model/time";
import { shortId, visible } from "../model/words";
import { copy } from "./toast";
import { Copy } from "lucide-preact";

/** Text from users, models or workers. Invisible characters are spelled out. */
export function Shown({ text, mono }: { text: string; mono?: boolean }) {
  return mono === true ? <code>{visible(text)}</code> : <>{visible(text)}</>;
}

/** A time: short to read, exact in its title. */
export function Time({ at }: { at: string }) {
  return (
    <time dateTime={at} title={exact(at)} class="num nowrap">
      {when(at, now())}
    </time>
  );
}

/** An id, short, with what copies it. `to` is the address of a page. */
export function Id({ id, to }: { id: string; to?: string }) {
  const short = <code title={id}>{shortId(id)}</code>;
  return (
    <span class="row gap4">
      {to === undefined ? short : <Link href={to} class="accent">{short}</Link>}
      <CopyButton text={id} what="id" />
    </span>
  );
}

export function CopyButton({ text, what }: { text: string; what: string }) {
  return (
    <button type="button" class="copy" title={`Copy the ${what}`} aria-label={`Copy the ${what}`} onClick={() => copy(text, what)}>
      <Copy size={13} aria-hidden="true" />
    </button>
  );
}

export function Key({ keys }: { keys: string }) {
  return (
    <>
      {keys.split(" ").map((key) => (
        <kbd class="kbd" key={key}>
          {key
            .replace("mod+", mac ? "⌘" : "Ctrl ")
            .replace("shift+", "⇧")
            .replace("escape", "esc")
            .replace("enter", "↵")
            .replace("arrow", "")}
        </kbd>
      ))}
    </>
  );
}

const mac = /mac|iphone|ipad/i.test(navigator.platform);
