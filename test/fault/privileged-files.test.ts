import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, expect } from '@jest/globals';
import { publishDir, unpublishDir } from '../../agent/base/atomic-dir';
import { systemClock } from '../../agent/base/clock';
import { noLog } from '../../agent/base/log';
import { listenUnix } from '../../agent/base/unix-socket';
import { type Daemon, runKeyturn } from '../support/daemon';
import { onFsStep, onSyncFsStep } from '../support/fs-steps';
import { testWhere } from '../support/peers';
import { IN_IMAGE } from '../support/program';
import { getSecret } from '../support/sds-client';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';
import { identity, startWorkloads } from '../support/workload-list';

const FULL = process.env.KEYTURN_TEST === 'full';

const asRoot = testWhere(
  process.geteuid!() === 0 && !IN_IMAGE,
  'root, to write where another user may too',
  'run the tests as root',
);

/** `nobody`, who may do with names in his directory what he wants. */
const OTHER = 65_534;

/** Who owns what below a directory, with which mode and content, and when it was written to last: something may come and go. */
function inventory(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .concat('.')
    .sort()
    .map((name) => {
      const found = lstatSync(join(dir, name));
      const content = found.isFile() ? readFileSync(join(dir, name), 'utf8') : '';
      return `${name} ${found.uid}:${found.gid} ${found.mode.toString(8)} ${found.mtimeMs} ${content}`;
    });
}

/** What is root's alone, as targets of links. */
function makeCanary(): string {
  const canary = tempDir();
  mkdirSync(join(canary, 'dir'), { mode: 0o700 });
  for (const name of ['secret', 'dir/secret'])
    writeFileSync(join(canary, name), 'only root', { mode: 0o600 });
  return canary;
}

/** A directory of `nobody`'s, in memory where that can be: what is written is synced each time. */
function makeHome(): string {
  const home = tempDir(existsSync('/dev/shm') ? '/dev/shm' : undefined);
  chownSync(home, OTHER, OTHER);
  return home;
}

/** In place of whatever has the name, a link; owned by the other user as it would be. */
function exchange(path: string, target: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })) renameSync(path, `${path}.away-${Math.random()}`);
  symlinkSync(target, path);
  lchownSync(path, OTHER, OTHER);
}

asRoot(
  'field E2 whichever step of making a socket another user exchanges names at, nothing else of root changes hands',
  async () => {
    const canary = makeCanary();
    const before = inventory(canary);
    for (const [name, exchanged, target] of [
      ['s.sock', 's.sock', 'secret'],
      ['s.sock', 's.sock.lock', 'secret'],
      ['sub/s.sock', 'sub', 'dir'],
      ['sub/s.sock', 'sub/s.sock', 'secret'],
      ['new/sub/s.sock', 'new', 'dir'],
    ] as const) {
      for (let [at, steps] = [1, 1]; at <= steps; at += 1) {
        const home = makeHome();
        if (name.startsWith('sub')) mkdirSync(join(home, 'sub'));
        const end = onSyncFsStep((_, step) => {
          steps = Math.max(steps, step);
          if (step === at) exchangeIfThere(home, exchanged, join(canary, target));
        });
        const options = {
          path: join(home, name),
          mode: 0o666,
          owner: String(OTHER),
          what: 'test socket',
        };
        const listening = await listenUnix(options, createServer(), {
          clock: systemClock,
          log: noLog,
        }).catch(() => undefined);
        end();
        await listening?.close();
        expect([name, exchanged, at, inventory(canary)]).toEqual([name, exchanged, at, before]);
      }
    }
  },
);

/** Some names are not there before some step; their directory always is. */
function exchangeIfThere(home: string, name: string, target: string): void {
  if (lstatSync(dirname(join(home, name)), { throwIfNoEntry: false }))
    exchange(join(home, name), target);
}

