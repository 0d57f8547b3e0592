import { useLayoutEffect, useReducer, useState, type MutableRef } from "preact/hooks";
import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";

/** The rows of a long list that are in view, with ten above and below them. All rows have one height. */
export function useVirtual(scroller: MutableRef<HTMLElement | null>, count: number, height: number, scrollMargin = 0) {
  const [, draw] = useReducer<number, void>((n) => n + 1, 0);
  const options = {
    count,
    scrollMargin,
    estimateSize: () => height,
    getScrollElement: () => scroller.current,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    overscan: 10,
    onChange: () => draw(),
  };
  const [virtual] = useState(() => new Virtualizer<HTMLElement, HTMLElement>(options));
  virtual.setOptions(options);
  useLayoutEffect(() => virtual._didMount(), [virtual]);
  useLayoutEffect(() => virtual._willUpdate());
  return virtual;
}
