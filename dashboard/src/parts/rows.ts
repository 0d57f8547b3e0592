import { useEffect, useState } from "preact/hooks";
import { useCommands } from "../keys";

/** The row of a table that the keys `j`, `k` and `o` mean; -1 before the first key. */
export function useRows(count: number, onOpen: (at: number) => void): { at: number; row: (at: number) => { class: string; "data-row": number } } {
  const [at, setAt] = useState(-1);
  const current = Math.min(at, count - 1);
  useEffect(() => {
    if (current >= 0) document.querySelector(`[data-row="${current}"]`)?.scrollIntoView({ block: "nearest" });
  }, [current]);
  useCommands([
    { title: "Next row", key: "j", quiet: true, run: () => setAt(Math.min(current + 1, count - 1)) },
    { title: "Previous row", key: "k", quiet: true, run: () => setAt(Math.max(current - 1, 0)) },
    { title: "Open the row", key: "o", quiet: true, run: () => current >= 0 && onOpen(current) },
  ]);
  return { at: current, row: (index) => ({ class: index === current ? "cur" : "", "data-row": index }) };
}
