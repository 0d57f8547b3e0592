import { Link, useLocation } from "wouter-preact";
import { useGet } from "../../api/query";
import { duration } from "../../model/time";
import { Segments } from "../../parts/controls";
import { Page } from "../../parts/page";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useQueryParams } from "../../url";

const EXAMPLE = `# Traces of your own, beside those of executions: any OpenTelemetry exporter
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=${typeof location === "undefined" ? "" : location.origin}/v1/traces
OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer $PERDURE_API_KEY"`;

export default function Traces() {
  const [params, change] = useQueryParams();
  const failed = params.get("state") === "failed";
  const name = params.get("name") ?? "";
  const traces = useGet("/api/v1/traces", { params: { query: { limit: 100, ...(failed ? { has_error: true } : {}), ...(name === "" ? {} : { root_span_name: name }) } } }, { every: 3_000 });
  return (
    <Page
      title="Traces"
      bare
      actions={
        <>
          <input class="input find" type="search" aria-label="Find by the name of the first span" placeholder="Name of the first span" value={name} onInput={(event) => change({ name: event.currentTarget.value === "" ? null : event.currentTarget.value })} />
          <Segments
            label="State"
            of={
              [
                ["all", "All"],
                ["failed", "With errors"],
              ] as const
            }
            value={failed ? "failed" : "all"}
            onChange={(next) => change({ state: next === "all" ? null : next })}
          />
        </>
      }
    >
      <Loaded of={traces}>
        {({ traces: found }) =>
          found.length > 0 ? (
            <List found={found} />
          ) : failed || name !== "" ? (
            <Empty title="No traces match">Change the name, or show all traces.</Empty>
          ) : (
            <Empty title="No traces yet" code={EXAMPLE} docs="docs/traces.md">
              Each execution that has begun is a trace, together with its descendants and with spans that your programs send.
            </Empty>
          )
        }
      </Loaded>
    </Page>
  );
}

interface Listed {
  trace_id: string;
  status: string;
  root_span_type?: string | null;
  root_span_name?: string | null;
  started_at?: string | null;
  duration_ms?: number | null;
  root_error?: unknown;
}

function List({ found }: { found: Listed[] }) {
  const [, navigate] = useLocation();
  const { row } = useRows(found.length, (at) => navigate(`/traces/${found[at]!.trace_id}`));
  return (
    <table>
      <thead>
        <tr>
          <th>First span</th>
          <th>State</th>
          <th>Error</th>
          <th class="r">Took</th>
          <th class="r">Started</th>
        </tr>
      </thead>
      <tbody>
        {found.map((one, at) => (
          <tr key={one.trace_id} {...row(at)}>
            <td>
              <Link href={`/traces/${encodeURIComponent(one.trace_id)}`} class="m">
                <Shown text={one.root_span_name ?? one.trace_id} />
              </Link>{" "}
              {one.root_span_type != null && <span class="tag">{one.root_span_type}</span>}
            </td>
            <td class={one.status === "failed" ? "bad" : "dim"}>{one.status}</td>
            <td class="fit dim">{one.root_error != null && <Shown text={errorText(one.root_error)} />}</td>
            <td class="r num">{one.duration_ms == null ? "–" : duration(one.duration_ms)}</td>
            <td class="r">{one.started_at == null ? "–" : <Time at={one.started_at} />}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function errorText(error: unknown): string {
  const { message } = (typeof error === "object" && error !== null ? error : {}) as { message?: unknown };
  return typeof message === "string" ? message : JSON.stringify(error);
}
