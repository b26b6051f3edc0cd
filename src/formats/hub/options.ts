/** Called while a file of a model comes down: `loadedBytes` of its `totalBytes` are on disk. */
export type DownloadProgress = (file: string, loadedBytes: number, totalBytes: number) => void;

/** How a model of the hub is fetched. */
export interface ResolveModelOptions {
  readonly onProgress?: DownloadProgress;
  /** Breaks the download off; what has come down so far is taken up again by the next call. */
  readonly signal?: AbortSignal;
  /**
   * Environment variables, those of the process when not given. Read are HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME,
   * HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, XDG_CACHE_HOME, HF_HUB_OFFLINE, HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT.
   */
  readonly env?: Readonly<Record<string, string | undefined>>;
}
