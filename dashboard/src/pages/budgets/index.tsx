import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { Pencil, Plus, Trash2 } from "lucide-preact";
import type { Schemas } from "../../api/client";
import { useGet } from "../../api/query";
import { asPython, quoted } from "../../model/calls";
import { count, money } from "../../model/words";
import { ActionDialog } from "../../parts/action";
import { Use } from "../../parts/bars";
import { KINDS, OnExceed, RaiseDialog, USED_UP, amountsOf } from "../../parts/budget";
import { Labelled } from "../../parts/controls";
import { Page } from "../../parts/page";
import { PhaseIcon } from "../../parts/phase";
import { useRows } from "../../parts/rows";
import { Empty, Loaded } from "../../parts/state";
import { Shown, Time } from "../../parts/text";
import { toast } from "../../parts/toast";
import { useMay } from "../../session";
import { useQueryParams } from "../../url";
import "../queues/queues.css";

type Shared = Schemas["SharedBudget"];
type Balance = Schemas["BudgetResponse"];
type Act = { kind: "put" | "delete"; of: Shared | null };

const LIMITS = [
  ["usd_micros", "usd", "US dollars"],
  ["tokens", "tokens", "Tokens"],
  ["calls", "calls", "Calls"],
] as const;
const EXAMPLE = "perdure budget set users --per user --period day --usd 5";

/** `user` → `each user`; `tag:shop` → `each value of the tag shop`. */
function holders(per: string): string {
  if (per === "project") return "the project";
  return per.startsWith("tag:") ? `each value of the tag ${per.slice(4)}` : `each ${per}`;
}

function limitsOf(of: Shared): string {
  return KINDS.flatMap(([name, , shown]) => (name === "seconds" || of[name] == null ? [] : [shown(of[name])])).join(", ");
}

/** Limits that many executions share, and what is spent of them. */
export default function Budgets() {
  const [params, change] = useQueryParams();
  const budgets = useGet("/api/v1/budgets", {}, { every: 5_000 });
  const [act, setAct] = useState<Act | null>(null);
  const may = useMay("admin");
  return (
    <Page
      title="Budgets"
      bare
      actions={
        <button type="button" class="btn" disabled={!may} title={may ? undefined : "Needs the role admin."} onClick={() => setAct({ kind: "put", of: null })}>
          <Plus size={14} aria-hidden="true" /> New budget
        </button>
      }
    >
      <Loaded of={budgets}>
        {({ budgets: found }) => {
          const open = found.find((one) => one.name === params.get("budget")) ?? found[0];
          return open === undefined ? (
            <Empty title="No shared budgets yet" code={EXAMPLE} docs="docs/budgets.md#shared-budgets">
              A shared budget limits what a session, a user, a tag's value or the project spends on model calls. The budget of one execution is on its page.
            </Empty>
          ) : (
            <div class="queues">
              <List found={found} open={open} may={may} onAct={setAct} onOpen={(budget) => change({ budget })} />
              <Balances key={open.id} of={open} />
            </div>
          );
        }}
      </Loaded>
      {act?.kind === "put" && <Put of={act.of} onClose={() => setAct(null)} onDone={(budget) => change({ budget })} />}
      {act?.kind === "delete" && act.of !== null && (
        <ActionDialog
          title={`Delete the budget ${act.of.name}`}
          effects={["Its limits end, and executions that wait for it go on.", "What was spent under it is no longer shown here."]}
          word="Delete"
          danger
          role="admin"
          call={{ method: "DELETE", path: `/api/v1/budgets/${encodeURIComponent(act.of.name)}` }}
          command={`perdure budget delete ${quoted(act.of.name)}`}
          python={`await client.budgets.delete(${asPython(act.of.name)})`}
          done={`Deleted the budget ${act.of.name}.`}
          refresh={["/api/v1/budgets"]}
          onClose={() => setAct(null)}
        />
      )}
    </Page>
  );
}

