import { useState } from "preact/hooks";
import type { Schemas } from "../api/client";
import { duration } from "../model/time";
import { counted, money } from "../model/words";
import { ActionDialog } from "./action";
import { Labelled } from "./controls";

type Budget = Schemas["BudgetResponse"];

export const USED_UP = { ask: "asks when it is used up", finish: "finishes when it is used up", fail: "fails when it is used up" };
export const KINDS = [
  ["usd_micros", "usd", (n: number) => money(n / 1e6)],
  ["tokens", "tokens", (n: number) => counted(n, "token")],
  ["calls", "calls", (n: number) => counted(n, "call")],
  ["seconds", "seconds", (n: number) => duration(n * 1_000)],
] as const;

/** The amounts that fields of a form give, and the options of `perdure budget` that say the same. */
export function amountsOf(fields: Record<string, string>, least: "more than 0" | "0 or more" = "more than 0"): { body: Record<string, number>; options: string; wrong: string | null } {
  const given = Object.entries(fields).filter(([, text]) => text.trim() !== "");
  const body = Object.fromEntries(given.map(([name, text]) => [name, Number(text)]));
  const isWrong = (name: string, n: number) => !(n > 0 || (n === 0 && least === "0 or more")) || (name !== "usd" && !Number.isInteger(n));
  const wrong = Object.entries(body).some(([name, n]) => isWrong(name, n)) ? `An amount is ${least}; only dollars have decimals.` : null;
  return { body, options: Object.entries(body).map(([name, n]) => ` --${name} ${n}`).join(""), wrong };
}

export function OnExceed({ value, onChange }: { value: Budget["on_exceed"]; onChange: (value: Budget["on_exceed"]) => void }) {
  return (
    <Labelled label="When it is used up">
      <select class="input" value={value} onChange={(event) => onChange(event.currentTarget.value as Budget["on_exceed"])}>
        <option value="ask">ask a person for more</option>
        <option value="finish">end runs with what they have</option>
        <option value="fail">fail runs</option>
      </select>
    </Labelled>
  );
}

/** Add to the limits of an execution's budget, or of a balance. */
export function RaiseDialog({ of, title, spenders, onClose }: { of: Budget; title: string; spenders: string; onClose: () => void }) {
  const [fields, setFields] = useState<Record<string, string>>({});
  const [decided, setDecided] = useState(of.on_exceed);
  const { body, options, wrong } = amountsOf(fields);
  const changed = decided === of.on_exceed ? {} : { on_exceed: decided };
  const arguments_ = Object.entries({ ...body, ...changed }).map(([name, value]) => `, ${name}=${JSON.stringify(value)}`);
  return (
    <ActionDialog
      title={title}
      effects={[`The limits grow by these amounts, for ${spenders}.`, "Executions that wait for the budget go on."]}
      word="Raise"
      call={{ method: "POST", path: `/api/v1/executions/${of.execution_id}/budget/raise`, body: { ...body, ...changed } }}
      command={`perdure budget raise ${of.execution_id}${options}${decided === of.on_exceed ? "" : ` --on-exceed ${decided}`}`}
      python={`await client.raise_budget("${of.execution_id}"${arguments_.join("")})`}
      invalid={wrong ?? (Object.keys(body).length === 0 && decided === of.on_exceed ? "Give an amount." : null)}
      done="Raised the budget."
      onClose={onClose}
    >
      {KINDS.filter(([name]) => of[name].limit != null).map(([name, field, shown]) => (
        <Labelled key={name} label={`Add ${field === "usd" ? "US dollars" : field}`} help={`Limit now: ${shown(of[name].limit!)}`}>
          <input class="input" inputMode="decimal" value={fields[field] ?? ""} onInput={(event) => setFields({ ...fields, [field]: event.currentTarget.value })} />
        </Labelled>
      ))}
      <OnExceed value={decided} onChange={setDecided} />
    </ActionDialog>
  );
}