asRoot(
  'field E2 whichever step of writing files another user exchanges names at, nothing else of root changes hands',
  async () => {
    const canary = makeCanary();
    const before = inventory(canary);
    const files = [{ name: 'key.pem', bytes: Buffer.from('key'), mode: 0o600 }];
    for (const exchanged of ['certs', 'certs/..data', 'certs/key.pem', 'certs/VERSION']) {
      for (let [at, steps] = [1, 1]; at <= steps; at += 1) {
        const home = makeHome();
        const dir = join(home, 'certs');
        await publishDir(dir, files);
        const now = () => {
          // The newest version, of which its maker has not told anybody yet.
          const versions = readdirSync(dir).filter((name) => /^\.\.\d{4}.*[0-9a-f]$/.test(name));
          const name =
            exchanged === 'certs/VERSION' ? `certs/${versions.sort().at(-1)}` : exchanged;
          exchangeIfThere(
            home,
            name,
            join(canary, exchanged === 'certs/key.pem' ? 'secret' : 'dir'),
          );
        };
        let step = 0;
        const next = () => {
          step += 1;
          steps = Math.max(steps, step);
          if (step === at) now();
        };
        const ends = [onSyncFsStep(next), await onFsStep(next)];
        await publishDir(dir, files).catch(() => undefined);
        await unpublishDir(dir).catch(() => undefined);
        for (const end of ends) end();
        expect([exchanged, at, inventory(canary)]).toEqual([exchanged, at, before]);
      }
    }
  },
);

/**
 * As another user, exchanges what has a name in `home` for a link to what is not his, gives it back or leaves it, and begins again, until it
 * is killed. Says how many it has exchanged when it is told to stop.
 */
const EXCHANGE = `
  const { mkdirSync, readdirSync, renameSync, symlinkSync, unlinkSync } = require('node:fs');
  const [home, canary, count, uid] = process.argv.slice(1);
  process.chdir(home);
  process.setgroups([]); process.setgid(+uid); process.setuid(+uid);
  let exchanged = 0, running = true;
  const attempt = (work) => { try { work(); return true; } catch { return false; } };
  const names = (n) => ['w' + n + '.sock', 'w' + n + '.sock.lock', 'certs-' + n, 'sub-' + n, 'sub-' + n + '/s.sock', 'certs-' + n + '/..data'];
  process.stdin.on('data', () => { running = false; });
  process.stdin.on('end', () => process.exit(0));
  function round() {
    const end = Date.now() + 20;
    while (Date.now() < end) {
      const n = Math.floor(Math.random() * count);
      for (const name of Math.random() < 0.8 ? ['w' + n + '.sock'] : names(n)) {
        const away = 'away-' + exchanged;
        if (!attempt(() => renameSync(name, away))) continue;
        const target = name.startsWith('w') || name.includes('/s') ? canary + '/secret' : canary + '/dir';
        if (!attempt(() => symlinkSync(target, name))) continue;
        exchanged += 1;
        for (let spin = 0; spin < 500; spin += 1);
        attempt(() => unlinkSync(name));
        if (Math.random() < 0.95) attempt(() => renameSync(away, name));
      }
      if (Math.random() < 0.002) attempt(() => { symlinkSync(canary + '/dir', 'sub-' + n); exchanged += 1; });
      if (Math.random() < 0.002) attempt(() => { symlinkSync(canary + '/dir', 'certs-' + n); exchanged += 1; });
      if (Math.random() < 0.002) attempt(() => { symlinkSync(canary + '/secret', 'w' + n + '.sock'); exchanged += 1; });
    }
    if (running) setImmediate(round); else { console.log(exchanged); process.exit(0); }
  }
  console.log('up');
  round();`;

/** Workloads of one agent, each with a socket and a directory of files. */
const AT_ONCE = 50;

asRoot(
  `field E2 in ${FULL ? '10,000' : '500'} tries, who owns the directory of sockets and certificate files gets nothing else of root's`,
  async () => {
    const canary = makeCanary();
    const before = inventory(canary);
    let [exchanged, served] = [0, 0];
    for (let tries = 0; tries < (FULL ? 10_000 : 500); tries += 2 * AT_ONCE) {
      const home = makeHome();
      const rival = spawn(process.execPath, [
        '-e',
        EXCHANGE,
        home,
        canary,
        String(AT_ONCE),
        String(OTHER),
      ]);
      let said = '';
      rival.stdout.on('data', (text) => {
        said += text;
      });
      await new Promise((resolve) => rival.stdout.once('data', resolve));
      const files = Array.from({ length: AT_ONCE }, (_, n) => [
        `w${n}`,
        [
          identity(`w${n}`),
          `sds-socket: ${join(home, n % 2 === 0 ? `w${n}.sock` : `sub-${n}/s.sock`)}`,
          `sds-socket-owner: "${OTHER}"`,
          'sds-socket-mode: "0666"',
          `output-certs: ${join(home, `certs-${n}`)}`,
        ],
      ]);
      const { daemon } = startWorkloads(Object.fromEntries(files));
      // Each has been tried: it serves, or was refused because of what its path led to.
      const tried = () =>
        new Set(
          daemon.events
            .filter(({ event }) => /^workload (started|invalid)/.test(event))
            .map((each) => each.workload),
        );
      await until('all workloads', async () => tried().size >= AT_ONCE);
      served += daemon.events.filter(({ event }) => event === 'workload started').length;
      await daemon.stop();
      rival.stdin.write('stop');
      await new Promise((resolve) => rival.once('close', resolve));
      exchanged += Number(said.trim().split('\n')[1]);
      expect(inventory(canary)).toEqual(before);
    }
    expect(exchanged).toBeGreaterThan(100);
    expect(served).toBeGreaterThan(0);
  },
);

