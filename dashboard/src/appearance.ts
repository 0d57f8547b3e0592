/** How the pages look in this browser. */

export type Theme = "system" | "light" | "dark";
export type Density = "normal" | "compact";

const root = document.documentElement;

export function theme(): Theme {
  const kept = localStorage.getItem("perdure.theme");
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function density(): Density {
  return localStorage.getItem("perdure.density") === "compact" ? "compact" : "normal";
}

export function setTheme(chosen: Theme): void {
  if (chosen === "system") {
    localStorage.removeItem("perdure.theme");
    delete root.dataset.theme;
  } else {
    localStorage.setItem("perdure.theme", chosen);
    root.dataset.theme = chosen;
  }
}

export function setDensity(chosen: Density): void {
  localStorage.setItem("perdure.density", chosen);
  root.dataset.density = chosen;
}

/** To the other one of light and dark, whichever the system prefers. */
export function toggleTheme(): void {
  const dark = theme() === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : theme() === "dark";
  setTheme(dark ? "light" : "dark");
}

export function showAppearance(): void {
  setTheme(theme());
  root.dataset.density = density();
}
