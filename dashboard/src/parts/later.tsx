import type { Later } from "../model/bulk";

/** A retry asks what becomes of steps that the code called after the failure; the server names them. */
export function LaterField({ value, onChange }: { value: Later; onChange: (value: Later) => void }) {
  return (
    <label class="field">
      <span>Steps that ran after the failure, such as refunds</span>
      <select class="input" value={value} onChange={(event) => onChange(event.currentTarget.value as Later)}>
        <option value="">Ask me, if there are any</option>
        <option value="keep">Keep their outcomes</option>
        <option value="redo">Drop their outcomes: they run again if the code calls them</option>
      </select>
    </label>
  );
}