/** Directories in which another user may exchange names, and what is said of them. */
const UNSAFE: readonly (readonly [string, (dir: string) => string, RegExp])[] = [
  ['that every user may write to', (dir) => make(dir, 0, 0o777), /every user may write to it/],
  ['that its group may write to', (dir) => make(dir, 0, 0o775), /its group 0 may write to it/],
  ['of another user', (dir) => make(dir, OTHER, 0o755), /it belongs to user 65534/],
  [
    'behind a link of another user, where all may make names',
    (dir) => {
      make(dir, 0, 0o755);
      exchange(`${dir}-link`, dir);
      return `${dir}-link`;
    },
    /the symbolic link unsafe-link in it belongs to user 65534/,
  ],
];

function make(dir: string, uid: number, mode: number): string {
  mkdirSync(dir);
  chownSync(dir, uid, 0);
  chmodSync(dir, mode);
  return dir;
}

const RUN = [
  'run',
  '--ca',
  'builtin',
  '--admin-address',
  '127.0.0.1:0',
  '--spiffe-id',
  'spiffe://example.org/ns/shop/sa/cart',
];
const SERVE = [
  'ca',
  'serve',
  '--trust-domain',
  'example.org',
  '--listen',
  '127.0.0.1:0',
  '--admin-address',
  '127.0.0.1:0',
];
const BUNDLE = [
  'vm',
  'bundle',
  '--spiffe-id',
  'spiffe://example.org/db',
  '--ca-address',
  'ca.example.org:15012',
];

/** Everything that we write to, by the command that does, with the exit code of its refusal. */
const WRITERS: readonly (readonly [string, (dir: string) => readonly string[], number])[] = [
  ['the SDS socket', (dir) => [...RUN, '--sds-socket', `${dir}/sub/s.sock`], 71],
  ['the control socket', (dir) => [...RUN, '--control-socket', `${dir}/c.sock`], 71],
  ['certificate files', (dir) => [...RUN, '--output-certs', `${dir}/sub/certs`], 73],
  ['the state directory', (dir) => [...RUN, '--state-dir', `${dir}/state`], 73],
  ['the CA directory', (dir) => [...RUN, '--ca-dir', `${dir}/ca`], 78],
  ['the CA directory of ca serve', (dir) => [...SERVE, '--ca-dir', `${dir}/ca`], 78],
  ['the audit log', (dir) => [...SERVE, '--audit-log', `${dir}/audit.log`], 78],
  ['a new CA', (dir) => ['ca', 'init', '--ca-dir', `${dir}/sub/ca`], 78],
  [
    'a key',
    (dir) => [
      'csr',
      'create',
      '--spiffe-id',
      'spiffe://example.org/x',
      '--key-out',
      `${dir}/key.pem`,
    ],
    73,
  ],
  ['a join file', (dir) => [...BUNDLE, '--out', `${dir}/db.join`], 73],
];

describe.each(UNSAFE.map((each, index) => [...each, index] as const))(
  'field E2 in a directory %s',
  (_, unsafe, because, index) => {
    // Each in one kind of directory at least; in all of them, in the full run.
    asRoot.each(WRITERS.filter((_, at) => FULL || at % UNSAFE.length === index))(
      'root refuses to put %s there, with a remedy, and makes nothing',
      async (_what, args, code) => {
        const parent = tempDir();
        chmodSync(parent, 0o1777);
        const dir = unsafe(join(parent, 'unsafe'));
        const before = inventory(dir);
        const ended = await runKeyturn(args(dir), { dir: tempDir() });
        expect(ended.stderr).toMatch(because);
        expect(ended.stderr).toContain('other users can exchange names in');
        expect(ended.stderr).toMatch(/hint|chmod|chown|give the path without the link/);
        expect(inventory(dir)).toEqual(before);
        expect(ended.code).toBe(code);
      },
    );
  },
);

