import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../../api/client";
import { useQueryParams } from "../../url";
import type { Summary } from "./list";

/** So many selected rows are in the address. */
const KEPT_MAX = 50;

async function find(id: string): Promise<Summary | undefined> {
  const page = await get("/api/v1/executions/summaries", { params: { query: { q: id, limit: 1 } } });
  return page.executions.find((row) => row.id === id);
}

/** Selected rows. The address keeps them, so that they are selected again after a reload, or on the way back. */
export function useSelection(list: unknown, rows: readonly Summary[], loaded: boolean) {
  const [params, change] = useQueryParams();
  const [selected, setSelected] = useState<ReadonlyMap<string, Summary>>(new Map());
  const [all, setAll] = useState(false);
  const known = useRef<unknown>(null);
  const clear = () => {
    setSelected(new Map());
    setAll(false);
  };
  useEffect(() => {
    if (!loaded || known.current === list) return;
    const ids = (params.get("sel") ?? "").split(",").filter(Boolean).slice(0, KEPT_MAX);
    if (known.current !== null) clear();
    known.current = list;
    if (ids.length === 0) return;
    const here = new Map(rows.map((row) => [row.id, row]));
    void Promise.all(ids.map(async (id) => here.get(id) ?? find(id).catch(() => undefined))).then((found) => {
      if (known.current === list) setSelected((now) => (now.size > 0 ? now : new Map(found.flatMap((row) => (row === undefined ? [] : [[row.id, row] as const])))));
    });
  }, [list, loaded]);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    const ids = all || selected.size === 0 || selected.size > KEPT_MAX ? null : [...selected.keys()].join(",");
    if (ids !== new URLSearchParams(location.search).get("sel")) change({ sel: ids });
  }, [selected, all]);
  return { selected, setSelected, all, setAll, clear };
}
