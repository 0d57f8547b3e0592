import { expect, test } from "vitest";
import { inWords } from "../../src/model/cron";

test.each([
  ["* * * * *", "Every minute"],
  ["*/15 * * * *", "Every 15 minutes"],
  ["*/7 * * * *", null],
  ["5 * * * *", "Every hour at :05"],
  ["0 */6 * * *", "Every 6 hours, Berlin"],
  ["55 23 * * *", "Every day at 23:55, Berlin"],
  ["0 13,21 * * *", "Every day at 13:00 and 21:00, Berlin"],
  ["0 9 * * MON-FRI", "Weekdays at 9:00, Berlin"],
  ["0 9 * * 6,7", "Weekends at 9:00, Berlin"],
  ["0 9 * * mon,3", "Mondays and Wednesdays at 9:00, Berlin"],
  ["0 9 1 * *", "Day 1 of each month at 9:00, Berlin"],
  ["0 9 1 * MON", null],
  ["0 9 * 2 *", null],
  ["0 9-17 * * *", null],
  ["0 9 * * FRI-MON", null],
  ["nonsense", null],
])("%s", (cron, words) => {
  expect(inWords(cron, "Europe/Berlin")).toBe(words);
});