/** The daemon in a tmpfs of its own with mode 0777, as an emptyDir of Kubernetes is, whose path is that of the directory. */
function inOpenMemory(dir: string, uid: number, flags: readonly string[]): Daemon {
  const memory = join(dir, 'memory');
  mkdirSync(memory);
  const become =
    uid === 0
      ? ''
      : `setpriv --no-new-privs --clear-groups unshare --user --map-user=${uid} --map-group=${uid}`;
  const mount = `mount -t tmpfs -o mode=0777 tmpfs "$0" && exec ${become} "$@"`;
  const through = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', mount, memory];
  return testDaemon({ dir, flags, through });
}

asRoot(
  'field E2 in a tmpfs of mode 0777 an agent without privileges works, with a warning',
  async () => {
    const dir = tempDir();
    const socket = join(dir, 'memory/s.sock');
    const daemon = inOpenMemory(dir, 1337, [
      '--sds-socket',
      socket,
      '--output-certs',
      join(dir, 'memory/certs'),
    ]);
    await daemon.ready();
    const warned = await daemon.event('other users can exchange the sds socket');
    expect(warned).toMatchObject({
      level: 'warn',
      dir: join(dir, 'memory'),
      because: 'every user may write to it',
    });
    expect((await getSecret(`/proc/${daemon.pid}/root${socket}`)).chainPem).toContain(
      'BEGIN CERTIFICATE',
    );
    await daemon.event('certificate files written');
    expect((await daemon.stop()).code).toBe(0);
  },
);

asRoot('field E2 in a tmpfs of mode 0777 root refuses', async () => {
  const dir = tempDir();
  const { code, stderr } = await inOpenMemory(dir, 0, ['--sds-socket', join(dir, 'memory/s.sock')])
    .finished;
  expect(stderr).toContain(
    `other users can exchange names in ${join(dir, 'memory')}: every user may write to it`,
  );
  expect(stderr).toContain(`chmod go-w ${join(dir, 'memory')}`);
  expect(code).toBe(71);
});

asRoot.each<readonly [string, (path: string) => void, RegExp]>([
  [
    'a link of another user',
    (path) => exchange(path, '/etc/hostname'),
    /it is a symbolic link of user 65534/,
  ],
  [
    'a file of another user',
    (path) => {
      writeFileSync(path, '');
      chownSync(path, OTHER, OTHER);
    },
    /it is a file of user 65534/,
  ],
])(
  'field E2 where all may make names, root appends to no audit log that is %s',
  async (_, plant, because) => {
    const shared = tempDir();
    chmodSync(shared, 0o1777);
    const path = join(shared, 'audit.log');
    plant(path);
    const before = inventory(shared);
    const { code, stderr } = await runKeyturn([...SERVE, '--audit-log', path], { dir: tempDir() });
    expect(stderr).toMatch(because);
    expect(code).toBe(78);
    expect(inventory(shared)).toEqual(before);
  },
);

asRoot('field E2 inject writes through no link that another user could exchange', async () => {
  const canary = makeCanary();
  const pod =
    'kind: Pod\napiVersion: v1\nmetadata: { name: a }\nspec: { containers: [{ name: a, image: a }] }\n';
  writeFileSync(join(canary, 'secret'), pod, { mode: 0o600 });
  const before = inventory(canary);
  const home = makeHome();
  // One of the other user's own, and one that root has made in his directory.
  exchange(join(home, 'his.yaml'), join(canary, 'secret'));
  symlinkSync(join(canary, 'secret'), join(home, 'roots.yaml'));
  for (const name of ['his.yaml', 'roots.yaml']) {
    const { code, stderr } = await runKeyturn(['inject', '--in-place', '-f', join(home, name)], {
      dir: home,
    });
    expect([code, stderr, inventory(canary)]).toEqual([
      73,
      expect.stringContaining(`the symbolic link ${name} in it`),
      before,
    ]);
  }
});
