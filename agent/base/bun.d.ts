/** As much of Bun as we use that Node.js does not have. Only there where `BUN_VERSION` is. */
declare const Bun: {
  /** Collects everything now; `true` waits for the end. */
  gc(force: boolean): void;
  /** Forgets compiled code that is not running, and gives pages back to the system. */
  shrink(): void;
  /** As of node:worker_threads, which takes a millisecond to load. */
  readonly isMainThread: boolean;
  readonly unsafe: {
    /** How many times as often code must have run as usual before it is compiled. */
    setJITPolicy(scale: number): void;
  };
};
