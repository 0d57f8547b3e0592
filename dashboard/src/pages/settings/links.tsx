import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { quoted } from "../../model/calls";
import { ActionDialog } from "../../parts/action";
import { Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { useMay } from "../../session";

type QuestionLink = Schemas["ListedLink"];

/** Signed links to questions: each answers for everyone who has it. */
export function Links() {
  const may = useMay("write");
  const links = useGet("/api/v1/approval-links", {});
  const [gone, setGone] = useState<QuestionLink | null>(null);
  return (
    <>
      <p class="dim">Each link answers one question for everyone who has it. It ends by its time, with its maker, and with the signing secret.</p>
      <Loaded of={links}>
        {({ links: found, next_cursor: more }) =>
          found.length === 0 ? (
            <p class="dim">No links are open.</p>
          ) : (
            <>
              <table>
                <thead>
                  <tr>
                    <th>For</th>
                    <th>Question</th>
                    <th>Made by</th>
                    <th>Ends</th>
                    <th>Used</th>
                    <th />
                  </tr>
                </thead>
                <tbody>
                  {found.map((one) => (
                    <tr key={one.id}>
                      <td class="m">
                        <Shown text={one.name} />
                      </td>
                      <td>
                        <Link href={`/executions/${one.execution_id}`}>
                          <Shown text={one.step_key} />
                        </Link>
                      </td>
                      <td>
                        <Shown text={one.made_by} />
                      </td>
                      <td>
                        <Time at={one.expires_at} />
                      </td>
                      <td>{one.used_at == null ? <span class="dim3">no</span> : <Time at={one.used_at} />}</td>
                      <td class="r">
                        <button
                          type="button"
                          class="btn sm ghost"
                          disabled={!may}
                          title={may ? undefined : "Needs the role write."}
                          aria-label={`Revoke the link for ${one.name}`}
                          onClick={() => setGone(one)}
                        >
                          Revoke
                        </button>
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
              {more != null && (
                <p class="dim">
                  These are the newest {found.length}. <code>perdure links list --limit 1000</code> shows more.
                </p>
              )}
            </>
          )
        }
      </Loaded>
      {gone !== null && (
        <ActionDialog
          title={`Revoke the link for ${gone.name}`}
          effects={["The link answers nothing from then on.", "An answer that it gave stays."]}
          word="Revoke"
          danger
          call={{ method: "DELETE", path: `/api/v1/approval-links/${encodeURIComponent(gone.id)}` }}
          command={`perdure links revoke ${quoted(gone.id)}`}
          done={`Revoked the link for ${gone.name}.`}
          refresh={["/api/v1/approval-links"]}
          onClose={() => setGone(null)}
        />
      )}
    </>
  );
}
