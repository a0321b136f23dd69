import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
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

function running(child: ChildProcess, dir: string, sdsSocket: string, controlSocket: string | undefined): Running {
  const ended = new Promise<void>((done) => child.once('close', () => done()));
  return {
    pid: child.pid!,
    sdsSocket,
    controlSocket,
    memory: () => {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)![1]);
      return { rssAnon: field('RssAnon'), rss: field('VmRSS') };
    },
    stop: async () => {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 3_000);
      await ended;
      clearTimeout(late);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
