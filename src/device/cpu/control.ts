/**
 * Byte offsets in the control block that all threads share; `runtime.as.ts` holds the same numbers.
 * `generation` counts program starts, `status` is 0 running, 1 stop, 2 a thread trapped, `spins` is how often a thread
 * looks at a word before it sleeps on it.
 */
export const control = { generation: 0, status: 16, spins: 20, bytes: 256 } as const;

/** Values of the control block's status word. */
export const status = { running: 0, stop: 1, trapped: 2 } as const;

/** Bytes of scratch memory each thread owns; a kernel keeps its tiles there. */
export const SCRATCH_BYTES = 4 * 1024 * 1024;

/** Bytes of one command of a program: kernel index, argument address, items, items taken at once. */
export const COMMAND_BYTES = 16;
