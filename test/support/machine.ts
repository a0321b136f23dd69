import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { peerPath } from './peer-path';
import { tempDir } from './temp-dir';
import { until } from './until';

/** A whole Debian with systemd as its first process and a network of its own, of which nothing but its directory is left when it is off. */
export interface Machine {
  /** Its root directory. */
  readonly dir: string;
  /** Resolves when it has reached its target. */
  boot(): Promise<void>;
  /** As a person who switches it off. */
  powerOff(): Promise<void>;
  /**
   * Runs a command in it as root, or as another user, and returns what it wrote on standard output.
   *
   * @throws Error with both outputs where it fails.
   */
  run(command: string): string;
  /** As `run`, but a failure is returned too. */
  try(command: string): {
    readonly code: number | null;
    readonly stdout: string;
    readonly stderr: string;
  };
  /** Puts a file of this machine there. */
  put(from: string, to: string): void;
  write(path: string, text: string): void;
  read(path: string): string;
  /** Properties of a unit, as `systemctl show` has them. */
  unit<N extends string>(name: string, ...properties: readonly N[]): Readonly<Record<N, string>>;
  /** What its units and kernel logged so far. */
  journal(): string;
}

const SHUTDOWN = 'SIGRTMIN+4';
const BOOT_MS = 60_000;
const POWER_OFF_MS = 30_000;

/** @param binds  Files of this machine that are there too, for reading: by their path there. */
export function createMachine(binds: Readonly<Record<string, string>>): Machine {
  const rootfs = peerPath('systemd');
  if (rootfs === undefined)
    throw new Error('systemd is missing; provide it with: scripts/peers systemd');
  const dir = join(tempDir(), 'machine');
  execFileSync('cp', ['-a', rootfs, dir]);
  let running:
    | { readonly child: ChildProcess; readonly leader: number; readonly ended: Promise<void> }
    | undefined;
  const inside = (command: string) => {
    if (running === undefined) throw new Error(`the machine is off: ${command}`);
    const enter = [
      '--target',
      String(running.leader),
      '--mount',
      '--uts',
      '--ipc',
      '--net',
      '--pid',
      '--cgroup',
    ];
    const env = {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      DEBIAN_FRONTEND: 'noninteractive',
      LANG: 'C.UTF-8',
    };
    const { status, stdout, stderr } = spawnSync(
      'nsenter',
      [...enter, 'bash', '-c', `cd /; ${command}`],
      {
        encoding: 'utf8',
        env,
        timeout: 60_000,
      },
    );
    return { code: status, stdout, stderr };
  };
  const machine: Machine = {
    dir,
    boot: async () => {
      running = await start(dir, binds);
      await until(
        'a booted machine',
        async () => /^(running|degraded)/.test(inside('systemctl is-system-running').stdout),
        BOOT_MS,
        100,
      );
    },
    powerOff: async () => {
      if (running === undefined) return;
      const { leader, child, ended } = running;
      spawnSync('kill', ['-s', SHUTDOWN.slice(3), String(leader)]);
      // One that does not end in time must not outlive the tests.
      const late = setTimeout(() => {
        process.kill(leader, 'SIGKILL');
        child.kill('SIGKILL');
      }, POWER_OFF_MS);
      await ended;
      clearTimeout(late);
      running = undefined;
    },
    run: (command) => {
      const { code, stdout, stderr } = inside(command);
      if (code !== 0) throw new Error(`${command}: ended with ${code}\n${stdout}${stderr}`);
      return stdout;
    },
    try: inside,
    put: (from, to) => {
      mkdirSync(dirname(join(dir, to)), { recursive: true });
      copyFileSync(from, join(dir, to));
    },
    write: (path, text) => {
      mkdirSync(dirname(join(dir, path)), { recursive: true });
      writeFileSync(join(dir, path), text);
    },
    read: (path) => readFileSync(join(dir, path), 'utf8'),
    unit: (name, ...properties) => {
      const lines = machine
        .run(`systemctl show ${name} ${properties.map((each) => `-p ${each}`).join(' ')}`)
        .split('\n');
      return Object.fromEntries(
        lines.map((line) => [line.split('=', 1)[0]!, line.slice(line.indexOf('=') + 1)]),
      ) as never;
    },
    journal: () =>
      execFileSync(
        'journalctl',
        ['--directory', join(dir, 'var/log/journal'), '--output', 'short-iso', '--no-pager'],
        {
          encoding: 'utf8',
          maxBuffer: 1 << 26,
        },
      ),
  };
  return machine;
}

async function start(dir: string, binds: Readonly<Record<string, string>>) {
  const bound = Object.entries(binds).map(([there, here]) => `--bind-ro=${here}:${there}`);
  const args = [
    '--directory',
    dir,
    '--register=no',
    '--keep-unit',
    '--private-network',
    '--link-journal=no',
    '--console=pipe',
    ...bound,
    '--boot',
  ];
  const child = spawn('systemd-nspawn', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text));
  let over = false;
  const ended = new Promise<void>((done) => child.on('close', () => done())).then(() => {
    over = true;
  });
  process.once('exit', () => child.kill('SIGKILL'));
  const children = `/proc/${child.pid}/task/${child.pid}/children`;
  const leader = await until('the first process of the machine', async () => {
    if (over) throw new Error(`systemd-nspawn ended:\n${said}`);
    // Its forerunners are children too, for a moment.
    const pids = readFileSync(children, 'utf8')
      .split(' ')
      .filter((pid) => pid !== '');
    return Number(pids.find((pid) => commandOf(pid) === 'systemd'));
  });
  return { child, leader, ended };
}

function commandOf(pid: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return undefined;
  }
}
