import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startPilotAgent } from '../support/pilot-agent';
import { type ProgramForm, programCommand } from '../support/program';
import type { CaSubject } from './ca-subjects';

/** An agent under measurement: ours, or any other that serves SDS on a Unix socket. */
export interface Subject {
  readonly name: string;
  /** Starts it in a directory of its own. */
  start(): Running | Promise<Running>;
}

export interface Running {
  readonly pid: number;
  /** Where it runs. */
  readonly dir: string;
  /** Of `performance.now()`, when it was started. */
  readonly startedAt: number;
  readonly sdsSocket: string;
  /** Ours only. */
  readonly controlSocket: string | undefined;
  /** Kilobytes, of /proc/PID/status. */
  memory(): { readonly rssAnon: number; readonly rss: number };
  stop(): Promise<void>;
}

const FORMS: Readonly<Record<ProgramForm, string>> = {
  node: 'keyturn on Node.js',
  standalone: 'keyturn, executable',
};

/** `keyturn run` as it ships, with a built-in CA that was made before. */
export function keyturn(form: ProgramForm, caDir: string): Subject {
  return agent(FORMS[form], form, () => ['--ca', 'builtin', '--ca-dir', caDir]);
}

/** The same, with the first caller's token for a CA that another process runs. */
export function keyturnAsking(form: ProgramForm, ca: CaSubject): Subject {
  const caller = ca.callers[0]!;
  return agent(`${FORMS[form]}, asking a CA`, form, (dir) => {
    writeFileSync(join(dir, 'root.pem'), ca.rootPem);
    writeFileSync(join(dir, 'token'), caller.token);
    const trust = [
      '--ca-root',
      'root.pem',
      '--trust-bundle',
      'root.pem',
      '--token',
      'token',
      '--spiffe-id',
      caller.uri,
    ];
    return ['--ca', 'istiod', '--ca-address', ca.address, ...trust];
  });
}

/** Istio's own agent, with the same token for the same CA. */
export function pilotAgent(ca: CaSubject): Subject {
  const { token, uri } = ca.callers[0]!;
  const [, namespace, account] = /\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(uri)!;
  return {
    name: 'pilot-agent, asking a CA',
    start: async () => {
      const env = { POD_NAMESPACE: namespace!, SERVICE_ACCOUNT: account! };
      const peer = await startPilotAgent({
        caAddress: ca.address,
        rootPem: ca.rootPem,
        token,
        env,
      });
      const { pid, startedAt, sdsSocket, stop } = peer;
      const dir = resolve(sdsSocket, '../../../../..');
      return {
        pid,
        dir,
        startedAt,
        sdsSocket,
        controlSocket: undefined,
        memory: () => memoryOf(pid),
        stop,
      };
    },
  };
}

function agent(
  name: string,
  form: ProgramForm,
  source: (dir: string) => readonly string[],
): Subject {
  return {
    name,
    start: () => {
      const dir = mkdtempSync(join(tmpdir(), 'keyturn-bench-'));
      const [program, ...runtime] = programCommand(form);
      const args = [
        ...runtime,
        'run',
        ...source(dir),
        '--admin-address',
        '127.0.0.1:0',
        '--log-level',
        'warn',
      ];
      const child = spawn(program, args, {
        cwd: dir,
        stdio: ['ignore', 'ignore', 'inherit'],
        env: { PATH: process.env.PATH },
      });
      return running(
        child,
        dir,
        join(dir, 'var/run/secrets/workload-spiffe-uds/socket'),
        join(dir, 'var/run/keyturn/control.sock'),
      );
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
        writeFileSync(
          join(dir, 'workloads', `w${index}.yaml`),
          `namespace: bench\nservice-account: w${index}\n`,
        );
      const args = [
        'run',
        '--ca',
        'builtin',
        '--ca-dir',
        caDir,
        '--workloads',
        'workloads',
        '--admin-address',
        '127.0.0.1:0',
      ];
      const [program, ...runtime] = programCommand();
      const child = spawn(program, [...runtime, ...args, '--log-level', 'warn'], {
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
      const child = spawn('bash', ['-c', `exec ${line}`], {
        cwd: join(dir, 'work'),
        stdio: ['ignore', 'ignore', 'ignore'],
      });
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
      return running(
        spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' }),
        dir,
        '',
        undefined,
      );
    },
  };
}

/** Kilobytes, of /proc/PID/status. */
export function memoryOf(pid: number): { readonly rssAnon: number; readonly rss: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)![1]);
  return { rssAnon: field('RssAnon'), rss: field('VmRSS') };
}

function running(
  child: ChildProcess,
  dir: string,
  sdsSocket: string,
  controlSocket: string | undefined,
): Running {
  const startedAt = performance.now();
  const ended = new Promise<void>((done) => child.once('close', () => done()));
  return {
    pid: child.pid!,
    dir,
    startedAt,
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
