import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Skeleton } from "./state";

/** A component whose code is loaded when it is first shown. Code that does not load is the nearest boundary's error. */
export function lazy<Props extends object>(load: () => Promise<{ default: ComponentType<Props> }>): ComponentType<Props> {
  let Loaded: ComponentType<Props> | undefined;
  return function Lazy(props: Props) {
    const [, drawn] = useState(Loaded !== undefined);
    const [failed, fail] = useState<unknown>(null);
    useEffect(() => {
      if (Loaded !== undefined) return;
      load().then((found) => {
        Loaded = found.default;
        drawn(true);
      }, fail);
    }, []);
    if (failed !== null) throw failed;
    return Loaded === undefined ? <Skeleton /> : <Loaded {...props} />;
  };
}
