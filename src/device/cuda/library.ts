import { errorMessage, UserError } from "../../base/errors.ts";

/** A C function of a native library: integers, handles and addresses as numbers or bigints, memory as typed arrays. */
export type NativeFunction = (...values: (number | bigint | string | ArrayBufferView | null)[]) => number;

/** Native memory that structures for the driver are built in. */
export interface NativeMemory {
  readonly address: bigint;
  readonly view: DataView;
}

/** What the CUDA device needs of a foreign function interface: a test can put its own in place. */
export interface NativeLibrary {
  /** Binds a C function that returns an int; throws when the library has none of that name. */
  bind(name: string, parameters: readonly string[]): NativeFunction;
  /** Memory that stays where it is. */
  allocate(bytes: number): NativeMemory;
  release(memory: NativeMemory): void;
  /** Memory at an address that somebody else made. */
  view(address: bigint, bytes: number): ArrayBuffer;
  /** The C string at an address. */
  text(address: bigint): string;
  /** Opens another library; throws when it cannot be found or loaded. */
  open(file: string): NativeLibrary;
}

const files: Partial<Record<NodeJS.Platform, string>> = { linux: "libcuda.so.1", win32: "nvcuda.dll" };

/**
 * The NVIDIA driver's library through koffi. Throws UserError, saying what is missing, on systems that have none.
 */
export async function loadDriverLibrary(
  platform: string = typeof process === "undefined" ? "browser" : process.platform,
): Promise<NativeLibrary> {
  const file = files[platform as NodeJS.Platform];
  if (file === undefined) throw new UserError(`CUDA runs on Linux and Windows, not on ${platform}.`);
  const { default: koffi } = await import("koffi").catch((cause: unknown) => {
    throw new UserError("CUDA needs the optional package koffi; install it with `npm install koffi`.", {
      cause,
    });
  });
  try {
    return openLibrary(koffi, file);
  } catch (cause) {
    throw new UserError(
      `There is no NVIDIA driver here (${file}: ${errorMessage(cause)}); install it to use CUDA.`,
      { cause },
    );
  }
}

function openLibrary(koffi: typeof import("koffi").default, file: string): NativeLibrary {
  const library = koffi.load(file);
  return {
    bind: (name, parameters) => library.func(name, "int", [...parameters]) as NativeFunction,
    allocate: (bytes) => {
      const address = koffi.address(koffi.alloc("uint8_t", bytes));
      return { address, view: new DataView(koffi.view(address, bytes)) };
    },
    release: ({ address }) => koffi.free(address),
    view: (address, bytes) => koffi.view(address, bytes),
    text: (address) => String(koffi.decode(address, "char", -1)),
    open: (other) => openLibrary(koffi, other),
  };
}
