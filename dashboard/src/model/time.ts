/** Times and durations in words: at most two units, and nothing that a reader must convert. */

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `890 ms`, `4.9 s`, `3 h 1 m`. */
export function duration(ms: number): string {
  if (ms < 0) ms = 0;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / SECOND).toFixed(1).replace(/\.0$/, "")} s`;
  for (const [unit, name, below, belowName] of [
    [DAY, "d", HOUR, "h"],
    [HOUR, "h", MINUTE, "m"],
    [MINUTE, "m", SECOND, "s"],
  ] as const) {
    const whole = Math.floor((ms + below / 2) / below) * below;
    if (whole >= unit) {
      const rest = Math.floor((whole % unit) / below);
      return rest === 0 ? `${Math.floor(whole / unit)} ${name}` : `${Math.floor(whole / unit)} ${name} ${rest} ${belowName}`;
    }
  }
  return `${Math.round(ms / SECOND)} s`;
}

/** `7 min ago`, today's `11:58:41`, `20 Nov 09:14`. */
export function when(iso: string, now: number): string {
  const at = new Date(iso);
  const ago = now - at.getTime();
  if (ago < 0) return `in ${duration(-ago)}`;
  if (ago < MINUTE) return `${Math.max(0, Math.floor(ago / SECOND))} s ago`;
  if (ago < HOUR) return `${Math.floor(ago / MINUTE)} min ago`;
  if (at.toDateString() === new Date(now).toDateString()) return clock(iso);
  const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const year = at.getFullYear() === new Date(now).getFullYear() ? "" : ` ${at.getFullYear()}`;
  return `${day}${year} ${clock(iso).slice(0, 5)}`;
}

/** `11:58:41`, or with milliseconds `11:58:41.204`. */
export function clock(iso: string, milliseconds = false): string {
  const at = new Date(iso);
  const text = [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
  return milliseconds ? `${text}.${String(at.getMilliseconds()).padStart(3, "0")}` : text;
}

/** With the zone, for the title of a short time. */
export function exact(iso: string): string {
  return new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "long" });
}

/** The whole seconds until a time: `24 s`. */
export function secondsLeft(until: number, now: number): string {
  return `${Math.max(0, Math.ceil((until - now) / SECOND))} s`;
}

export const RANGES = ["1h", "6h", "24h", "7d", "30d"] as const;
export type Range = (typeof RANGES)[number];
export const RANGE_WORDS: Record<Range, string> = {
  "1h": "the last hour",
  "6h": "the last 6 hours",
  "24h": "the last 24 hours",
  "7d": "the last 7 days",
  "30d": "the last 30 days",
};
