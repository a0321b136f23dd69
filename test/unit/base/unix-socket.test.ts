import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type Clock, systemClock } from '../../../agent/base/clock';
import { noLog } from '../../../agent/base/log';
import { listenUnix, type UnixListener } from '../../../agent/base/unix-socket';

const deps = { clock: systemClock, log: noLog };
const inAMinute: Clock = {
  now: () => Date.now() + 60_000,
  sleepUntil: (at, signal) => systemClock.sleepUntil(at - 60_000, signal),
  onJump: (listener) => systemClock.onJump(listener),
};
let dir: string;
let open: UnixListener[];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'keyturn-unix-'));
  open = [];
});
afterEach(async () => {
  for (const listener of open) await listener.close();
  rmSync(dir, { recursive: true, force: true });
});

async function listen(
  path: string,
  options: { mode?: number; owner?: string; group?: string; server?: Server } = {},
): Promise<UnixListener> {
  const server = options.server ?? saying('hello');
  const { mode = 0o600, owner, group } = options;
  const listener = await listenUnix(
    { path, mode, owner, group, what: 'test socket' },
    server,
    deps,
  );
  open.push(listener);
  return listener;
}

/** A server that says `text` to whoever connects. */
function saying(text: string): Server {
  return createServer((socket) => {
    socket.on('error', () => undefined); // whoever only probes has already gone
    socket.end(text);
  });
}

function answer(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(path);
    let text = '';
    socket.on('data', (data) => {
      text += data;
    });
    socket.on('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? 'error'));
    socket.on('end', () => resolve(text));
  });
}

