import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "tests/**/*.test.ts"],
    globalSetup: ["tests/fixtures/build-wgsl.ts"],
    setupFiles: ["tests/fixtures/calm-polling.ts"],
    pool: "forks",
    // The first compilation of a large WGSL kernel takes a software adapter over a minute on a busy machine.
    testTimeout: 360_000,
    hookTimeout: 360_000,
  },
});
