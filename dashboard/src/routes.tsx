import type { ComponentType } from "preact";
import { CalendarClock, ChartGantt, Bot, House, Inbox, MessagesSquare, Layers, Radio, List, Rocket, Wallet, Workflow, type LucideIcon } from "lucide-preact";
import { lazy } from "./parts/lazy";

export interface Route {
  /** Below the base of the project. `:id` is a parameter of the page. */
  path: string;
  page: ComponentType<{ params: Record<string, string> }>;
}

export interface NavItem {
  word: string;
  path: string;
  icon: LucideIcon;
  /** After `g`: the key that goes there. */
  key: string;
  group: "Activity" | "Resources" | "Operations";
}

/** One line a page. Each page is a chunk of its own, loaded when it is first shown. */
export const routes: Route[] = [
  { path: "/", page: lazy(() => import("./pages/overview")) },
  { path: "/executions", page: lazy(() => import("./pages/executions")) },
  { path: "/executions/:id", page: lazy(() => import("./pages/execution")) },
  { path: "/executions/:id/compare/:other", page: lazy(() => import("./pages/execution/compare")) },
  { path: "/bulk", page: lazy(() => import("./pages/bulk/list")) },
  { path: "/bulk/:id", page: lazy(() => import("./pages/bulk")) },
  { path: "/inbox", page: lazy(() => import("./pages/inbox")) },
  { path: "/sessions", page: lazy(() => import("./pages/sessions")) },
  { path: "/sessions/:id", page: lazy(() => import("./pages/sessions/one")) },
  { path: "/agents", page: lazy(() => import("./pages/agents")) },
  { path: "/agents/:id", page: lazy(() => import("./pages/agents/one")) },
  { path: "/agents/:id/chat", page: lazy(() => import("./pages/agents/chat")) },
  { path: "/budgets", page: lazy(() => import("./pages/budgets")) },
  { path: "/workflows", page: lazy(() => import("./pages/workflows")) },
  { path: "/workflows/:id", page: lazy(() => import("./pages/workflows/one")) },
  { path: "/queues", page: lazy(() => import("./pages/queues")) },
  { path: "/traces", page: lazy(() => import("./pages/traces")) },
  { path: "/traces/:id", page: lazy(() => import("./pages/traces/one")) },
  { path: "/welcome", page: lazy(() => import("./pages/welcome")) },
  { path: "/settings", page: lazy(() => import("./pages/settings")) },
  { path: "/settings/:part", page: lazy(() => import("./pages/settings")) },
  { path: "/schedules", page: lazy(() => import("./pages/schedules")) },
  { path: "/events", page: lazy(() => import("./pages/events")) },
  { path: "/events/triggers", page: lazy(() => import("./pages/events")) },
  { path: "/events/topics/:topic", page: lazy(() => import("./pages/events/topic")) },
  { path: "/deployments", page: lazy(() => import("./pages/deployments")) },
  { path: "/workers", page: lazy(() => import("./pages/deployments")) },
];

export const navigation: NavItem[] = [
  { word: "Overview", path: "/", icon: House, key: "o", group: "Activity" },
  { word: "Executions", path: "/executions", icon: List, key: "e", group: "Activity" },
  { word: "Inbox", path: "/inbox", icon: Inbox, key: "i", group: "Activity" },
  { word: "Sessions", path: "/sessions", icon: MessagesSquare, key: "s", group: "Activity" },
  { word: "Workflows", path: "/workflows", icon: Workflow, key: "w", group: "Resources" },
  { word: "Agents", path: "/agents", icon: Bot, key: "a", group: "Resources" },
  { word: "Budgets", path: "/budgets", icon: Wallet, key: "b", group: "Resources" },
  { word: "Queues", path: "/queues", icon: Layers, key: "q", group: "Resources" },
  { word: "Schedules", path: "/schedules", icon: CalendarClock, key: "c", group: "Resources" },
  { word: "Events", path: "/events", icon: Radio, key: "t", group: "Resources" },
  { word: "Deployments", path: "/deployments", icon: Rocket, key: "d", group: "Operations" },
  { word: "Traces", path: "/traces", icon: ChartGantt, key: "r", group: "Operations" },
];
