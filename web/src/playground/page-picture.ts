/** What the picture shows. */
export interface CacheState {
  /** Tokens of the sequence. */
  readonly tokens: number;
  /** Pages that sequences hold. */
  readonly usedPages: number;
  /** Free pages that still hold a prompt. */
  readonly reusablePages: number;
}

const dot = 4;
const pitch = 5;
const margin = 4;
const gap = 6;

/** The cache's pages as squares of dots, a dot a token: in use, kept for a prompt that may come again, free. */
export class PagePicture {
  readonly #canvas: HTMLCanvasElement;
  #pageCount = 0;
  #pageSize = 64;
  #state: CacheState = { tokens: 0, usedPages: 0, reusablePages: 0 };

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#paint()).observe(canvas.parentElement!);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  /** Shows an empty cache of `pageCount` pages. */
  reset(pageCount: number, pageSize: number): void {
    this.#pageCount = pageCount;
    this.#pageSize = pageSize;
    this.draw({ tokens: 0, usedPages: 0, reusablePages: 0 });
  }

  draw(state: CacheState): void {
    this.#state = state;
    this.#paint();
    const { tokens, usedPages, reusablePages } = state;
    const again = reusablePages > 0 ? `, ${reusablePages} kept in case their prompt comes again` : "";
    this.#canvas.ariaLabel = `Pages of the cache: ${tokens} tokens; ${usedPages} of ${this.#pageCount} pages in use${again}`;
  }

  #paint(): void {
    const side = Math.ceil(Math.sqrt(this.#pageSize));
    const cell = side * pitch + 2 * margin;
    const width = this.#canvas.parentElement!.clientWidth;
    const columns = Math.max(1, Math.floor((width + gap) / (cell + gap)));
    const rows = Math.ceil(this.#pageCount / columns);
    const context = this.#resize(width, Math.max(1, rows * (cell + gap) - gap));
    const style = getComputedStyle(this.#canvas);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const [page, live, again, free] = ["--page", "--live", "--again", "--free"].map(color);
    for (let index = 0; index < this.#pageCount; index++) {
      const x = (index % columns) * (cell + gap);
      const y = Math.floor(index / columns) * (cell + gap);
      context.fillStyle = page!;
      context.beginPath();
      context.roundRect(x, y, cell, cell, 4);
      context.fill();
      const filled = this.#filled(index);
      for (let token = 0; token < this.#pageSize; token++) {
        context.fillStyle = token >= filled.tokens ? free! : filled.isLive ? live! : again!;
        const left = x + margin + (token % side) * pitch;
        context.fillRect(left, y + margin + Math.floor(token / side) * pitch, dot, dot);
      }
    }
  }

  /** Dots of one square. The sequence comes first, then what is kept; where on the device they lie is the cache's matter. */
  #filled(index: number): { tokens: number; isLive: boolean } {
    const { tokens, usedPages, reusablePages } = this.#state;
    if (index < usedPages) {
      return { tokens: Math.min(this.#pageSize, Math.max(0, tokens - index * this.#pageSize)), isLive: true };
    }
    return { tokens: index < usedPages + reusablePages ? this.#pageSize : 0, isLive: false };
  }

  #resize(width: number, height: number): CanvasRenderingContext2D {
    const scale = globalThis.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    this.#canvas.style.height = `${height}px`;
    const context = this.#canvas.getContext("2d")!;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    return context;
  }
}
