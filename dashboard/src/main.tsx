import { render } from "preact";
import { ErrorBoundary } from "./parts/boundary";
import { useEffect, useState } from "preact/hooks";
import { Redirect, Route, Router, Switch, useLocation } from "wouter-preact";
import { QueryClientProvider, useQuery } from "@tanstack/preact-query";
import { showAppearance } from "./appearance";
import { actIn, get, whenSignedOut } from "./api/client";
import { ApiError } from "./api/errors";
import { queries } from "./api/query";
import { Frame } from "./frame";
import { listen } from "./keys";
import { Page } from "./parts/page";
import { Empty, Problem, Skeleton } from "./parts/state";
import { SignIn } from "./pages/signin";
import { routes } from "./routes";
import { Session, type Identity } from "./session";
import { Dialog } from "./parts/dialog";
import { loadWhenIdle } from "./parts/lazy";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/app.css";

showAppearance();

const named = /^\/p\/([0-9a-f-]{36})(?=\/|$)/.exec(location.pathname)?.[1] ?? null;
actIn(named);

async function whoAmI(): Promise<Identity> {
  return get("/api/v1/me");
}

function App() {
  const me = useQuery({ queryKey: ["/api/v1/me"], queryFn: whoAmI, staleTime: 60_000 });
  const [signedOut, setSignedOut] = useState(false);
  useEffect(listen, []);
  useEffect(() => whenSignedOut(() => setSignedOut(true)), []);
  useEffect(() => void (me.data !== undefined && loadWhenIdle()), [me.data !== undefined]);
  if (me.data === undefined && ((me.error instanceof ApiError && me.error.status === 401) || signedOut)) {
    return (
      <SignIn
        used={location.pathname === "/sign-in" && location.search.includes("token=")}
        onDone={() => {
          if (location.pathname === "/sign-in") history.replaceState(null, "", "/");
          setSignedOut(false);
          void queries.resetQueries();
        }}
      />
    );
  }
  if (me.data === undefined) return me.error === null ? <Skeleton /> : <Problem error={me.error} again={() => void me.refetch()} />;
  const { project_id, projects } = me.data;
  if (project_id === null && projects.length > 0) {
    location.replace(`/p/${projects[0]!.id}${location.pathname}${location.search}`); // a user works in one project at a time
    return null;
  }
  return (
    <Session.Provider value={me.data}>
      <Router base={named === null ? "" : `/p/${named}`}>
        <Pages />
        {signedOut && <SignInAgain was={me.data} onDone={() => setSignedOut(false)} />}
      </Router>
    </Session.Provider>
  );
}

/** The session has ended: over the page, so that a half-filled form stays. */
function SignInAgain({ was, onDone }: { was: Identity; onDone: () => void }) {
  const done = async () => {
    const is = await whoAmI();
    if (is.name !== was.name || is.user_id !== was.user_id || is.project_id !== was.project_id) return location.reload();
    onDone();
    void queries.invalidateQueries();
  };
  return (
    <Dialog title="Your session has ended" onClose={() => {}} held>
      <SignIn used={false} onDone={() => void done()} inDialog />
    </Dialog>
  );
}

/** Whether the window has fewer pixels, as it changes. */
function useNarrow(pixels: number): boolean {
  const [width, setWidth] = useState(innerWidth);
  useEffect(() => {
    const look = () => setWidth(innerWidth);
    addEventListener("resize", look);
    return () => removeEventListener("resize", look);
  }, []);
  return width < pixels;
}

function Pages() {
  const [path] = useLocation();
  const old = new URLSearchParams(location.search).get("execution");
  return (
    <Frame narrow={useNarrow(path.startsWith("/executions/") ? 1_600 : 1_280)}>
      <ErrorBoundary key={path}>
        <Switch>
          {path === "/" && old !== null && <Redirect to={`/executions/${old}`} replace />}
          {routes.map(({ path, page: Shown }) => (
            <Route key={path} path={path}>
              {(params) => <Shown params={params as Record<string, string>} />}
            </Route>
          ))}
          <Route>
            <Page title="Page not found">
              <Empty title="This address leads nowhere">Check it, or search with the key ⌘K.</Empty>
            </Page>
          </Route>
        </Switch>
      </ErrorBoundary>
    </Frame>
  );
}

render(
  <QueryClientProvider client={queries}>
    <App />
  </QueryClientProvider>,
  document.getElementById("app")!,
);
