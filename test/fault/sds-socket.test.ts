import { execFile } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { testWhere } from '../support/peers';
import { IN_IMAGE } from '../support/program';
import { getSecret } from '../support/sds-client';
import { expectWell } from '../support/sds-daemon';
import { tempDir } from '../support/temp-dir';

/** Only root can become another user. */
const asRoot = testWhere(
  process.geteuid!() === 0,
  'root, to connect as another user (D18, D19)',
  'run the tests as root, e.g. in a container',
);

/** A group that the daemon can give its socket to; in the image it has one only, which is the tests' own here. */
const SHARED_GROUP = IN_IMAGE
  ? { theirs: 1337, ours: process.getegid!() }
  : { theirs: 4242, ours: 4242 };

/** What a process of that user and group gets by connecting: `connected` or the error's code. */
function connectAs(path: string, uid: number, gid: number): Promise<string> {
  const program = `
    process.chdir('/');
    process.setgroups([]); process.setgid(${gid}); process.setuid(${uid});
    const socket = require('node:net').connect(${JSON.stringify(path)}, () => { console.log('connected'); socket.destroy(); });
    socket.on('error', (error) => console.log(error.code));`;
  return new Promise((done, failed) => {
    execFile(process.execPath, ['-e', program], (error, stdout) =>
      error ? failed(error) : done(stdout.trim()),
    );
  });
}

/** A daemon whose socket lies where other users may go, but for its own mode. */
async function start(flags: readonly string[], through: readonly string[] = []): Promise<Daemon> {
  const dir = tempDir();
  const daemon = startDaemon({
    dir,
    flags: ['--sds-socket', join(dir, 's/socket'), ...flags],
    through,
  });
  await daemon.ready();
  chmodSync(dir, 0o755);
  return { ...daemon, sdsSocket: join(dir, 's/socket') };
}

const modeOf = (path: string) => (lstatSync(path).mode & 0o7777).toString(8);

asRoot('D18 a process of another user cannot connect', async () => {
  const daemon = await start([]);
  expect(await connectAs(daemon.sdsSocket, 1337, 1337)).toBe('EACCES');
  expect(await connectAs(daemon.sdsSocket, 0, 0)).toBe('connected');
  await daemon.stop();
});

asRoot(
  'D19 a proxy of another user connects through the group that it shares, and nobody else does',
  async () => {
    const daemon = await start([
      '--sds-socket-mode',
      '0660',
      '--sds-socket-group',
      `${SHARED_GROUP.theirs}`,
    ]);
    expect(await connectAs(daemon.sdsSocket, 1337, SHARED_GROUP.ours)).toBe('connected');
    expect(await connectAs(daemon.sdsSocket, 1337, 1337)).toBe('EACCES');
    await daemon.stop();
  },
);

test.each(['0000', '0077', '0777'])(
  'D20 under umask %s the mode of the socket is exact',
  async (umask) => {
    const under = ['/bin/sh', '-c', `umask ${umask} && exec "$@"`, 'sh'];
    const [closed, shared] = [
      await start([], under),
      await start(['--sds-socket-mode', '0660'], under),
    ];
    expect([modeOf(closed.sdsSocket), modeOf(shared.sdsSocket)]).toEqual(['600', '660']);
    for (const daemon of [closed, shared]) {
      await expectWell(daemon);
      await daemon.stop();
    }
  },
);

describe('D21 a socket that cannot be made is a fatal error that says why', () => {
  test.each<[string, (dir: string) => string, RegExp]>([
    [
      'a path of 108 bytes',
      (dir) => join(dir, 'x'.repeat(107 - Buffer.byteLength(dir))),
      /108 bytes.*107/,
    ],
    [
      'a regular file in its place',
      (dir) => made(join(dir, 'file'), (path) => writeFileSync(path, 'precious')),
      /a regular file/,
    ],
    ['a directory in its place', (dir) => made(join(dir, 'dir'), mkdirSync), /a directory/],
    [
      'a symbolic link in its place',
      (dir) => made(join(dir, 'link'), (path) => symlinkSync('/nowhere', path)),
      /a symbolic link/,
    ],
    [
      'a file where its directory should be',
      (dir) =>
        join(
          made(join(dir, 'file'), (path) => writeFileSync(path, '')),
          'socket',
        ),
      /directory/,
    ],
  ])('%s', async (_what, place, reason) => {
    const dir = tempDir();
    const path = place(dir);
    const before = existsSync(path) && lstatSync(path).ino;
    const { code, stderr } = await startDaemon({ dir, flags: ['--sds-socket', path] }).finished;
    expect(code).toBeGreaterThan(0);
    expect(stderr).toMatch(/ERR_SOCKET/);
    expect(stderr).toMatch(reason);
    expect(existsSync(path) && lstatSync(path).ino).toBe(before);
  });

  test('an unknown group', async () => {
    const { code, stderr } = await startDaemon({
      dir: tempDir(),
      flags: ['--sds-socket-group', 'no-such-group'],
    }).finished;
    expect(code).toBeGreaterThan(0);
    expect(stderr).toMatch(/no group no-such-group/);
  });
});

test('D21 a missing directory is made, and a path of 107 bytes works', async () => {
  const dir = tempDir();
  const parent = join(dir, 'a/b');
  const path = join(parent, 'x'.repeat(106 - Buffer.byteLength(parent)));
  expect(Buffer.byteLength(path)).toBe(107);
  const daemon = startDaemon({ dir, flags: ['--sds-socket', path] });
  await daemon.ready();
  expect((await getSecret(path)).name).toBe('default');
  expect(lstatSync(dirname(path)).isDirectory()).toBe(true);
  await daemon.stop();
  expect(existsSync(path)).toBe(false);
});

function made(path: string, make: (path: string) => void): string {
  make(path);
  return path;
}
