import preact from "@preact/preset-vite";
import { defineConfig } from "vitest/config";

/** The files that a build makes of the sources below, and one of each page besides. Pages in one file compress a fifth better. */
const FILES = Object.entries({
  shell: /^node_modules.(preact|@tanstack|wouter|regexparam|lucide-preact.dist.esm.(shared|Icon|create|context))|^src.(api|appearance|frame|keys|main|palette|routes|session|url)/,
  parts: /^node_modules.lucide|^src.(parts.(?!json|markdown|question|schemaform|spans|value)|model.(bulk|filters|time|words)|pages.bulk.held)/,
  journal: /^src.(pages.execution.data|model.timeline)/,
  overview: /^src.(pages.overview|model.(deploys|overview))/,
  agents: /^src.pages.(agent|agents|sessions)\//,
  resources: /^src.pages.(bulk|deployments|events|queues|schedules|settings|traces|welcome|workflows)\//,
});

export default defineConfig({
  plugins: [preact({ devToolsEnabled: false })],
  build: {
    outDir: "../src/perdure/dashboard",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content security policy loads fonts from this server only
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: FILES.map(([name, of], at) => ({ name, priority: FILES.length - at, test: (id: string) => of.test(id.replace(/^.*?(?=(src|node_modules)\/)/, "")) })),
        },
      },
    },
    target: ["chrome123", "firefox125", "safari17.5"],
  },
  server: {
    // `npx vite` in this folder: the pages of the moment, with the data of `perdure dev`.
    proxy: Object.fromEntries(["/api", "/sign-in", "/sign-out"].map((path) => [path, "http://127.0.0.1:8080"])),
  },
  test: { include: ["tests/**/*.test.ts"] },
});
