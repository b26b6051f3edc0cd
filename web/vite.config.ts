import { cpSync, createReadStream, statSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

const web = import.meta.dirname;
const models = join(web, "..", "models");
const shipped = "shakespeare-mla";

/** What makes a page cross-origin isolated, so that the CPU device has threads. */
const isolation = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** The shipped model under models/: from the repository in development, copied in a build. */
function shippedModel(): Plugin {
  return {
    name: "shipped-model",
    configureServer({ middlewares }) {
      middlewares.use(`/models/${shipped}`, (request, response, next) => {
        const file = join(
          models,
          shipped,
          decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname),
        );
        const stats = statSync(file, { throwIfNoEntry: false });
        if (!file.startsWith(join(models, shipped)) || !stats?.isFile()) {
          response.writeHead(404).end();
          return;
        }
        if (request.method === "HEAD") return next();
        response.setHeader("Content-Length", stats.size);
        response.setHeader("Last-Modified", stats.mtime.toUTCString());
        createReadStream(file).pipe(response);
      });
    },
    writeBundle({ dir }) {
      cpSync(join(models, shipped), join(dir!, "models", shipped), { recursive: true });
    },
  };
}

/** Tells the service worker the files that a visit without a network needs, and a version that changes with them. */
function offlineShell(): Plugin {
  return {
    name: "offline-shell",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const worker = bundle["service-worker.js"];
      if (worker?.type !== "chunk") throw new Error("the service worker is not one chunk");
      const files = Object.keys(bundle).filter((file) => file !== worker.fileName);
      worker.code = worker.code.replace(/["'`]SHELL_FILES["'`]/, JSON.stringify(files.sort()));
    },
  };
}

export default defineConfig({
  root: web,
  base: "./",
  plugins: [shippedModel(), offlineShell()],
  server: { host: "127.0.0.1", headers: isolation },
  preview: { host: "127.0.0.1", headers: isolation },
  worker: { format: "es" },
  // Found late otherwise, with a reload in between.
  optimizeDeps: { include: ["@huggingface/jinja", "@huggingface/tokenizers", "zod", "zod/mini"] },
  build: {
    ...{ target: "es2023", outDir: "dist", emptyOutDir: true, modulePreload: { polyfill: false } },
    rollupOptions: {
      input: {
        index: join(web, "index.html"),
        planner: join(web, "planner.html"),
        "service-worker": join(web, "src", "service-worker.ts"),
      },
      output: {
        entryFileNames: ({ name }) =>
          name === "service-worker" ? "service-worker.js" : "assets/[name]-[hash].js",
      },
    },
  },
});
