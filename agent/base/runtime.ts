/** Bun's own version where it runs us, which it does in the executable; else undefined, and this is Node.js. */
export const BUN_VERSION: string | undefined = process.versions.bun;

/** What runs us, for people: `node 22.23.3`, `bun 1.4.5`. */
export const RUNTIME =
  BUN_VERSION === undefined ? `node ${process.versions.node}` : `bun ${BUN_VERSION}`;

/** The library behind keys and TLS, for people: `OpenSSL 3.0.17`, or BoringSSL by its commit, since it has no versions. */
export const CRYPTO_LIBRARY =
  BUN_VERSION === undefined
    ? `OpenSSL ${process.versions.openssl}`
    : `BoringSSL ${process.versions.boringssl?.slice(0, 12)}`;

/** Whether this is the thread that the process began with. */
export function isMainThread(): boolean {
  return BUN_VERSION === undefined
    ? process.getBuiltinModule('node:worker_threads').isMainThread
    : Bun.isMainThread;
}

/**
 * For a process that always has something to do. The executable begins with the patience of an agent, which hardly ever has: code is
 * compiled once it has run a hundred times as often as usual (`scripts/lib/standalone.mjs`), which makes its start a fifth shorter.
 */
export function compileAtOnce(): void {
  if (BUN_VERSION !== undefined) Bun.unsafe.setJITPolicy(1);
}
