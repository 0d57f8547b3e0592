import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Schemas } from "./api/client";
import { useConnection } from "./api/live";

export type Identity = Schemas["Identity"];

export const Session = createContext<Identity | null>(null);

export function useIdentity(): Identity {
  const identity = useContext(Session);
  if (identity === null) throw new Error("No session around this part.");
  return identity;
}

const ranks = { read: 0, work: 1, write: 2, admin: 3 };
export type Role = keyof typeof ranks;

/** Whether the signed-in key or user may do what needs this role. */
export function useMay(role: Role): boolean {
  return ranks[useIdentity().role.toLowerCase() as Role] >= ranks[role];
}

/** Why the page cannot send what needs this role; undefined: it can. */
export function useBlocked(role: Role): string | undefined {
  const may = useMay(role);
  const { away } = useConnection();
  if (!may) return `Needs the role ${role}.`;
  return away ? "The server does not answer. What you entered stays here." : undefined;
}
