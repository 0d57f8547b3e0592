/** A cron expression in words, where words are shorter than its fields. */

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SHORT = DAYS.map((day) => day.slice(0, 3).toUpperCase());

/** `Weekdays at 9:00, Berlin`; null: only the expression says it well. */
export function inWords(cron: string, timezone: string): string | null {
  const fields = cron.trim().split(/\s+/);
  if (fields.length !== 5) return null;
  const [minute, hour, day, month, weekday] = fields as [string, string, string, string, string];
  if (month !== "*") return null;
  const zone = timezone === "UTC" ? "UTC" : timezone.replace(/^.*\//, "").replaceAll("_", " ");
  if (hour === "*" && day === "*" && weekday === "*") {
    if (minute === "*") return "Every minute";
    const every = /^\*\/(\d+)$/.exec(minute)?.[1];
    if (every !== undefined) return 60 % Number(every) === 0 ? `Every ${every} minutes` : null;
    return /^\d+$/.test(minute) ? `Every hour at :${minute.padStart(2, "0")}` : null;
  }
  const every = /^\*\/(\d+)$/.exec(hour)?.[1];
  if (every !== undefined && minute === "0" && day === "*" && weekday === "*") return 24 % Number(every) === 0 ? `Every ${every} hours, ${zone}` : null;
  if (!/^\d+$/.test(minute) || !/^\d+(,\d+)*$/.test(hour)) return null;
  const times = hour.split(",").map((one) => `${one}:${minute.padStart(2, "0")}`);
  const at = `at ${listed(times)}, ${zone}`;
  if (day === "*" && weekday === "*") return `Every day ${at}`;
  if (day === "*") {
    const days = daysOf(weekday);
    if (days === null) return null;
    const set = days.join();
    if (set === "1,2,3,4,5") return `Weekdays ${at}`;
    if (set === "0,6") return `Weekends ${at}`;
    return `${listed(days.map((one) => `${DAYS[one]}s`))} ${at}`;
  }
  return weekday === "*" && /^\d+$/.test(day) ? `Day ${day} of each month ${at}` : null;
}

function listed(words: string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

function daysOf(field: string): number[] | null {
  const found = new Set<number>();
  const one = (text: string) => (SHORT.includes(text.toUpperCase()) ? SHORT.indexOf(text.toUpperCase()) : /^[0-7]$/.test(text) ? Number(text) : null);
  for (const part of field.split(",")) {
    const [from, to, ...more] = part.split("-").map(one);
    if (from == null || to === null || more.length > 0) return null;
    if (to !== undefined && to < from) return null;
    for (let day = from; day <= (to ?? from); day++) found.add(day % 7);
  }
  return [...found].sort((a, b) => a - b);
}
