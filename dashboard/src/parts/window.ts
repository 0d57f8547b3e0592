import type { RefObject } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";

export interface Window {
  first: number;
  /** After the last row that is drawn. */
  last: number;
  /** The height of all rows, in pixels. */
  total: number;
}

/** Which rows of equal height a scrolling element shows, and a few more on both sides. */
export function useWindow(scroller: RefObject<HTMLElement>, count: number, height: number, { above = 0, more = 4 } = {}): Window {
  const [view, setView] = useState({ top: 0, height: 900 });
  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    let frame = 0;
    const look = () => {
      frame = 0;
      const first = Math.floor(element.scrollTop / height) * height; // rows change only when a whole one has passed
      setView((old) => (old.top === first && old.height === element.clientHeight ? old : { top: first, height: element.clientHeight }));
    };
    const later = () => (frame ||= requestAnimationFrame(look));
    look();
    const sizes = new ResizeObserver(later);
    sizes.observe(element);
    element.addEventListener("scroll", later, { passive: true });
    return () => {
      sizes.disconnect();
      element.removeEventListener("scroll", later);
      cancelAnimationFrame(frame);
    };
  }, [height]);
  const first = Math.max(0, Math.floor((view.top - above) / height) - more);
  const last = Math.min(count, Math.ceil((view.top - above + view.height) / height) + 1 + more);
  return { first: Math.min(first, last), last, total: count * height };
}

/** Scrolls so that a row can be seen. `above`: the height of what stays at the top. */
export function scrollToRow(element: HTMLElement | null, row: number, height: number, above = 0): void {
  if (element === null || row < 0) return;
  const top = row * height;
  const room = element.clientHeight - above;
  if (top < element.scrollTop) element.scrollTop = top;
  else if (top + height > element.scrollTop + room) element.scrollTop = top + height - room + height;
}

/** The width of an element, as it changes. */
export function useWidth(of: RefObject<HTMLElement>, ready = true): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const element = of.current;
    if (element === null) return;
    const look = () => setWidth(element.clientWidth);
    look();
    const sizes = new ResizeObserver(look);
    sizes.observe(element);
    return () => sizes.disconnect();
  }, [ready]);
  return width;
}
