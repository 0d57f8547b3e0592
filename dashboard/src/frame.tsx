import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { LogOut, PanelLeft, Search, Settings } from "lucide-preact";
import { useQuery } from "@tanstack/preact-query";
import { toggleTheme } from "./appearance";
import { actIn, now, send } from "./api/client";
import { useConnection, useLive } from "./api/live";
import { queries } from "./api/query";
import { commands, useCommands, type Command } from "./keys";
import { navigation } from "./routes";
import { clock } from "./model/time";
import { useIdentity } from "./session";
import { killWorker } from "./parts/dev";
import { Dialog } from "./parts/dialog";
import { Key } from "./parts/text";
import { Toasts } from "./parts/toast";
import { Palette } from "./palette";

export function Mark() {
  return (
    <svg width="20" height="20" viewBox="0 0 24 24" fill="none" aria-hidden="true">
      <path d="M7 15.2V5.5a2 2 0 0 1 2-2h4.6a5.4 5.4 0 0 1 0 10.8H10.6" stroke="currentColor" stroke-width="3" stroke-linecap="round" stroke-linejoin="round" />
      <path d="M7 20.3v.2" stroke="var(--accent-fill)" stroke-width="3.4" stroke-linecap="round" />
    </svg>
  );
}

/** Counts beside navigation items, by path: what needs action. Pages and the live feed set them. */
export function useNavCounts(): Record<string, { n: number; bad?: boolean }> {
  const { data } = useQuery<Record<string, { n: number; bad?: boolean }>>({
    queryKey: ["nav counts"],
    queryFn: () => ({}),
    staleTime: Infinity,
  });
  return data ?? {};
}

export function setNavCount(path: string, n: number, bad = false): void {
  queries.setQueryData(["nav counts"], (old: Record<string, unknown> | undefined) => ({ ...old, [path]: { n, bad } }));
}

export async function signOut(): Promise<void> {
  await send("POST", "/api/v1/auth/signout").catch(() => null);
  location.assign("/");
}

