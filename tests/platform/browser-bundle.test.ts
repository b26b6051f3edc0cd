import { readFileSync } from "node:fs";
import { describe, expect, expectTypeOf, it } from "vitest";
import { browserEntries, bundleForBrowser, limitBytes } from "../../scripts/browser-bundle.mjs";
import type * as platformBrowser from "../../src/device/cpu/platform.browser.ts";
import type * as platform from "../../src/device/cpu/platform.ts";
import type * as filesBrowser from "../../src/files/file-source.browser.ts";
import type * as files from "../../src/files/file-source.ts";
import type * as hubBrowser from "../../src/formats/hub.browser.ts";
import type * as hub from "../../src/formats/hub.ts";
import type * as writerBrowser from "../../src/formats/safetensors-writer.browser.ts";
import type * as writer from "../../src/formats/safetensors-writer.ts";

const { exports } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

describe("the package in a browser", () => {
  it.each(["esbuild", "vite"] as const)(
    "bundles with %s, kernels included, under 400 KiB",
    async (bundler) => {
      const { bytes, chunks } = await bundleForBrowser("flashmla", bundler);
      expect(bytes).toBeLessThanOrEqual(limitBytes);
      // Kernels have to be in it, and only what a page needs at once loads at once.
      expect(bytes).toBeGreaterThan(150_000);
      expect(chunks.length).toBeGreaterThan(3);
    },
  );

  it.each(browserEntries)("bundles %s without Node", async (entry) => {
    await expect(bundleForBrowser(entry, "esbuild")).resolves.toBeDefined();
  });

  it("names every entry that is not for Node alone", () => {
    const names = Object.keys(exports).map((path) => path.replace(/^\./, "flashmla"));
    const forNode = [
      "flashmla/server",
      "flashmla/ai-sdk",
      "flashmla/data/gpus.json",
      "flashmla/package.json",
    ];
    expect(names.filter((name) => !forNode.includes(name)).sort()).toEqual([...browserEntries].sort());
  });

  it("refuses what needs Node", async () => {
    await expect(bundleForBrowser("flashmla/server", "esbuild")).rejects.toThrow();
  });

  it("has twins of the same types", () => {
    expectTypeOf<typeof platformBrowser>().toEqualTypeOf<typeof platform>();
    expectTypeOf<typeof filesBrowser>().toEqualTypeOf<typeof files>();
    expectTypeOf<typeof hubBrowser>().toEqualTypeOf<typeof hub>();
    expectTypeOf<typeof writerBrowser>().toEqualTypeOf<typeof writer>();
  });
});
