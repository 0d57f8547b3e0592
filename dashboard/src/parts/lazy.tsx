import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Skeleton } from "./state";

const unloaded = new Set<() => Promise<unknown>>();

/** Load the code of all pages once the browser is idle, so that they open without a server. */
export function loadWhenIdle(): void {
  const idle = "requestIdleCallback" in window ? requestIdleCallback : (run: () => void) => setTimeout(run, 2_000);
  idle(() => {
    for (const load of unloaded) void load().catch(() => {}); // a page that is opened tries again, and says it
  });
}

/** A component whose code is loaded when it is first shown, or before. Code that does not load is the nearest boundary's error. */
export function lazy<Props extends object>(load: () => Promise<{ default: ComponentType<Props> }>): ComponentType<Props> {
  let Loaded: ComponentType<Props> | undefined;
  const once = () =>
    load().then((found) => {
      Loaded = found.default;
      unloaded.delete(once);
    });
  unloaded.add(once);
  return function Lazy(props: Props) {
    const [, drawn] = useState(Loaded !== undefined);
    const [failed, fail] = useState<unknown>(null);
    useEffect(() => {
      if (Loaded !== undefined) return drawn(true);
      once().then(
        () => drawn(true),
        () => fail(new Error("This page could not be loaded: the server does not answer, or serves a newer release.")),
      );
    }, []);
    if (failed !== null) throw failed;
    return Loaded === undefined ? <Skeleton /> : <Loaded {...props} />;
  };
}
