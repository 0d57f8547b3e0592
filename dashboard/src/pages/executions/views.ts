import type { View } from "../../model/filters";

const KEY = "perdure.views";

/** Views that this browser keeps. */
export function savedViews(): View[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.name === "string" && typeof one?.filters === "object" && one.filters !== null) : [];
  } catch {
    return [];
  }
}

function keep(views: View[]): void {
  localStorage.setItem(KEY, JSON.stringify(views));
  dispatchEvent(new Event("perdure:views"));
}

export function saveView(view: View): void {
  keep([...savedViews().filter((one) => one.name !== view.name), view]);
}

export function dropView(name: string): void {
  keep(savedViews().filter((one) => one.name !== name));
}
