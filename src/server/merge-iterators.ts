interface Arrival<Item> {
  readonly source: number;
  readonly result: IteratorResult<Item, unknown>;
}

/**
 * Yields what several iterations yield, in the order in which it comes, each mapped with its source's number. Rejects as
 * the first of them does; leaving the loop ends all of them.
 */
export async function* merged<Item, Mapped>(
  sources: readonly AsyncIterator<Item, unknown>[],
  map: (item: Item, source: number) => Mapped,
): AsyncGenerator<Mapped, void> {
  const open = new Set(sources.keys());
  const arrivals = new Map<number, Promise<Arrival<Item>>>();
  const ask = (source: number) => {
    const next = sources[source]!.next().then((result) => ({ source, result }));
    // Another source's error may come first; this one's must not be a rejection that nobody hears.
    next.catch(() => {});
    arrivals.set(source, next);
  };
  sources.forEach((_, source) => {
    ask(source);
  });
  try {
    while (arrivals.size > 0) {
      const { source, result } = await Promise.race(arrivals.values());
      arrivals.delete(source);
      if (result.done) {
        open.delete(source);
        continue;
      }
      yield map(result.value, source);
      ask(source);
    }
  } finally {
    await Promise.all([...open].map((source) => sources[source]!.return?.()));
  }
}
