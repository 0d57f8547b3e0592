import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { CircleAlert } from "lucide-preact";
import { CopyButton } from "./text";

/** An error in the server's words, at the place of what could not be shown. */
export function Problem({ error, again }: { error: unknown; again?: () => void }) {
  const text = error instanceof Error ? error.message : String(error);
  return (
    <div class="note p-failed" role="alert">
      <CircleAlert size={16} aria-hidden="true" />
      <span class="grow">{text}</span>
      {again !== undefined && (
        <button type="button" class="btn sm" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** A page or part that has nothing yet: what will appear, and code that makes it appear. */
export function Empty({ title, children, code, docs }: { title: string; children?: ComponentChildren; code?: string; docs?: string }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children !== undefined && <p class="dim">{children}</p>}
      {code !== undefined && (
        <div class="box row">
          <pre class="grow" tabIndex={0}>
            {code}
          </pre>
          <CopyButton text={code} what="code" />
        </div>
      )}
      {docs !== undefined && (
        <p class="dim3">
          More: <code>{docs}</code>
        </p>
      )}
    </div>
  );
}

/** Lines in place of a page that loads, from 150 ms on. */
export function Skeleton({ rows = 6 }: { rows?: number }) {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div class="skeleton col gap12" aria-busy="true" aria-label="Loading">
      {late && Array.from({ length: rows }, (_, at) => <i key={at} />)}
    </div>
  );
}

interface Looked<T> {
  data: T | undefined;
  error: unknown;
  refetch: () => unknown;
}

/** The answer of a query, or its skeleton or error. Old data stays while new data loads or fails to. */
export function Loaded<T>({ of, children, rows }: { of: Looked<T>; children: (data: T) => ComponentChildren; rows?: number }) {
  if (of.data !== undefined) return <>{children(of.data)}</>;
  if (of.error !== null && of.error !== undefined) return <Problem error={of.error} again={() => of.refetch()} />;
  return <Skeleton rows={rows} />;
}
