/**
 * Resolves in a later turn of the event loop, after input that waits: where a step blocks its thread, sockets, timers and
 * cancellations get their chance between two steps.
 */
export function nextTurn(): Promise<void> {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  // Browsers delay nested timers by 4 ms each; a message does not wait.
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
