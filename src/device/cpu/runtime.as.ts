// The thread runtime: one control block, a list of commands, dynamic shares, a barrier after each command.
// All threads, the caller included, run `runProgram` over the same list.

/** Byte offsets in the control block; src/device/cpu/control.ts holds the same numbers. */
const GENERATION: usize = 0; // counts program starts; idle workers wait on it
const PROGRAM: usize = 4; // address of the commands
const COMMANDS: usize = 8; // how many
const THREADS: usize = 12; // threads that take part, the caller included
const STATUS: usize = 16; // 0 running, 1 stop, 2 a thread trapped
const NEXT_ITEM: usize = 64; // own cache line: the next item of the current command
const ARRIVED: usize = 128; // threads that reached the barrier
const PHASE: usize = 192; // counts barriers passed

/** A command: kernel index, address of its arguments, items, items taken at once. */
const COMMAND_BYTES: usize = 16;
const SPINS: i32 = 4000;

type KernelFunction = (args: usize, begin: i32, end: i32, scratch: usize) => void;

function barrier(control: usize, threads: i32): bool {
  const phase = atomic.load<i32>(control, PHASE);
  if (atomic.add<i32>(control, 1, ARRIVED) == threads - 1) {
    atomic.store<i32>(control, 0, NEXT_ITEM);
    atomic.store<i32>(control, 0, ARRIVED);
    atomic.store<i32>(control, phase + 1, PHASE);
    atomic.notify(control + PHASE, -1);
    return atomic.load<i32>(control, STATUS) == 0;
  }
  for (let i = 0; i < SPINS; i++) {
    if (atomic.load<i32>(control, PHASE) != phase) return atomic.load<i32>(control, STATUS) == 0;
  }
  while (atomic.load<i32>(control, PHASE) == phase) {
    // A thread that trapped never arrives, so the wait wakes to look at the status.
    atomic.wait<i32>(control + PHASE, phase, 50_000_000);
    if (atomic.load<i32>(control, STATUS) != 0) return false;
  }
  return atomic.load<i32>(control, STATUS) == 0;
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
    if (!barrier(control, threads)) return false;
  }
  return true;
}

/** The caller's side: publishes the program, wakes the workers and takes part. */
export function runProgram(control: usize, program: usize, count: i32, threads: i32, scratch: usize): bool {
  if (threads > 1) {
    atomic.store<i32>(control, <i32>program, PROGRAM);
    atomic.store<i32>(control, count, COMMANDS);
    atomic.store<i32>(control, threads, THREADS);
    atomic.add<i32>(control, 1, GENERATION);
    atomic.notify(control + GENERATION, -1);
  }
  return runCommands(control, program, count, threads, scratch);
}

/** A worker's life: waits for a generation after `seen`, runs it, until the status says stop. */
export function workerLoop(control: usize, seen: i32, scratch: usize): void {
  let generation = seen;
  for (;;) {
    for (let i = 0; i < SPINS; i++) {
      if (atomic.load<i32>(control, GENERATION) != generation) break;
    }
    while (atomic.load<i32>(control, GENERATION) == generation) {
      if (atomic.load<i32>(control, STATUS) != 0) return;
      atomic.wait<i32>(control + GENERATION, generation, -1);
    }
    generation++;
    if (atomic.load<i32>(control, STATUS) != 0) return;
    const program = <usize>atomic.load<i32>(control, PROGRAM);
    if (!runCommands(control, program, atomic.load<i32>(control, COMMANDS), atomic.load<i32>(control, THREADS), scratch)) return;
  }
}