function List({ found, open, may, onAct, onOpen }: { found: Shared[]; open: Shared; may: boolean; onAct: (act: Act) => void; onOpen: (name: string) => void }) {
  const { row } = useRows(found.length, (at) => onOpen(found[at]!.name));
  const title = may ? undefined : "Needs the role admin.";
  return (
    <table>
      <thead>
        <tr>
          <th>Budget</th>
          <th>Limit</th>
          <th>For</th>
          <th>Counts</th>
          <th>Used up</th>
          <th />
        </tr>
      </thead>
      <tbody>
        {found.map((one, at) => (
          <tr key={one.id} {...row(at)} class={one.id === open.id ? "cur" : row(at).class}>
            <td>
              <button type="button" class="name" aria-pressed={one.id === open.id} onClick={() => onOpen(one.name)}>
                <Shown text={one.name} />
              </button>
            </td>
            <td class="num">{limitsOf(one)}</td>
            <td>
              <Shown text={holders(one.per)} />
            </td>
            <td class="dim">{one.period === "day" ? "each day in UTC" : "for good"}</td>
            <td class="dim">{USED_UP[one.on_exceed].split(" ")[0]}</td>
            <td class="r">
              <button type="button" class="btn sm ghost" aria-label={`Change ${one.name}`} title={title} disabled={!may} onClick={() => onAct({ kind: "put", of: one })}>
                <Pencil size={13} aria-hidden="true" />
              </button>
              <button type="button" class="btn sm ghost" aria-label={`Delete ${one.name}`} title={title} disabled={!may} onClick={() => onAct({ kind: "delete", of: one })}>
                <Trash2 size={13} aria-hidden="true" />
              </button>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** What is spent in the present period, by session, user or value. */
function Balances({ of }: { of: Shared }) {
  const [key, setKey] = useState("");
  const [after, setAfter] = useState<string | null>(null);
  const query = key !== "" ? { key } : after !== null ? { after } : {};
  const found = useGet("/api/v1/budgets/{name}/balances", { params: { path: { name: of.name }, query } }, { every: 5_000 });
  const [raised, setRaised] = useState<Balance | null>(null);
  const may = useMay("write");
  const until = found.data?.balances[0]?.until;
  const limits = LIMITS.filter(([name]) => of[name] != null);
  return (
    <section aria-label="Balances">
      <div class="row wrap">
        <h2>
          <Shown text={of.name} />: spent
        </h2>
        <span class="dim3">
          {of.period === null ? "since it was made" : "today"}
          {until != null && (
            <>
              , counts anew <Time at={until} />
            </>
          )}
        </span>
        <span class="grow" />
        {of.per !== "project" && <input class="input find" type="search" placeholder="Find a key" aria-label="Find a key" value={key} onChange={(event) => (setAfter(null), setKey(event.currentTarget.value.trim()))} />}
      </div>
      <Loaded of={found} rows={3}>
        {({ balances, next_key }) =>
          balances.length === 0 ? (
            <p class="dim">{key === "" ? "Nothing is spent yet. A balance appears with its first model call." : "This key has spent nothing."}</p>
          ) : (
            <>
              <table>
                <thead>
                  <tr>
                    <th>Key</th>
                    {limits.map(([name, , word]) => (
                      <th key={name}>{word}</th>
                    ))}
                    <th>State</th>
                    <th />
                  </tr>
                </thead>
                <tbody>
                  {balances.map((one) => {
                    const reached = limits.some(([name]) => one[name].spent + one[name].reserved >= (one[name].limit ?? Infinity));
                    return (
                      <tr key={one.execution_id}>
                        <td>{one.key === "" || one.key == null ? <span class="dim">the project</span> : <Shown text={one.key} mono />}</td>
                        {limits.map(([name, field]) => (
                          <td class="use" key={name}>
                            <Use n={one[name].spent + one[name].reserved} limit={one[name].limit ?? null} shown={field === "usd" ? (n) => money(n / 1e6) : count} phase={reached ? "waiting" : "running"} />
                          </td>
                        ))}
                        <td>{reached && <UsedUp of={one} />}</td>
                        <td class="r">
                          <button type="button" class="btn sm" disabled={!may} title={may ? undefined : "Needs the role write."} aria-label={`Raise ${one.key || of.name}`} onClick={() => setRaised(one)}>
                            <Plus size={13} aria-hidden="true" /> Raise
                          </button>
                        </td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
              {(next_key != null || after !== null) && (
                <p class="row pad">
                  {after !== null && (
                    <button type="button" class="btn sm" onClick={() => setAfter(null)}>
                      First page
                    </button>
                  )}
                  {next_key != null && (
                    <button type="button" class="btn sm" onClick={() => setAfter(next_key)}>
                      Next page
                    </button>
                  )}
                </p>
              )}
            </>
          )
        }
      </Loaded>
      {raised !== null && <RaiseDialog of={raised} title={`Raise ${of.name}${raised.key ? ` for ${raised.key}` : ""}`} spenders={of.period === null ? "all that spend from this balance" : "all that spend from this balance today"} onClose={() => setRaised(null)} />}
    </section>
  );
}

function UsedUp({ of }: { of: Balance }) {
  if (of.on_exceed !== "ask") return <span class="dim">used up: {of.on_exceed === "finish" ? "runs end with what they have" : "runs fail"}</span>;
  return (
    <span class="ph p-waiting">
      <PhaseIcon phase="waiting" /> {of.paused_at == null ? "used up" : "holds runs back"}
      {of.asking_execution_id != null && <Link href={`/executions/${of.asking_execution_id}`} class="accent">The one that asks</Link>}
    </span>
  );
}

function Put({ of, onClose, onDone }: { of: Shared | null; onClose: () => void; onDone: (name: string) => void }) {
  const [fields, setFields] = useState({ name: of?.name ?? "", per: "user", tag: "", period: "day", on_exceed: of?.on_exceed ?? "ask" });
  const [amounts, setAmounts] = useState<Record<string, string>>({
    usd: of?.usd_micros == null ? "" : String(of.usd_micros / 1e6),
    tokens: of?.tokens == null ? "" : String(of.tokens),
    calls: of?.calls == null ? "" : String(of.calls),
  });
  const { body: limits, options, wrong } = amountsOf(amounts, "0 or more");
  const per = of?.per ?? (fields.per === "tag" ? `tag:${fields.tag.trim()}` : fields.per);
  const period = of === null ? (fields.period === "day" ? ("day" as const) : null) : of.period;
  const name = fields.name.trim();
  const set = (field: keyof typeof fields) => (event: { currentTarget: { value: string } }) => setFields({ ...fields, [field]: event.currentTarget.value });
  const given = Object.entries({ per, period, ...limits, on_exceed: fields.on_exceed });
  return (
    <ActionDialog
      title={of === null ? "New budget" : `Change the budget ${of.name}`}
      effects={[
        `Model calls of ${holders(per)} stop at these limits${period === null ? "" : ", each day"}.`,
        of === null ? "An execution that runs already may notice it only when a worker takes it the next time." : "Amounts that were added to single balances stay. Executions that wait for the budget go on.",
      ]}
      word={of === null ? "Create" : "Change"}
      role="admin"
      invalid={name === "" ? "Name the budget." : per === "tag:" ? "Name the tag." : (wrong ?? (Object.keys(limits).length === 0 ? "Give a limit." : null))}
      call={{ method: "PUT", path: `/api/v1/budgets/${encodeURIComponent(name)}`, body: Object.fromEntries(given) }}
      command={`perdure budget set ${quoted(name)} --per ${quoted(per)}${period === null ? "" : ` --period ${period}`}${options} --on-exceed ${fields.on_exceed}`}
      python={`await client.budgets.put(${[asPython(name), ...given.map(([field, value]) => `${field}=${asPython(value)}`)].join(", ")})`}
      refresh={["/api/v1/budgets"]}
      onClose={onClose}
      onDone={() => {
        toast(`${of === null ? "Created" : "Changed"} the budget ${name}.`);
        onDone(name);
      }}
    >
      <div class="two">
        {of === null && (
          <>
            <Labelled label="Name">
              <input class="input" autofocus value={fields.name} onInput={set("name")} />
            </Labelled>
            <Labelled label="For" help="This cannot change later.">
              <select class="input" value={fields.per} onChange={set("per")}>
                <option value="user">each user</option>
                <option value="session">each session</option>
                <option value="tag">each value of a tag</option>
                <option value="project">the project as a whole</option>
              </select>
            </Labelled>
            {fields.per === "tag" && (
              <Labelled label="Tag">
                <input class="input" value={fields.tag} onInput={set("tag")} />
              </Labelled>
            )}
            <Labelled label="Counts" help="This cannot change later.">
              <select class="input" value={fields.period} onChange={set("period")}>
                <option value="day">each day in UTC</option>
                <option value="good">for good</option>
              </select>
            </Labelled>
          </>
        )}
        {LIMITS.map(([, field, word]) => (
          <Labelled key={field} label={word}>
            <input class="input" inputMode="decimal" value={amounts[field] ?? ""} onInput={(event) => setAmounts({ ...amounts, [field]: event.currentTarget.value })} />
          </Labelled>
        ))}
        <OnExceed value={fields.on_exceed} onChange={(on_exceed) => setFields({ ...fields, on_exceed })} />
      </div>
    </ActionDialog>
  );
}
