// Keeps the pages themselves, so that a visit without a network works, and makes them cross-origin isolated where their server
// does not. Models are kept by the page (keptUrlFolder), not here.
const worker = globalThis as unknown as EventTarget & {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
};
interface ExtendableEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

/** The build puts the list here. */
const files = "SHELL_FILES" as unknown as readonly string[];
const cacheName = `flashmla-pages ${files.join(" ")}`;
/** Milliseconds that a server has before the kept page is shown. */
const patience = 3000;

const pageAddress = (file: string) => new URL(file, worker.registration.scope).href;

async function keep(): Promise<void> {
  const cache = await caches.open(cacheName);
  await cache.addAll(files.map((file) => new Request(pageAddress(file), { cache: "no-cache" })));
  await worker.skipWaiting();
}

async function forgetOthers(): Promise<void> {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("flashmla-pages") && name !== cacheName);
  await Promise.all(old.map((name) => caches.delete(name)));
  await worker.clients.claim();
}

async function kept(request: Request): Promise<Response | undefined> {
  const { origin, pathname } = new URL(request.url);
  const address = origin + pathname.replace(/\/$/, "/index.html");
  return (await caches.open(cacheName)).match(address);
}

function isolated(response: Response): Response {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}

/** Pages from the server where it answers, so that a new build shows at once. */
async function page(request: Request): Promise<Response> {
  const late = new Promise<undefined>((resolve) => setTimeout(resolve, patience, undefined));
  const fresh = await Promise.race([fetch(request).catch(() => undefined), late]);
  if (fresh?.ok) return isolated(fresh);
  const copy = await kept(request);
  return isolated(copy ?? fresh ?? (await fetch(request)));
}

/** Everything else of a build has its content's hash in its name. */
async function asset(request: Request): Promise<Response> {
  return isolated((await kept(request)) ?? (await fetch(request)));
}

worker.addEventListener("install", (event) => (event as ExtendableEvent).waitUntil(keep()));
worker.addEventListener("activate", (event) => (event as ExtendableEvent).waitUntil(forgetOthers()));
worker.addEventListener("fetch", (event) => {
  const { request, respondWith } = event as FetchEvent;
  const isOurs = request.url.startsWith(worker.registration.scope) && request.method === "GET";
  if (!isOurs || request.url.startsWith(pageAddress("models/"))) return;
  respondWith.call(event, request.mode === "navigate" ? page(request) : asset(request));
});

export {};
