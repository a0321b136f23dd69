import { execFileSync, spawn } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Daemon } from '../support/daemon';
import { testWith } from '../support/peers';
import { createSdsClient, getSecret } from '../support/sds-client';
import { expectWell, leafSerial, rotate } from '../support/sds-daemon';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const SOCKETS = [
  ['sds socket', 'var/run/secrets/workload-spiffe-uds/socket'],
  ['control socket', 'var/run/keyturn/control.sock'],
] as const;

/** A socket of a process that is gone, as SIGKILL leaves it. */
async function leaveDead(path: string): Promise<void> {
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`,
  ]);
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
}

/** What tells one file from any other, also from a later one in the same inode. */
function print(path: string): string {
  const { ino, ctimeNs, mode } = lstatSync(path, { bigint: true });
  return `${ino} ${ctimeNs} ${mode.toString(8)}`;
}

/** How the kernel calls what the process listens on, which is where systemd-tmpfiles looks for living sockets. */
const names = (daemon: Daemon) =>
  new Set(
    readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .flatMap((line) => line.split(/\s+/)[7] ?? [])
      .filter((name) => name.includes(daemon.dir)),
  );

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

async function readiness(daemon: Daemon): Promise<string> {
  const { status, body } = await daemon.http('/healthz/ready');
  return `${status} ${body}`;
}

async function start(flags: readonly string[] = []): Promise<Daemon> {
  const daemon = testDaemon({ dir: tempDir(), flags });
  await daemon.ready();
  await daemon.event('admin server listening');
  return daemon;
}

testWith('systemd-tools')(
  'field 12 systemd-tmpfiles knows our sockets for living ones, and takes a dead one beside each',
  async () => {
    const daemon = await start();
    const paths = SOCKETS.map(([, path]) => join(daemon.dir, path));
    expect(names(daemon)).toEqual(new Set(paths));
    const config = join(tempDir(), 'tmpfiles.conf');
    writeFileSync(config, paths.map((path) => `d ${dirname(path)} 0755 root root 1s\n`).join(''));
    const dead = paths.map((path) => join(dirname(path), 'dead'));
    for (const path of dead) await leaveDead(path);
    const before = paths.map(print);
    await until('the dead sockets to go', async () => {
      execFileSync('systemd-tmpfiles', ['--clean', config]);
      return dead.every((path) => lstatSync(path, { throwIfNoEntry: false }) === undefined);
    });
    expect(paths.map(print)).toEqual(before);
    await expectWell(daemon);
    expect(daemon.events.filter(({ event }) => event.endsWith('bound again'))).toEqual([]);
    expect((await daemon.stop()).code).toBe(0);
  },
);

describe('field 12 the SDS socket and the control socket', () => {
  /** Does it with both, side by side. */
  const each = (daemon: Daemon, work: (path: string, what: string) => unknown) =>
    Promise.all(SOCKETS.map(async ([what, path]) => work(join(daemon.dir, path), what)));
  const unreached = (what: string) => `${what} cannot be reached by its path`;
  const ready = (daemon: Daemon) =>
    until('readiness', async () => (await readiness(daemon)).startsWith('200 '));
  const reached = (daemon: Daemon) =>
    each(daemon, (path, what) => until(`the ${what}`, () => answers(path)));

  /** Puts something in the place of a socket while the daemon stands still: it would bind it again. Returns its print. */
  function replace(daemon: Daemon, path: string, put: (path: string) => unknown): string {
    process.kill(daemon.pid, 'SIGSTOP');
    rmSync(path);
    put(path);
    process.kill(daemon.pid, 'SIGCONT');
    return print(path);
  }

  /** Nothing but what the test did to it is an error, and all of it passes. */
  async function expectEnd(daemon: Daemon): Promise<void> {
    await daemon.status();
    const sentences = SOCKETS.map(([what]) => unreached(what));
    expect(
      daemon.events.filter(({ level, event }) => level === 'error' && !sentences.includes(event)),
    ).toEqual([]);
    expect((await daemon.stop()).code).toBe(0);
  }

  test.each<readonly [string, (path: string) => unknown]>([
    ['were removed', unlinkSync],
    ['were removed with their directories', (path) => rmSync(dirname(path), { recursive: true })],
    [
      'gave way to dead ones',
      (path) => {
        rmSync(path);
        return leaveDead(path);
      },
    ],
    ['were moved away', (path) => renameSync(path, `${path}.moved`)],
  ])('that %s are bound again while open streams go on', async (_, lose) => {
    const daemon = await start(['--sds-socket-mode', '0640']);
    const client = createSdsClient(daemon.sdsSocket);
    const stream = client.openStream();
    stream.request(['default']);
    await stream.next();
    stream.ack();
    await each(daemon, async (path, what) => {
      const [before, mode] = [print(path), lstatSync(path).mode];
      await lose(path);
      await daemon.event(`${what} was removed and is bound again`);
      expect(print(path)).not.toBe(before);
      expect(lstatSync(path).mode).toBe(mode);
      expect(names(daemon)).toContain(path);
    });
    await reached(daemon);
    await ready(daemon);
    const serial = await rotate(daemon);
    expect(leafSerial((await stream.next()).secrets[0]!.chainPem)).toBe(serial);
    stream.ack();
    expect(leafSerial((await getSecret(daemon.sdsSocket)).chainPem)).toBe(serial);
    client.close();
    await expectEnd(daemon);
    await each(daemon, (path) =>
      expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined(),
    );
  });

  test.each<readonly [string, string, (path: string) => unknown]>([
    ['files', 'is a regular file, not a socket', (path) => writeFileSync(path, 'theirs')],
    ['directories', 'is a directory, not a socket', (path) => mkdirSync(path)],
    ['symbolic links', 'is a symbolic link, not a socket', (path) => symlinkSync('dead', path)],
  ])(
    'in whose places are %s make the agent unready and leave those alone',
    async (_, reason, put) => {
      const daemon = await start();
      await each(daemon, async (path, what) => {
        const theirs = replace(daemon, path, put);
        await daemon.event(unreached(what));
        expect(await readiness(daemon)).toMatch(new RegExp(`^503 [^]*${what} [^]*${reason}`));
        expect(print(path)).toBe(theirs);
        rmSync(path, { recursive: true });
      });
      await reached(daemon);
      await ready(daemon);
      const theirs = await each(daemon, (path) => replace(daemon, path, put));
      expect((await daemon.stop()).code).toBe(0);
      expect(await each(daemon, print)).toEqual(theirs);
    },
  );

  test('that another living process has taken make the agent unready until it has gone', async () => {
    const daemon = await start();
    await each(daemon, async (path, what) => {
      const rival = createServer((socket) => socket.destroy());
      await new Promise<void>((resolve) => rival.listen(`${path}.theirs`, resolve));
      renameSync(`${path}.theirs`, path);
      const theirs = print(path);
      await daemon.event(unreached(what));
      expect(await readiness(daemon)).toMatch(
        new RegExp(`^503 [^]*${what} [^]*a living process listens on it`),
      );
      expect(print(path)).toBe(theirs);
      rival.close();
    });
    await ready(daemon);
    await reached(daemon);
    await expectEnd(daemon);
  });
});

test.each<readonly [string, (dir: string) => unknown]>([
  ['were removed', (dir) => rmSync(join(dir, 'key.pem'))],
  ['were removed with their directory', (dir) => rmSync(dir, { recursive: true })],
  [
    'lost what their links lead to',
    (dir) => rmSync(realpathSync(join(dir, '..data')), { recursive: true }),
  ],
])('field 12 certificate files and state that %s are written again', async (_, lose) => {
  const daemon = await start(['--output-certs', 'certs', '--state-dir', 'state']);
  const dirs = [join(daemon.dir, 'certs'), join(daemon.dir, 'state')];
  const there = () =>
    dirs.every(
      (dir) => lstatSync(join(dir, 'key.pem'), { throwIfNoEntry: false }) && readKey(dir) !== '',
    );
  await until('the files', async () => there());
  const keys = dirs.map(readKey);
  for (const dir of dirs) lose(dir);
  await until('the files again', async () => there());
  expect(dirs.map(readKey)).toEqual(keys);
  await expectWell(daemon);
  await daemon.stop();
});

const readKey = (dir: string) => readFileSync(join(dir, 'key.pem'), 'utf8');
