import { BUN_VERSION } from './runtime';

/** Of the GNU C library and of musl. */
const NAMES = ['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`];

/** Types of arguments and results, as Bun names them: `i32`, `ptr`, `usize` ... */
export type Signatures<Functions> = Readonly<
  Record<keyof Functions, { readonly args: readonly string[]; readonly returns: string }>
>;

/** As much as is used of Bun's foreign function interface. */
interface ForeignFunctions {
  dlopen<Functions>(
    library: string,
    signatures: Signatures<Functions>,
  ): { readonly symbols: Functions };
}

/**
 * Functions of the C library, for what Node's API lacks: there where Bun runs us on Linux, undefined elsewhere. Takes a quarter of a
 * millisecond.
 */
export function openLibc<Functions>(signatures: Signatures<Functions>): Functions | undefined {
  if (process.platform !== 'linux' || BUN_VERSION === undefined) return undefined;
  // Not by `import`: bundlers and Node know no module of this name.
  const ffi = process.getBuiltinModule('bun:ffi') as unknown as ForeignFunctions;
  for (const name of NAMES) {
    try {
      return ffi.dlopen(name, signatures).symbols;
    } catch {
      // The other one, then.
    }
  }
  return undefined;
}