/** A socket file whose process is gone, as SIGKILL leaves it. */
async function leaveDead(path: string): Promise<void> {
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)},()=>console.log('up'))`,
  ]);
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  expect(lstatSync(path).isSocket()).toBe(true);
}

describe('a Unix socket', () => {
  test('is made with its directories and answers', async () => {
    const path = join(dir, 'a/b/socket');
    await listen(path);
    expect(await answer(path)).toBe('hello');
    expect(lstatSync(join(dir, 'a')).mode & 0o777).toBe(0o755);
    expect(readdirSync(join(dir, 'a/b'))).toEqual(['socket']);
  });

  test.each([0o000, 0o022, 0o077])('D20 has its exact mode under umask %i', async (mask) => {
    const before = process.umask(mask);
    try {
      for (const mode of [0o600, 0o660, 0o666]) {
        const path = join(dir, `made/s${mode}`);
        await listen(path, { mode });
        expect(lstatSync(path).mode & 0o777).toBe(mode);
      }
    } finally {
      process.umask(before);
    }
    expect(lstatSync(join(dir, 'made')).mode & 0o777).toBe(0o755);
  });

  test('D20 is never open to any user but as it is to be, which another process looks for', async () => {
    const path = join(dir, 'socket');
    const watcher = spawn(process.execPath, [
      '-e',
      `const { lstatSync } = require('node:fs');
       const seen = new Set();
       const look = () => {
         const found = lstatSync(${JSON.stringify(path)}, { throwIfNoEntry: false });
         if (found) seen.add((found.mode & 0o777).toString(8));
       };
       console.log('up');
       while (lstatSync(${JSON.stringify(join(dir, 'end'))}, { throwIfNoEntry: false }) === undefined) look();
       look();
       console.log([...seen].join());`,
    ]);
    let said = '';
    watcher.stdout.on('data', (text) => {
      said += text;
    });
    await new Promise((resolve) => watcher.stdout.once('data', resolve));
    const before = process.umask(0);
    try {
      for (let round = 0; round < 100; round += 1)
        await (await listen(path, { mode: 0o640 })).close();
      // One to be seen at the end, however little the other process has run.
      await listen(path, { mode: 0o640 });
    } finally {
      process.umask(before);
    }
    writeFileSync(join(dir, 'end'), '');
    await new Promise((resolve) => watcher.once('close', resolve));
    // Before it has its mode it has none.
    expect(
      said
        .trim()
        .split('\n')[1]!
        .split(',')
        .filter((mode) => mode !== '0'),
    ).toEqual(['640']);
  });

  test('D21 has a path of 107 bytes at most, and at 107 still works', async () => {
    const longest = join(dir, 'x'.repeat(107 - dir.length - 1));
    await listen(longest);
    expect(await answer(longest)).toBe('hello');
    await expect(listen(`${longest}x`)).rejects.toMatchObject({
      code: 'ERR_SOCKET',
      hint: 'choose a shorter path',
    });
  });

  test('D21 never removes what is not a socket', async () => {
    const file = join(dir, 'file');
    writeFileSync(file, 'precious');
    const folder = join(dir, 'folder');
    mkdirSync(folder);
    const link = join(dir, 'link');
    await leaveDead(join(dir, 'dead'));
    symlinkSync(join(dir, 'dead'), link);
    for (const [path, kind] of [
      [file, 'a regular file'],
      [folder, 'a directory'],
      [link, 'a symbolic link'],
    ] as const) {
      await expect(listen(path)).rejects.toMatchObject({
        code: 'ERR_SOCKET',
        message: expect.stringContaining(`${path} is ${kind}`),
      });
      expect(existsSync(path)).toBe(true);
    }
    expect(readdirSync(dir).sort()).toEqual(['dead', 'file', 'folder', 'link']);
  });

  test('refuses a parent that is a file, naming it', async () => {
    writeFileSync(join(dir, 'file'), '');
    await expect(listen(join(dir, 'file/socket'))).rejects.toMatchObject({ code: 'ERR_SOCKET' });
  });

  test('G2 replaces one that a killed process left', async () => {
    const path = join(dir, 'socket');
    await leaveDead(path);
    await listen(path);
    expect(await answer(path)).toBe('hello');
    expect(readdirSync(dir)).toEqual(['socket']);
  });

  test('G3 of a living process is left untouched', async () => {
    const path = join(dir, 'socket');
    await listen(path);
    const before = lstatSync(path).ino;
    await expect(listen(path)).rejects.toMatchObject({
      code: 'ERR_SOCKET_IN_USE',
      message: expect.stringContaining(path),
    });
    expect(lstatSync(path).ino).toBe(before);
    expect(await answer(path)).toBe('hello');
    expect(readdirSync(dir)).toEqual(['socket']);
  });

  test('G3 goes to exactly one of many that start at once, dead socket or none', async () => {
    for (let round = 0; round < 20; round += 1) {
      const path = join(dir, `socket${round}`);
      if (round % 4 === 0) await leaveDead(path);
      const servers = Array.from({ length: 6 }, (_, index) => saying(String(index)));
      const outcomes = await Promise.allSettled(servers.map((server) => listen(path, { server })));
      const winners = outcomes.flatMap((outcome, index) =>
        outcome.status === 'fulfilled' ? [index] : [],
      );
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected')
          expect(outcome.reason).toMatchObject({ code: 'ERR_SOCKET_IN_USE' });
      }
      expect(await answer(path)).toBe(String(winners[0]));
      expect(readdirSync(dir).filter((name) => !/^socket\d+$/.test(name))).toEqual([]);
    }
  });

  test('G4 is not removed by a late closer whose path now belongs to another', async () => {
    const path = join(dir, 'socket');
    const old = await listen(path);
    await listen(`${path}.new`, { server: saying('new') });
    // In one step, for the old one binds again what is missing.
    renameSync(`${path}.new`, path);
    await old.close();
    expect(await answer(path)).toBe('new');
  });

  test('goes away when it is closed, also twice', async () => {
    const path = join(dir, 'socket');
    const listener = await listen(path);
    await listener.close();
    await listener.close();
    expect(readdirSync(dir)).toEqual([]);
  });

  test('clears what killed starters left: guards of guards', async () => {
    const path = join(dir, 'socket');
    for (const left of [path, `${path}.lock`, `${path}.lock.lock`]) await leaveDead(left);
    const server = createServer();
    open.push(
      await listenUnix({ path, mode: 0o600, what: 'test socket' }, server, {
        clock: inAMinute,
        log: noLog,
      }),
    );
    expect(readdirSync(dir)).toEqual(['socket']);
  });

  test('a guard that was left a moment ago only holds a start up', async () => {
    const path = join(dir, 'socket');
    await leaveDead(`${path}.lock`);
    await listen(path);
    expect(readdirSync(dir)).toEqual(['socket']);
  });

  test('waits while another process holds its guard, and starts once that has gone', async () => {
    const path = join(dir, 'socket');
    let asked = 0;
    const holder = createServer((socket) => {
      socket.on('error', () => undefined);
      asked += 1;
      if (asked === 3) holder.close();
    });
    await new Promise<void>((resolve) => holder.listen(`${path}.lock`, resolve));
    await listen(path);
    expect(asked).toBeGreaterThanOrEqual(3);
    expect(await answer(path)).toBe('hello');
    expect(readdirSync(dir)).toEqual(['socket']);
  });

  test('does not start where a file has the name of its guard, and says which', async () => {
    const path = join(dir, 'socket');
    writeFileSync(`${path}.lock`, 'precious');
    await expect(listen(path)).rejects.toMatchObject({
      code: 'ERR_SOCKET',
      message: `test socket ${path}: socket.lock: it is a regular file, not a socket`,
      hint: 'move it away or choose another path',
    });
    expect(readdirSync(dir)).toEqual(['socket.lock']);
  });

  test('a socket of ours that was killed before it got its mode is taken over', async () => {
    const path = join(dir, 'socket');
    await leaveDead(path);
    chmodSync(path, 0);
    await listen(path);
    expect(await answer(path)).toBe('hello');
  });

  test('belongs to the user that was asked for, which only root can give it to', async () => {
    const path = join(dir, 'socket');
    if (process.getuid?.() === 0) {
      await listen(path, { owner: '12345' });
      expect(lstatSync(path)).toMatchObject({ uid: 12_345, mode: expect.any(Number) });
      expect(lstatSync(path).mode & 0o777).toBe(0o600);
    } else {
      const hint = 'only root may do this; other users can share a group';
      await expect(listen(path, { owner: '12345' })).rejects.toMatchObject({
        code: 'ERR_SOCKET',
        hint,
      });
      expect(existsSync(path)).toBe(false);
    }
    await listen(join(dir, 'own'), { owner: String(process.getuid?.()) });
    await expect(listen(join(dir, 'other'), { owner: 'no-such-user' })).rejects.toMatchObject({
      code: 'ERR_SOCKET',
      message: expect.stringContaining('there is no user no-such-user'),
    });
  });

  test('belongs to the group that was asked for, by name or number', async () => {
    const own = process.getgid?.() ?? 0;
    await listen(join(dir, 'socket'), { mode: 0o660, group: String(own) });
    expect(lstatSync(join(dir, 'socket')).gid).toBe(own);
    await expect(listen(join(dir, 'other'), { group: 'no-such-group' })).rejects.toMatchObject({
      code: 'ERR_SOCKET',
      message: expect.stringContaining('there is no group no-such-group'),
    });
    expect(readdirSync(dir)).toEqual(['socket']);
  });
});
