import type { ComponentType } from "preact";
import { Link } from "wouter-preact";
import { Page } from "../../parts/page";
import { useIdentity } from "../../session";
import { Account } from "./account";
import { Appearance } from "./appearance";
import { Keys } from "./keys";
import { Links } from "./links";
import { Members } from "./members";
import { Project } from "./project";
import { Webhooks } from "./webhooks";
import "./settings.css";

const parts: { path: string; word: string; part: ComponentType; users?: boolean }[] = [
  { path: "project", word: "Project", part: Project },
  { path: "members", word: "Members", part: Members },
  { path: "keys", word: "API keys", part: Keys },
  { path: "links", word: "Links", part: Links },
  { path: "webhooks", word: "Webhooks", part: Webhooks },
  { path: "account", word: "Account", part: Account, users: true },
  { path: "appearance", word: "Appearance", part: Appearance },
];

export default function Settings({ params: { part } }: { params: Record<string, string> }) {
  const identity = useIdentity();
  const shown = parts.filter((one) => one.users !== true || identity.user_id !== null);
  const open = shown.find((one) => one.path === part) ?? shown[0]!;
  const Part = open.part;
  return (
    <Page title="Settings" bare>
      <nav class="tabs" aria-label="Settings">
        {shown.map((one) => (
          <Link key={one.path} href={`/settings/${one.path}`} class={one === open ? "on" : ""} aria-current={one === open ? "page" : undefined}>
            {one.word}
          </Link>
        ))}
      </nav>
      <div class="settings">
        <Part />
      </div>
    </Page>
  );
}
