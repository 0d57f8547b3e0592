import preact from "@preact/preset-vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [preact({ devToolsEnabled: false })],
  build: {
    outDir: "../src/perdure/dashboard",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content security policy loads fonts from this server only
    modulePreload: { polyfill: false },
    target: ["chrome123", "firefox125", "safari17.5"],
  },
  server: {
    // `npx vite` in this folder: the pages of the moment, with the data of `perdure dev`.
    proxy: Object.fromEntries(["/api", "/sign-in", "/sign-out"].map((path) => [path, "http://127.0.0.1:8080"])),
  },
  test: { include: ["tests/**/*.test.ts"] },
});
