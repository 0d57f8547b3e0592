import { useEffect, useState } from "preact/hooks";

/** Draw again every so many milliseconds while the page is visible, so that "13 s ago" stays true. */
export function useTick(ms: number): void {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && tick((n) => n + 1), ms);
    return () => clearInterval(timer);
  }, [ms]);
}
