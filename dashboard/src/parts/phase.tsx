/** A phase: its shape tells it without colour, its word without either. */

const shapes = {
  queued: <circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="2.4 2.3" />,
  running: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6" opacity=".35" />
      <path d="M8 2a6 6 0 0 1 6 6" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" />
      <circle cx="8" cy="8" r="2.2" fill="currentColor" />
    </>
  ),
  waiting: (
    <path
      d="M4 2.5h8M4 13.5h8M5 2.5c0 3.2 6 4 6 5.5s-6 2.3-6 5.5M11 2.5C11 5.7 5 6.5 5 8s6 2.3 6 5.5"
      fill="none"
      stroke="currentColor"
      stroke-width="1.5"
      stroke-linecap="round"
      stroke-linejoin="round"
    />
  ),
  held: (
    <>
      <rect x="2" y="2" width="12" height="12" rx="3" fill="none" stroke="currentColor" stroke-width="1.6" />
      <path d="M6.4 5.6v4.8M9.6 5.6v4.8" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" />
    </>
  ),
  cancelling: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="7 2.4" />
      <rect x="5.6" y="5.6" width="4.8" height="4.8" rx=".8" fill="currentColor" />
    </>
  ),
  blocked: (
    <>
      <path d="M8 1.4 14.6 8 8 14.6 1.4 8Z" fill="currentColor" />
      <path d="M5.4 8h5.2" stroke="var(--panel)" stroke-width="1.8" stroke-linecap="round" />
    </>
  ),
  completed: (
    <>
      <circle cx="8" cy="8" r="6.6" fill="currentColor" />
      <path d="m5.2 8.2 2 2 3.6-4" fill="none" stroke="var(--panel)" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </>
  ),
  failed: (
    <>
      <path d="M5.2 1.4h5.6l3.8 3.8v5.6l-3.8 3.8H5.2l-3.8-3.8V5.2Z" fill="currentColor" />
      <path d="m5.8 5.8 4.4 4.4m0-4.4-4.4 4.4" stroke="var(--panel)" stroke-width="1.7" stroke-linecap="round" />
    </>
  ),
  cancelled: (
    <>
      <circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="1.6" />
      <path d="m4 12 8-8" stroke="currentColor" stroke-width="1.6" />
    </>
  ),
};

export type PhaseName = keyof typeof shapes;
export const PHASES = Object.keys(shapes) as PhaseName[];

export function phaseWord(phase: string): string {
  return phase.charAt(0).toUpperCase() + phase.slice(1);
}

export function PhaseIcon({ phase }: { phase: string }) {
  return (
    <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
      {shapes[phase as PhaseName] ?? shapes.queued}
    </svg>
  );
}

export function Phase({ phase, big }: { phase: string; big?: boolean }) {
  return (
    <span class={`ph p-${phase}${big === true ? " big" : ""}`}>
      <PhaseIcon phase={phase} />
      {phaseWord(phase)}
    </span>
  );
}
