import type { Deps } from '../../agent/base/deps';
import { AgentError, invalid } from '../../agent/base/errors';
import { type FileWatch, watchFiles } from '../../agent/base/file-watch';
import { LIMITS } from '../grpc/limits';
import { isBelow, loadFiles, pathsOf } from './file-contents';
import { type FileName, parseFileName } from './resource-name';
import type { Lookup } from './secret-resource';

export interface FileSecretsOptions {
  /** Only files below these are served. */
  readonly dirs: readonly string[];
  /** Called when the resource of a name appeared or changed. Must not throw. */
  readonly onChange: (name: string) => void;
}

/** Serves `file-cert:` and `file-root:` names: read when the first stream asks, watched while any does, forgotten after the last one. */
export interface FileSecrets {
  /** `waiting` for a name that nobody retains, or whose files have not been good yet. */
  lookup: Lookup;
  /** Returns the function that lets go of the name, or undefined where it is no name of files or too many are watched. */
  retain(name: string): (() => void) | undefined;
  close(): Promise<void>;
}

interface Entry {
  holders: number;
  found: ReturnType<Lookup>;
  readonly stop: AbortController;
  done: Promise<void>;
}

export function createFileSecrets(options: FileSecretsOptions, deps: Deps): FileSecrets {
  const entries = new Map<string, Entry>();
  const closing = new Set<Promise<void>>();
  // A name that streams come and go by is read anew for each of them, and what is left out of its file is news once.
  const told = new Map<string, string>();
  const tellSkipped = (name: string, skipped: readonly string[]): void => {
    const all = skipped.join();
    if (skipped.length === 0 || told.get(name) === all) return;
    if (told.size >= LIMITS.fileNames) told.clear();
    told.set(name, all);
    deps.log.warn('root file has invalid certificates, using the others', { name, skipped });
  };

  const start = (text: string, name: FileName): Entry => {
    const stop = new AbortController();
    const entry: Entry = { holders: 0, found: 'waiting', stop, done: Promise.resolve() };
    const publish = (found: Entry['found']) => {
      if (stop.signal.aborted || sameFound(found, entry.found)) return;
      entry.found = found;
      options.onChange(text);
    };
    entry.done = follow(
      text,
      name,
      options.dirs,
      { publish, tellSkipped },
      stop.signal,
      deps,
    ).catch((cause) => {
      deps.log.error('watch of secret files failed', { name: text, cause });
    });
    return entry;
  };
  const release = (text: string, entry: Entry): void => {
    entry.holders -= 1;
    if (entry.holders > 0) return;
    entries.delete(text);
    entry.stop.abort();
    closing.add(entry.done);
    void entry.done.then(() => closing.delete(entry.done));
  };

  return {
    lookup: (text) => {
      const name = parseFileName(text);
      if (!name || !isBelow(name, options.dirs)) return 'unknown';
      return entries.get(text)?.found ?? 'waiting';
    },
    retain: (text) => {
      const name = parseFileName(text);
      if (!name || !isBelow(name, options.dirs)) return undefined;
      let entry = entries.get(text);
      if (!entry) {
        // What is still closing counts, so that a stream which adds and drops names cannot pile watches up.
        if (entries.size + closing.size >= LIMITS.fileNames) {
          deps.metrics.record('sds_refused_total', { reason: 'file_names' });
          return undefined;
        }
        entry = start(text, name);
        entries.set(text, entry);
      }
      const held = entry;
      held.holders += 1;
      return () => release(text, held);
    },
    close: async () => {
      for (const entry of entries.values()) entry.stop.abort();
      await Promise.all([...[...entries.values()].map((entry) => entry.done), ...closing]);
      entries.clear();
    },
  };
}

function sameFound(a: ReturnType<Lookup>, b: ReturnType<Lookup>): boolean {
  return typeof a === 'string' || typeof b === 'string' ? a === b : a.version === b.version;
}

/** Who learns what became of a read. */
interface Listeners {
  readonly publish: (found: ReturnType<Lookup>) => void;
  readonly tellSkipped: (name: string, skipped: readonly string[]) => void;
}

/**
 * Reads the files of a name whenever they change, and when a root of theirs begins or ends, until the signal fires. A bad read keeps what was
 * published before.
 */
async function follow(
  text: string,
  name: FileName,
  dirs: readonly string[],
  { publish, tellSkipped }: Listeners,
  signal: AbortSignal,
  deps: Deps,
): Promise<void> {
  let reading: Promise<void> = Promise.resolve();
  let lastTrouble = '';
  let waiting = new AbortController();
  const readAt = (at: number) => {
    waiting.abort();
    waiting = new AbortController();
    if (!Number.isFinite(at) || signal.aborted) return;
    deps.clock.sleepUntil(at, waiting.signal).then(read, () => undefined);
  };
  const readOnce = async () => {
    if (signal.aborted) return;
    try {
      const { resource, skipped, changesAt } = await loadFiles(text, name, dirs, deps.clock.now());
      readAt(changesAt);
      if (!resource)
        throw invalid(
          'ERR_FILE_SOURCE',
          text,
          `must hold a root that is valid now: ${skipped.slice(0, 3).join('; ')}`,
        );
      lastTrouble = '';
      tellSkipped(text, skipped);
      publish(resource);
    } catch (caught) {
      const error = AgentError.from(caught, 'ERR_FILE_SOURCE');
      deps.metrics.record('file_read_failures_total', {});
      if (error.message !== lastTrouble)
        deps.log.warn('secret files invalid, secret withheld', {
          name: text,
          cause: error,
        });
      lastTrouble = error.message;
      if (error.code === 'ERR_SECRET_UNKNOWN') publish('unknown');
    }
  };
  const read = () => {
    reading = reading.then(readOnce);
    return reading;
  };
  let watch: FileWatch | undefined;
  const forgetClock = deps.clock.onJump(() => void read());
  try {
    watch = await watchFiles(pathsOf(name), () => void read(), deps);
    await read();
    await new Promise<void>((done) => {
      if (signal.aborted) return done();
      signal.addEventListener('abort', () => done(), { once: true });
    });
  } finally {
    forgetClock();
    waiting.abort();
    await watch?.close();
    await reading;
  }
}
