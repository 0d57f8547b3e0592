import type { Schemas } from "../api/client";
import { count } from "./words";

/** How many executions ended. */
export function total(of: Schemas["DeploymentEnds"]): number {
  return of.completed + of.failed + of.cancelled;
}

/** A group of failures, compared with the deployment before. */
export function errorCount(group: Schemas["ErrorGroup"]): string {
  const alike = group.count === 1 ? "1 failure" : `${count(group.count)} alike`;
  if (group.is_new == null) return alike;
  return group.is_new ? `${alike}, new here` : `${alike}, as before this deployment`;
}
