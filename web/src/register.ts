/** Keeps the page for visits without a network; only a built page has the worker for it. */
export function keepPage(): void {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  // Without it the page works as well, with a network.
  navigator.serviceWorker.register("service-worker.js").catch(() => {});
}
