// The thread runtime: one control block, a list of commands, dynamic shares, a barrier after each command.
// All threads, the caller included, run `runProgram` over the same list.

/** Byte offsets in the control block; src/device/cpu/control.ts holds the same numbers. */
const GENERATION: usize = 0; // counts program starts; idle workers wait on it
const PROGRAM: usize = 4; // address of the commands
const COMMANDS: usize = 8; // how many
const THREADS: usize = 12; // threads that take part, the caller included
const STATUS: usize = 16; // 0 running, 1 stop, 2 a thread trapped
const SPINS: usize = 20; // looks at a word before a thread goes to sleep on it
const SLEEPERS: usize = 24; // threads asleep, so that nobody is woken in vain
const NEXT_ITEM: usize = 64; // own cache line: the next item of the current command
const ARRIVED: usize = 128; // threads that reached the barrier
const PHASE: usize = 192; // counts barriers passed

/** A command: kernel index, address of its arguments, items, items taken at once. */
const COMMAND_BYTES: usize = 16;
/** A thread that trapped never arrives, so a sleeper wakes every 50 ms to look at the status. */
const LOOK: i64 = 50_000_000;

type KernelFunction = (args: usize, begin: i32, end: i32, scratch: usize) => void;

function isStopped(control: usize): bool {
  return atomic.load<i32>(control, STATUS) != 0;
}

/**
 * Returns once the word at `offset` is no longer `value`, or the status says to stop. Looks for a while before it
 * sleeps: a sleeper takes some 50 µs to wake, by which time the others would sleep too if they did not look for longer.
 */
function waitWhile(control: usize, offset: usize, value: i32, timeout: i64): void {
  for (let i = load<i32>(control, SPINS); i > 0; i--) {
    if (atomic.load<i32>(control + offset) != value) return;
  }
  atomic.add<i32>(control, 1, SLEEPERS);
  while (atomic.load<i32>(control + offset) == value) {
    if (isStopped(control)) break;
    atomic.wait<i32>(control + offset, value, timeout);
  }
  atomic.sub<i32>(control, 1, SLEEPERS);
}

/** Adds one to the word at `offset` and wakes those who sleep on it. */
function advance(control: usize, offset: usize): void {
  atomic.add<i32>(control + offset, 1);
  if (atomic.load<i32>(control, SLEEPERS) != 0) atomic.notify(control + offset, -1);
}

function barrier(control: usize, threads: i32): void {
  const phase = atomic.load<i32>(control, PHASE);
  if (atomic.add<i32>(control, 1, ARRIVED) != threads - 1) {
    waitWhile(control, PHASE, phase, LOOK);
    return;
  }
  atomic.store<i32>(control, 0, NEXT_ITEM);
  atomic.store<i32>(control, 0, ARRIVED);
  advance(control, PHASE);
}

/** Runs commands `first`…`first + count`; false when another thread failed or the device is closing. */
export function runCommands(control: usize, program: usize, count: i32, threads: i32, scratch: usize): bool {
  for (let c = 0; c < count; c++) {
    const command = program + <usize>c * COMMAND_BYTES;
    const kernel = load<i32>(command, 0);
    const args = load<usize>(command, 4);
    const items = load<i32>(command, 8);
    const grain = load<i32>(command, 12);
    if (threads == 1) {
      if (items > 0) call_indirect<void>(kernel, args, 0, items, scratch);
      continue;
    }
    for (;;) {
      const begin = atomic.add<i32>(control, grain, NEXT_ITEM);
      if (begin >= items) break;
      call_indirect<void>(kernel, args, begin, min(begin + grain, items), scratch);
    }
    barrier(control, threads);
    if (isStopped(control)) return false;
  }
  return true;
}

/** The caller's side: publishes the program, wakes the workers and takes part. */
export function runProgram(control: usize, program: usize, count: i32, threads: i32, scratch: usize): bool {
  if (threads > 1) {
    atomic.store<i32>(control, <i32>program, PROGRAM);
    atomic.store<i32>(control, count, COMMANDS);
    atomic.store<i32>(control, threads, THREADS);
    advance(control, GENERATION);
  }
  return runCommands(control, program, count, threads, scratch);
}

/** A worker's life: waits for a generation after `seen`, runs it, until the status says stop. */
export function workerLoop(control: usize, seen: i32, scratch: usize): void {
  for (let generation = seen; ; generation++) {
    waitWhile(control, GENERATION, generation, -1);
    if (isStopped(control)) return;
    const program = <usize>atomic.load<i32>(control, PROGRAM);
    if (!runCommands(control, program, atomic.load<i32>(control, COMMANDS), atomic.load<i32>(control, THREADS), scratch)) return;
  }
}