export function Frame({ children, narrow }: { children: ComponentChildren; narrow: boolean }) {
  const identity = useIdentity();
  const [folded, setFolded] = useState(narrow);
  useEffect(() => setFolded(narrow), [narrow]);
  const [open, setOpen] = useState<"palette" | "keys" | null>(null);
  const [path, navigate] = useLocation();
  const counts = useNavCounts();
  const project = identity.projects.find((one) => one.id === identity.project_id);
  const given: Command[] = [
    { title: "Search or jump to", key: "mod+k", everywhere: true, quiet: true, run: () => setOpen("palette") },
    { title: "Show the keys of this page", key: "?", run: () => setOpen("keys") },
    { title: "Start an execution", key: "n", run: () => navigate(path.startsWith("/workflows/") ? `${path}?run=1` : "/workflows?run=1") },
    ...(identity.features?.includes("dev") === true ? [{ title: "Kill the worker", key: "shift+k", run: () => void killWorker() }] : []),
    { title: "Fold the navigation", key: "mod+\\", run: () => setFolded(!folded) },
    { title: "Switch between light and dark", run: toggleTheme },
    ...navigation.map((item) => ({ title: `Go to ${item.word}`, key: `g ${item.key}`, group: "Go to", run: () => navigate(item.path) })),
    { title: "Go to Settings", key: "g ,", group: "Go to", run: () => navigate("/settings") },
    ...(identity.can_sign_out ? [{ title: "Sign out", run: () => void signOut() }] : []),
  ];
  useCommands(given);
  useLive("counts", (event) => event.event === "counts" && setNavCount("/inbox", event.data.questions));
  return (
    <div class={folded ? "app rail" : "app"}>
      <a class="skip" href="#main">
        Skip to the page
      </a>
      <nav class="side" aria-label="Pages">
        <div class="brand">
          <Mark />
          {!folded && <span>Perdure</span>}
        </div>
        {!folded && identity.projects.length > 0 && (
          <label class="proj">
            <i aria-hidden="true">{(project?.name ?? "?").charAt(0).toUpperCase()}</i>
            {identity.projects.length === 1 ? (
              <span class="m trunc">{project?.name}</span>
            ) : (
              <select
                class="m grow"
                aria-label="Project"
                value={identity.project_id ?? ""}
                onChange={(event) => {
                  actIn(event.currentTarget.value);
                  location.assign(`/p/${event.currentTarget.value}/`);
                }}
              >
                {identity.projects.map((one) => (
                  <option key={one.id} value={one.id}>
                    {one.name}
                  </option>
                ))}
              </select>
            )}
          </label>
        )}
        <button type="button" class="nav find" onClick={() => setOpen("palette")} title="Search or jump to">
          <Search size={16} aria-hidden="true" />
          {!folded && (
            <>
              Search or jump to
              <span class="kbds">
                <Key keys="mod+k" />
              </span>
            </>
          )}
        </button>
        {(["Activity", "Resources", "Operations"] as const).map((group) => (
          <div class="group" key={group}>
            {navigation
              .filter((item) => item.group === group)
              .map(({ icon: Icon, ...item }) => {
                const on = item.path === "/" ? path === "/" : path.startsWith(item.path);
                const count = counts[item.path];
                return (
                  <Link
                    key={item.path}
                    href={item.path}
                    class={on ? "nav on" : "nav"}
                    aria-current={on ? "page" : undefined}
                    title={folded ? item.word : undefined}
                    aria-label={folded ? item.word : undefined}
                  >
                    <Icon size={16} aria-hidden="true" />
                    {!folded && item.word}
                    {count !== undefined && count.n > 0 && <span class={`n ${count.bad === true ? "bad" : "hot"}`}>{count.n}</span>}
                  </Link>
                );
              })}
          </div>
        ))}
        <div class="foot">
          <Link href="/settings" class={path.startsWith("/settings") ? "nav on" : "nav"} aria-label="Settings">
            <Settings size={16} aria-hidden="true" />
            {!folded && "Settings"}
          </Link>
          <button type="button" class="nav" aria-label={folded ? "Unfold the navigation" : "Fold the navigation"} onClick={() => setFolded(!folded)}>
            <PanelLeft size={16} aria-hidden="true" />
            {!folded && "Fold"}
          </button>
          {identity.can_sign_out && (
            <button type="button" class="nav" aria-label="Sign out" title={identity.name} onClick={() => void signOut()}>
              <LogOut size={16} aria-hidden="true" />
              {!folded && "Sign out"}
            </button>
          )}
          <Alive folded={folded} />
        </div>
      </nav>
      <div id="main" class="slot">
        <Away />
        {children}
      </div>
      {open === "palette" && <Palette onClose={() => setOpen(null)} />}
      {open === "keys" && <KeyList onClose={() => setOpen(null)} />}
      <Toasts />
    </div>
  );
}

/** The dot that says whether the server answers, with its version and store. */
function Alive({ folded }: { folded: boolean }) {
  const identity = useIdentity();
  const { away } = useConnection();
  const store = identity.store === "sqlite" ? "SQLite" : "PostgreSQL";
  return (
    <div class={away ? "live away" : "live"} role="status" title={folded ? `${identity.version} · ${store}` : undefined}>
      <i aria-hidden="true" />
      {!folded && (
        <>
          <span class="grow">{away ? "Server unreachable" : "Live"}</span>
          <span>
            {identity.version} · {store}
          </span>
        </>
      )}
    </div>
  );
}

/** The server does not answer: when the page tries again, and how old its data are. Actions stay, and fail with words. */
function Away() {
  const connection = useConnection();
  const [, tick] = useState(0);
  useEffect(() => {
    if (!connection.away) return;
    const timer = setInterval(() => tick((n) => n + 1), 1_000);
    return () => clearInterval(timer);
  }, [connection.away]);
  if (!connection.away) return null;
  const left = Math.ceil((connection.retryAt - now()) / 1_000);
  return (
    <p class="away" role="alert">
      Server unreachable. {left > 0 ? `Retrying in ${left} s.` : "Retrying now."}
      {connection.heardAt !== null && ` Data from ${clock(new Date(connection.heardAt).toISOString())}.`}
    </p>
  );
}

function KeyList({ onClose }: { onClose: () => void }) {
  const shown = commands().filter((command) => command.key !== undefined);
  return (
    <Dialog title="Keys of this page" onClose={onClose}>
      <dl class="keys">
        {shown.map((command) => (
          <div key={`${command.key} ${command.title}`} class="row">
            <dt class="grow">{command.title}</dt>
            <dd class="row gap4">
              <Key keys={command.key!} />
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
