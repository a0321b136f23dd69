import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from '@jest/globals';
import type { WorkloadStatus } from '../../agent/admin/agent-view';
import { type Daemon, type DaemonOptions, startDaemon } from './daemon';
import { tempDir } from './temp-dir';
import { until } from './until';

/** A daemon with many workloads, and the directory that lists them. */
export interface WorkloadsDaemon {
  readonly daemon: Daemon;
  readonly dir: string;
  /** Puts a workload's file there, as one step. */
  put(name: string, ...lines: readonly string[]): void;
  remove(name: string): void;
  rename(from: string, to: string): void;
  /** The default place of a workload's socket. */
  socket(name: string): string;
  status(name: string): Promise<WorkloadStatus | undefined>;
  /** Resolves once that holds for a workload's status. */
  becomes(
    name: string,
    what: string,
    holds: (status: WorkloadStatus) => boolean,
  ): Promise<WorkloadStatus>;
  /** Starts another daemon on the same directory, once this one has ended. */
  restart(): WorkloadsDaemon;
}

const running: Daemon[] = [];

afterEach(async () => {
  for (const daemon of running.splice(0)) await daemon.stop();
});

/** `spiffe-id: ...` of the shop's account of that name. */
export function identity(name: string): string {
  return `spiffe-id: ${idOf(name)}`;
}

export function idOf(name: string): string {
  return `spiffe://cluster.local/ns/shop/sa/${name}`;
}

/** Starts a daemon on a list of workloads, each by its name the lines of its file; it is stopped after the test. */
export function startWorkloads(
  files: Readonly<Record<string, readonly string[]>>,
  options: Partial<Pick<DaemonOptions, 'flags' | 'source' | 'through'>> = {},
): WorkloadsDaemon {
  const dir = tempDir();
  const list = join(dir, 'workloads');
  mkdirSync(list);
  const path = (name: string) => join(list, `${name}.yaml`);
  const put = (name: string, ...lines: readonly string[]) => {
    writeFileSync(join(list, '.new'), `${lines.join('\n')}\n`);
    renameSync(join(list, '.new'), path(name));
  };
  for (const [name, lines] of Object.entries(files)) put(name, ...lines);
  return runWorkloads({ dir, path, put }, options);
}

function runWorkloads(
  list: Pick<WorkloadsDaemon, 'dir' | 'put'> & { readonly path: (name: string) => string },
  options: Partial<Pick<DaemonOptions, 'flags' | 'source' | 'through'>>,
): WorkloadsDaemon {
  const { dir, path, put } = list;
  const flags = ['--workloads', 'workloads', ...(options.flags ?? [])];
  const daemon = startDaemon({ dir, identity: [], ...options, flags });
  running.push(daemon);
  const status = async (name: string) =>
    (await daemon.status()).workloads.find((each) => each.name === name);
  return {
    daemon,
    dir,
    put,
    remove: (name) => rmSync(path(name)),
    rename: (from, to) => renameSync(path(from), path(to)),
    socket: (name) => join(dir, 'var/run/secrets/workload-spiffe-uds', name, 'socket'),
    status,
    becomes: (name, what, holds) =>
      until(`${name} to be ${what}`, async () => {
        const found = await status(name).catch(() => undefined);
        return found && holds(found) && found;
      }),
    restart: () => runWorkloads(list, options),
  };
}
