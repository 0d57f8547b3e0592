import { useLocation, useRouter, useSearch } from "wouter-preact";

/** The address is the state: filters, tab, selected row and open dialog are in its query. */
export function useQueryParams(): [URLSearchParams, (changes: Record<string, string | readonly string[] | null>, push?: boolean) => void] {
  const [, navigate] = useLocation();
  const { base } = useRouter();
  const search = useSearch();
  const params = new URLSearchParams(search);
  const change = (changes: Record<string, string | readonly string[] | null>, push = false) => {
    const next = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) {
      next.delete(name);
      for (const one of value === null ? [] : typeof value === "string" ? [value] : value) next.append(name, one);
    }
    const query = next.toString();
    const path = location.pathname.slice(base.length) || "/"; // as it is: the router's path is decoded
    navigate(query === "" ? path : `${path}?${query}`, { replace: !push });
  };
  return [params, change];
}

/** A name from an address. The router has decoded all but what separates parts of an address. */
export function named(param: string | undefined): string {
  try {
    return decodeURIComponent(param ?? "");
  } catch {
    return param ?? "";
  }
}
