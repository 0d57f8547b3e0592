import { Link } from "wouter-preact";
import { X } from "lucide-preact";
import { now, type Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { useCommands } from "../../keys";
import { rowsOf, type Span } from "../../model/spans";
import { clock, duration, exact } from "../../model/time";
import { counted } from "../../model/words";
import { Split } from "../../parts/controls";
import { Page } from "../../parts/page";
import { Spans } from "../../parts/spans";
import { Loaded } from "../../parts/state";
import { CopyButton, Shown } from "../../parts/text";
import { named, useQueryParams } from "../../url";
import { errorText } from "./index";
import "./traces.css";

function spanOf(one: Schemas["Span"]): Span {
  return {
    id: one.span_id,
    parent: one.parent_span_id ?? null,
    name: one.name,
    kind: one.span_type,
    from: Date.parse(one.started_at),
    to: one.ended_at == null ? null : Date.parse(one.ended_at),
    failed: one.error != null,
  };
}

/** One trace: the spans of an execution and its descendants, and those that were sent under its id. */
export default function Trace({ params: { id } }: { params: Record<string, string> }) {
  const [params, change] = useQueryParams();
  const trace = useGet("/api/v1/traces/{trace_id}", { params: { path: { trace_id: named(id) } } }, { every: 3_000 });
  const found = trace.data?.spans ?? [];
  const chosen = found.find((one) => one.span_id === params.get("span"));
  const { rows, from, to } = rowsOf(found.map(spanOf), now());
  const at = rows.findIndex((row) => row.id === chosen?.span_id);
  const move = (by: number) => rows[at + by] !== undefined && change({ span: rows[at + by]!.id });
  useCommands([
    { title: "Next span", key: "j", quiet: true, run: () => move(1) },
    { title: "Previous span", key: "k", quiet: true, run: () => move(at < 0 ? 1 : -1) },
    { title: "Close the span", key: "escape", quiet: true, run: () => change({ span: null }) },
  ]);
  return (
    <Page title={trace.data?.root_span_name ?? "Trace"} bare>
      <Split label="Span" aside={chosen === undefined ? null : <Details span={chosen} onClose={() => change({ span: null })} />}>
        <Loaded of={trace}>
          {(one) => (
            <>
              <p class="dim facts1">
                {counted(one.span_count, "span")} in {duration(to - from)}, {one.status}
                {one.error_count > 0 && <span class="bad">, {counted(one.error_count, "error")}</span>}. Started <time title={exact(new Date(from).toISOString())}>{clock(new Date(from).toISOString(), true)}</time>. Trace <code>{one.trace_id}</code>{" "}
                <CopyButton text={one.trace_id} what="id" />
              </p>
              <Spans rows={rows} label="Spans" chosen={chosen?.span_id} onChoose={(span) => change({ span })} />
            </>
          )}
        </Loaded>
      </Split>
    </Page>
  );
}

function Details({ span, onClose }: { span: Schemas["Span"]; onClose: () => void }) {
  const attributes = Object.entries(span.attributes ?? {});
  const execution = span.attributes?.["workflow.execution_id"] ?? span.attributes?.["step.execution_id"];
  const key = span.attributes?.["step.key"];
  return (
    <div class="span">
      <header class="row">
        <h2 class="grow trunc">
          <Shown text={span.name} />
        </h2>
        <button type="button" class="btn ghost icon sm" aria-label="Close the span" onClick={onClose}>
          <X size={16} aria-hidden="true" />
        </button>
      </header>
      <p class="dim">
        {span.span_type}, {span.ended_at == null ? "open" : duration(Date.parse(span.ended_at) - Date.parse(span.started_at))}
        {typeof execution === "string" && (
          <>
            {" · "}
            <Link href={`/executions/${execution}${typeof key === "string" ? `?row=${encodeURIComponent(key)}` : ""}`}>Open the execution</Link>
          </>
        )}
      </p>
      {span.error != null && (
        <pre class="box err" tabIndex={0}>
          <Shown text={errorText(span.error)} />
        </pre>
      )}
      <Value name="Input" value={span.input} />
      <Value name="Output" value={span.output} />
      {attributes.length > 0 && (
        <section>
          <h3>Attributes</h3>
          <dl class="dl tight">
            {attributes.map(([name, value]) => (
              <>
                <dt key={name}>
                  <Shown text={name} />
                </dt>
                <dd title={typeof value === "string" ? value : undefined}>
                  <Shown text={typeof value === "string" ? value : JSON.stringify(value)} />
                </dd>
              </>
            ))}
          </dl>
        </section>
      )}
      <Value name="Events" value={span.events} />
    </div>
  );
}

const MOST = 20_000;

function Value({ name, value }: { name: string; value: unknown }) {
  if (value == null) return null;
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return (
    <section>
      <div class="row">
        <h3 class="grow">{name}</h3>
        <CopyButton text={text} what={name.toLowerCase()} />
      </div>
      <pre class="box json" tabIndex={0}>
        <Shown text={text.slice(0, MOST)} />
      </pre>
      {text.length > MOST && <p class="dim3">The first 20,000 characters. Copy it to see the rest.</p>}
    </section>
  );
}
