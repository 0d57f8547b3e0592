import { useState } from "preact/hooks";
import { density, setDensity, setTheme, theme } from "../../appearance";
import { Segments } from "../../parts/controls";

/** Kept in this browser. */
export function Appearance() {
  const [chosen, setChosen] = useState(theme());
  const [rows, setRows] = useState(density());
  return (
    <>
      <div class="row setting">
        <span class="grow">Theme</span>
        <Segments
          label="Theme"
          of={
            [
              ["system", "As the system"],
              ["light", "Light"],
              ["dark", "Dark"],
            ] as const
          }
          value={chosen}
          onChange={(next) => {
            setTheme(next);
            setChosen(next);
          }}
        />
      </div>
      <div class="row setting">
        <span class="grow">Rows of tables</span>
        <Segments
          label="Rows of tables"
          of={
            [
              ["normal", "Normal"],
              ["compact", "Compact"],
            ] as const
          }
          value={rows}
          onChange={(next) => {
            setDensity(next);
            setRows(next);
          }}
        />
      </div>
      <p class="dim3">Kept in this browser. Times are in its time zone, {Intl.DateTimeFormat().resolvedOptions().timeZone}.</p>
    </>
  );
}
