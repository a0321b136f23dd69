import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Deps } from './deps';
import { AgentError, errorText } from './errors';
import { followPath } from './file-place';

/** Kubelets, editors and our own atomic-dir change several names at once; one look after the last of them is enough. */
const DEBOUNCE_MS = 100;
/** Behind a working watch: inotify is silent on some network and overlay file systems. */
const SLOW_POLL_MS = 45_000;
/** Without a watch, e.g. where the machine's inotify instances are used up. */
const FAST_POLL_MS = 3_000;

export interface FileWatch {
  /** Resolves when nothing of the watch is left that could call back or keep the process alive. */
  close(): Promise<void>;
}

/**
 * Calls `onChange` after any of `paths` (or what a symbolic link on its way leads to) was made, replaced, written to, re-linked or removed.
 * Of a path that is a directory it tells when entries come and go. Nothing need exist yet: what is missing is picked up when it is made. Changes made after the call and before its promise resolves count
 * too. A change may be told more than once, so a listener compares what it reads with what it had; it must not throw.
 *
 * It watches directories, never files: a watch on a file follows its inode and misses every replacement after the first. Where watching
 * fails it looks every few seconds instead, which is logged and counted; behind a working watch it still looks every 45 s.
 *
 * @param debounceMs  How long it waits for more after a change. Less where each moment counts and files are replaced as a whole.
 */
export async function watchFiles(
  paths: readonly string[],
  onChange: () => void,
  deps: Deps,
  debounceMs = DEBOUNCE_MS,
): Promise<FileWatch> {
  const watch = new DirectoryWatch(
    paths.map((path) => resolve(path)),
    onChange,
    deps,
    debounceMs,
  );
  await watch.start();
  return watch;
}

interface Watcher {
  close(): Promise<void>;
}

class DirectoryWatch implements FileWatch {
  readonly #stop = new AbortController();
  #print = '';
  #dirsPrint = '';
  #watcher: Watcher | undefined;
  #failed = false;
  #debounce: Promise<void> | undefined;
  #looking: Promise<void> = Promise.resolve();
  #polling: Promise<void> = Promise.resolve();

  constructor(
    private readonly paths: readonly string[],
    private readonly onChange: () => void,
    private readonly deps: Deps,
    private readonly debounceMs: number,
  ) {}

  async start(): Promise<void> {
    this.#print = (await this.#places()).print;
    await this.#look();
    this.#polling = this.#poll();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#polling, this.#debounce]);
    await this.#looking;
    await this.#watcher?.close();
    this.#watcher = undefined;
  }

  /** One look at a time, so that a slow file system cannot pile them up or bring them out of order. */
  #look(): Promise<void> {
    this.#looking = this.#looking.then(() =>
      this.#stop.signal.aborted ? undefined : this.#lookOnce(),
    );
    return this.#looking;
  }

  async #lookOnce(): Promise<void> {
    let places = await this.#places();
    // What changed while the new watch was being set up is seen by the second look.
    for (
      let round = 0;
      places.dirsPrint !== this.#dirsPrint && round < 3 && !this.#failed;
      round += 1
    ) {
      this.#dirsPrint = places.dirsPrint;
      await this.#rewatch(places.dirs);
      places = await this.#places();
    }
    if (places.print === this.#print || this.#stop.signal.aborted) return;
    this.#print = places.print;
    this.onChange();
  }

  async #places(): Promise<{ print: string; dirs: readonly string[]; dirsPrint: string }> {
    const places = await Promise.all(this.paths.map(followPath));
    const dirs = [...new Set(places.flatMap((place) => place.dirs))].sort();
    // A directory that was removed and made again has the same name and another inode; the old watch is deaf.
    const dirsPrint = JSON.stringify(
      await Promise.all(dirs.map(async (dir) => [dir, await inode(dir)])),
    );
    return { print: JSON.stringify(places.map((place) => place.print)), dirs, dirsPrint };
  }

  async #rewatch(dirs: readonly string[]): Promise<void> {
    const previous = this.#watcher;
    this.#watcher = undefined;
    try {
      this.#watcher = await watchDirectories(
        dirs,
        () => this.#changed(),
        (cause) => this.#fallBack(cause),
      );
    } catch (cause) {
      this.#fallBack(cause);
    }
    await previous?.close();
  }

  /** Something moved in a watched directory: look in a moment, once for all that moves until then. */
  #changed(): void {
    this.#debounce ??= this.#lookSoon();
  }

  async #lookSoon(): Promise<void> {
    try {
      await this.#sleep(this.debounceMs);
      this.#debounce = undefined;
      await this.#look();
    } catch (caught) {
      this.#ignoreAbort(caught);
    }
  }

  #fallBack(cause: unknown): void {
    if (this.#failed || this.#stop.signal.aborted) return;
    this.#failed = true;
    this.deps.metrics.record('file_watch_failures_total', {});
    this.deps.log.warn('file watch failed, polling', {
      paths: this.paths,
      everySeconds: FAST_POLL_MS / 1_000,
      cause: errorText(cause),
    });
  }

  async #poll(): Promise<void> {
    try {
      for (;;) {
        await this.#sleep(this.#failed ? FAST_POLL_MS : SLOW_POLL_MS);
        await this.#look();
      }
    } catch (caught) {
      this.#ignoreAbort(caught);
    }
  }

  #sleep(ms: number): Promise<void> {
    return this.deps.clock.sleepUntil(this.deps.clock.now() + ms, this.#stop.signal);
  }

  #ignoreAbort(caught: unknown): void {
    if (!(caught instanceof AgentError && caught.code === 'ERR_ABORTED')) throw caught;
  }
}

async function watchDirectories(
  dirs: readonly string[],
  onEvent: () => void,
  onError: (cause: unknown) => void,
): Promise<Watcher> {
  const { watch } = await import('chokidar');
  const wanted = new Set(dirs);
  const watcher = watch([...dirs], {
    depth: 0,
    ignoreInitial: true,
    followSymlinks: false,
    // A watch on each entry would cost an inotify watch a file and tell nothing that the directory's own watch does not.
    ignored: (path) => !wanted.has(resolve(path)),
  });
  watcher.on('error', onError);
  // The raw events are the kernel's: they come for names that chokidar has no opinion of, such as `..data`.
  watcher.on('raw', onEvent);
  await new Promise<void>((ready) => {
    watcher.on('ready', ready);
    watcher.on('error', () => ready());
  });
  return watcher;
}

async function inode(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found ? `${found.dev}:${found.ino}` : 'missing';
}
