import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tempDir } from './temp-dir';

/** The profile that engines use where none is named; Debian's package golang-github-containers-common has it. */
const SECCOMP = '/usr/share/containers/seccomp.json';
const USER = { uid: 1337, gid: 1337 };

export interface Finished {
  readonly code: number | null;
  readonly output: string;
}

/** A container as `docker run --read-only --cap-drop ALL --security-opt no-new-privileges` starts it, by runc. */
export interface Container {
  /** The machine's directory that is /run in the container. */
  readonly run: string;
  /** Runs a program in it, e.g. `exec('/usr/local/bin/keyturn', 'status')`. */
  exec(...args: readonly string[]): Promise<Finished>;
  /** /proc/PID/status of its first process, as the machine sees it. */
  processStatus(): Promise<Readonly<Record<string, string>>>;
  /** Sends SIGTERM, as `docker stop` does, and waits for the end. */
  stop(): Promise<Finished>;
  readonly finished: Promise<Finished>;
}

/**
 * Starts it with a network of its own, in which nothing is but loopback.
 *
 * @param rootfs  The unpacked image. It is not written to.
 * @param args    The whole command line.
 */
export function startContainer(rootfs: string, args: readonly string[]): Container {
  const dir = tempDir();
  const [run, state] = [join(dir, 'run'), join(dir, 'state')];
  for (const each of [run, state]) mkdirSync(each);
  chownSync(run, USER.uid, USER.gid);
  writeFileSync(join(dir, 'config.json'), JSON.stringify(ociConfig(rootfs, run, args)));
  const id = `keyturn-${process.pid}-${Math.random().toString(36).slice(2)}`;
  const runc = (...rest: readonly string[]) => ['--root', state, ...rest];
  const finished = collect(
    spawn('runc', runc('run', '--bundle', dir, id), { stdio: ['ignore', 'pipe', 'pipe'] }),
  );
  const ask = (...rest: readonly string[]) =>
    collect(spawn('runc', runc(...rest), { stdio: ['ignore', 'pipe', 'pipe'] }));
  return {
    run,
    finished,
    exec: (...program) =>
      ask('exec', '--cwd', '/', '--user', `${USER.uid}:${USER.gid}`, id, ...program),
    processStatus: async () => {
      const { output } = await ask('state', id);
      const text = readFileSync(
        `/proc/${(JSON.parse(output) as { pid: number }).pid}/status`,
        'utf8',
      );
      return Object.fromEntries(
        text.split('\n').map((line) => line.split(':\t') as [string, string]),
      );
    },
    stop: async () => {
      await ask('kill', id, 'TERM');
      return finished;
    },
  };
}

/** Which system calls the default profile allows to whoever has no capability, in the form that runtimes take. */
function seccomp(): object {
  const profile = JSON.parse(readFileSync(SECCOMP, 'utf8')) as {
    defaultAction: string;
    defaultErrnoRet: number;
    syscalls: {
      names: string[];
      action: string;
      args?: object[];
      includes?: Conditions;
      excludes?: Conditions;
      errnoRet?: number;
    }[];
  };
  const machine = { x64: 'amd64', arm64: 'arm64' }[process.arch as 'x64' | 'arm64'];
  const applies = ({
    includes = {},
    excludes = {},
  }: {
    includes?: Conditions;
    excludes?: Conditions;
  }) =>
    !includes.caps &&
    (includes.arches?.includes(machine) ?? true) &&
    !(excludes.arches?.includes(machine) ?? false);
  return {
    defaultAction: profile.defaultAction,
    defaultErrnoRet: profile.defaultErrnoRet,
    architectures: [process.arch === 'x64' ? 'SCMP_ARCH_X86_64' : 'SCMP_ARCH_AARCH64'],
    syscalls: profile.syscalls
      .filter(applies)
      .map(({ names, action, args, errnoRet }) => ({ names, action, args: args ?? [], errnoRet })),
  };
}

interface Conditions {
  readonly caps?: readonly string[];
  readonly arches?: readonly string[];
}

function ociConfig(rootfs: string, run: string, args: readonly string[]): object {
  const tmpfs = (destination: string, mode: string) => ({
    destination,
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', 'noexec', `mode=${mode}`, `uid=${USER.uid}`, `gid=${USER.gid}`],
  });
  return {
    ociVersion: '1.0.2',
    process: {
      user: USER,
      args,
      env: ['MALLOC_ARENA_MAX=1'],
      cwd: '/',
      capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
      noNewPrivileges: true,
    },
    root: { path: rootfs, readonly: true },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
      {
        destination: '/sys',
        type: 'sysfs',
        source: 'sysfs',
        options: ['nosuid', 'noexec', 'nodev', 'ro'],
      },
      // A file system in memory that the machine sees too, as the volume that a pod's containers share.
      {
        ...tmpfs('/run', '0755'),
        type: 'bind',
        source: run,
        options: ['rbind', 'nosuid', 'nodev', 'noexec'],
      },
      tmpfs('/var/lib/keyturn', '0700'),
    ],
    linux: {
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      seccomp: seccomp(),
      maskedPaths: ['/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware'],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  };
}

function collect(child: ChildProcess): Promise<Finished> {
  return new Promise((done, failed) => {
    let output = '';
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk) => (output += chunk));
    child.on('error', failed);
    child.on('close', (code) => done({ code, output }));
  });
}
