import { Link } from "wouter-preact";
import { useGet } from "../../api/query";
import { Page } from "../../parts/page";
import { Phase } from "../../parts/phase";
import { Empty, Loaded } from "../../parts/state";
import { Id, Shown, Time } from "../../parts/text";

export default function Executions() {
  const list = useGet("/api/v1/executions", { params: { query: { limit: 50 } } }, { every: 2_000 });
  return (
    <Page title="Executions" bare>
      <Loaded of={list}>
        {({ executions }) =>
          executions.length === 0 ? (
            <Empty title="No executions yet" code={"perdure run WORKFLOW --input '{}'"}>
              Each start of a workflow or an agent appears here.
            </Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Phase</th>
                  <th>Workflow and key</th>
                  <th>Execution</th>
                  <th class="r">Created</th>
                </tr>
              </thead>
              <tbody>
                {executions.map((one) => (
                  <tr key={one.id}>
                    <td>
                      <Phase phase={one.phase} />
                    </td>
                    <td>
                      <Link href={`/executions/${one.id}`}>
                        <Shown text={one.workflow_id} />
                      </Link>{" "}
                      {one.key != null && <Shown text={one.key} mono />}
                    </td>
                    <td>
                      <Id id={one.id} />
                    </td>
                    <td class="r">
                      <Time at={one.created_at} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )
        }
      </Loaded>
    </Page>
  );
}
