import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** An agent under measurement: ours, or any other that serves SDS on a Unix socket. */
export interface Subject {
  readonly name: string;
  /** Starts it in a directory of its own. */
  start(): Running;
}

export interface Running {
  readonly pid: number;
  /** Where it runs. */
  readonly dir: string;
  readonly sdsSocket: string;
  /** Ours only. */
  readonly controlSocket: string | undefined;
  /** Kilobytes, of /proc/PID/status. */
  memory(): { readonly rssAnon: number; readonly rss: number };
  stop(): Promise<void>;
}

const KEYTURN = resolve(__dirname, '../../dist/keyturn');

/** `keyturn run` as it ships, with a CA that was made before. */
export function keyturn(caDir: string): Subject {
  return {
    name: 'keyturn',
    start: () => {
      const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
      const args = ['run', '--ca', 'builtin', '--ca-dir', caDir, '--admin-address', '127.0.0.1:0', '--log-level', 'warn'];
      const child = spawn(process.execPath, [KEYTURN, ...args], {
        cwd: dir,
        stdio: ['ignore', 'ignore', 'inherit'],
        env: { PATH: process.env.PATH },
      });
      return running(child, dir, join(dir, 'var/run/secrets/workload-spiffe-uds/socket'), join(dir, 'var/run/keyturn/control.sock'));
    },
  };
}

/** `keyturn run` with so many workloads in one process; `socketOf` says where each serves. */
export function keyturnWith(caDir: string, count: number): Subject {
  return {
    name: `${count} in one process`,
    start: () => {
      const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
      mkdirSync(join(dir, 'workloads'));
      for (let index = 0; index < count; index += 1)
        writeFileSync(join(dir, 'workloads', `w${index}.yaml`), `service-account: w${index}\n`);
      const args = ['run', '--ca', 'builtin', '--ca-dir', caDir, '--workloads', 'workloads', '--admin-address', '127.0.0.1:0'];
      const child = spawn(process.execPath, [KEYTURN, ...args, '--log-level', 'warn'], {
        cwd: dir,
        stdio: ['ignore', 'ignore', 'inherit'],
        env: { PATH: process.env.PATH },
      });
      return running(child, dir, socketOf(dir, 0), join(dir, 'var/run/keyturn/control.sock'));
    },
  };
}

/** The socket of one workload of a process that runs in `dir`. */
export function socketOf(dir: string, index: number): string {
  return join(dir, 'var/run/secrets/workload-spiffe-uds', `w${index}`, 'socket');
}

/**
 * Any other agent.
 *
 * @param command  A shell command; `{socket}` stands for the path on which it is to serve SDS, `{dir}` for an empty directory.
 * @param socket   Where it serves, if not at `{socket}`.
 */
export function peer(command: string, socket: string | undefined): Subject {
  return {
    name: 'peer',
    start: () => {
      const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
      const path = socket ?? join(dir, 'sds.sock');
      mkdirSync(join(dir, 'work'));
      const line = command.replaceAll('{socket}', path).replaceAll('{dir}', join(dir, 'work'));
      const child = spawn('bash', ['-c', `exec ${line}`], { cwd: join(dir, 'work'), stdio: ['ignore', 'ignore', 'ignore'] });
      return running(child, dir, path, undefined);
    },
  };
}

/** The runtime with nothing to do, for comparison. */
export function bareNode(): Subject {
  return {
    name: 'node -e 0',
    start: () => {
      const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
      return running(spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' }), dir, '', undefined);
    },
  };
}

/** Kilobytes, of /proc/PID/status. */
export function memoryOf(pid: number): { readonly rssAnon: number; readonly rss: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)![1]);
  return { rssAnon: field('RssAnon'), rss: field('VmRSS') };
}

function running(child: ChildProcess, dir: string, sdsSocket: string, controlSocket: string | undefined): Running {
  const ended = new Promise<void>((done) => child.once('close', () => done()));
  return {
    pid: child.pid!,
    dir,
    sdsSocket,
    controlSocket,
    memory: () => memoryOf(child.pid!),
    stop: async () => {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 3_000);
      await ended;
      clearTimeout(late);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
