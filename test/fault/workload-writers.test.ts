import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { readListText } from '../../agent/config/read-workloads';
import { testWhere } from '../support/peers';
import { FORM, programCommand } from '../support/program';
import { mayMount, mountSmallDisk, type SmallDisk } from '../support/small-disk';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';
import { identity, startWorkloads } from '../support/workload-list';

const mounted: SmallDisk[] = [];
afterEach(() => {
  for (const disk of mounted.splice(0)) disk.close();
});

/** A directory of workload files, below one that is nobody else's. */
function makeList(names: readonly string[], list = join(tempDir(), 'workloads')): string {
  mkdirSync(list, { recursive: true, mode: 0o755 });
  for (const name of names)
    writeFileSync(join(list, `${name}.yaml`), `${identity(name)}\n`, { mode: 0o644 });
  return list;
}

/** `good` or why not: of the list as a whole, or of each entry. */
async function judge(list: string): Promise<readonly string[] | string> {
  try {
    return (await (await readListText(list)).entries()).map((each) =>
      'error' in each ? each.error.message : 'good',
    );
  } catch (caught) {
    return (caught as Error).message;
  }
}

test('field 25 a file that others may write is refused by name, and the others are followed', async () => {
  const list = makeList(['cart', 'open', 'shared', 'till']);
  chmodSync(join(list, 'open.yaml'), 0o646);
  chmodSync(join(list, 'shared.yaml'), 0o664);
  const file = (name: string) =>
    `file ${join(list, `${name}.yaml`)}: other users can change it: ${join(list, `${name}.yaml`)}`;
  expect(await judge(list)).toEqual([
    'good',
    `${file('open')}: every user may write to it`,
    `${file('shared')}: its group ${process.getgid?.()} may write to it`,
    'good',
  ]);
});

test.each([
  ['all', 0o777, 'every user may write to it'],
  ['all, who keep their names', 0o1777, 'every user may write to it'],
  ['a group', 0o775, 'its group \\d+ may write to it'],
])(
  'field 25 a directory in which %s could put files is refused, whatever is in it',
  async (_, mode, because) => {
    const list = makeList(['cart']);
    chmodSync(list, mode);
    expect(await judge(list)).toMatch(
      new RegExp(`^workloads ${list}: other users can change it: ${list}: ${because}$`),
    );
  },
);

test('field 25 a directory on the path that others may write to is refused, unless each keeps its names there', async () => {
  const list = makeList(['cart'], join(tempDir(), 'etc', 'keyturn', 'workloads'));
  chmodSync(dirname(list), 0o1777);
  expect(await judge(list)).toEqual(['good']);
  chmodSync(dirname(list), 0o777);
  expect(await judge(list)).toMatch(`${dirname(list)}: every user may write to it`);
});

test('field 25 a link is judged by where it leads', async () => {
  const [list, elsewhere] = [makeList(['cart']), makeList(['till'], join(tempDir(), 'drop'))];
  symlinkSync(join(elsewhere, 'till.yaml'), join(list, 'till.yaml'));
  expect(await judge(list)).toEqual(['good', 'good']);
  chmodSync(elsewhere, 0o777);
  expect(await judge(list)).toEqual([
    'good',
    expect.stringMatching(/till\.yaml: other users .*drop: every user may write to it$/),
  ]);
});

testWhere(
  process.getuid?.() === 0,
  'root, to make files of other users',
  'run the tests as root, e.g. in a container',
)('field 25 what belongs to another user is refused, the file and the directory', async () => {
  const list = makeList(['cart', 'till']);
  chownSync(join(list, 'till.yaml'), 1337, 1337);
  expect(await judge(list)).toEqual([
    'good',
    expect.stringMatching(/till\.yaml: it belongs to user 1337$/),
  ]);
  chownSync(list, 1337, 1337);
  expect(await judge(list)).toMatch(/workloads: it belongs to user 1337$/);
});

testWhere(
  process.getuid?.() === 0 && mayMount(),
  'the right to mount a tmpfs',
  'run the tests as root, e.g. in a container',
).each([
  ['root', 0],
  ['user 1337', 1337],
])(
  'field 25 a read-only mount is followed whatever its modes say, as a ConfigMap has them: %s',
  async (_, uid) => {
    const disk = mountSmallDisk(256);
    mounted.push(disk);
    chmodSync(dirname(disk.dir), 0o755);
    const revision = makeList(['cart', 'till'], join(disk.dir, '..2026'));
    symlinkSync('..2026', join(disk.dir, '..data'));
    for (const name of ['cart', 'till']) {
      symlinkSync(join('..data', `${name}.yaml`), join(disk.dir, `${name}.yaml`));
      chmodSync(join(revision, `${name}.yaml`), 0o666);
    }
    // Written by a group that user 1337 is none of, too.
    chownSync(join(revision, 'till.yaml'), 0, 4_242);
    chmodSync(join(revision, 'till.yaml'), 0o664);
    for (const dir of [revision, disk.dir]) chmodSync(dir, 0o777);
    const shown = () => {
      const [program, ...args] = programCommand(FORM);
      const flags = ['config', 'show', '--ca', 'builtin', '--workloads', disk.dir];
      const { stdout, stderr } = spawnSync(program, [...args, ...flags], {
        uid,
        gid: uid,
        encoding: 'utf8',
        cwd: '/',
        env: {},
      });
      return stdout + stderr;
    };
    expect(shown()).toContain(
      `workloads ${disk.dir}: other users can change it: ${disk.dir}: every user may write to it`,
    );
    expect(spawnSync('mount', ['-o', 'remount,ro', disk.dir]).status).toBe(0);
    expect(shown()).not.toContain('other users');
    expect(shown()).toMatch(/^cart +spiffe:.*\ntill +spiffe:/m);
  },
);

test('field 25 a list that others may write to any more is not followed, and what runs goes on', async () => {
  const world = startWorkloads({ cart: [identity('cart')] });
  await world.becomes('cart', 'in service', ({ state }) => state === 'current');
  const list = join(world.dir, 'workloads');
  chmodSync(list, 0o777);
  world.put('intruder', identity('admin'));
  const told = await until('the refusal', async () => (await world.daemon.status()).refused?.[0]);
  expect(told).toMatchObject({
    file: 'workloads',
    inService: true,
    message: expect.stringMatching(/every user may write to it$/),
  });
  expect((await world.daemon.status()).workloads.map(({ name }) => name)).toEqual(['cart']);
  renameSync(join(list, 'intruder.yaml'), join(list, 'good.yaml'));
  chmodSync(list, 0o755);
  await world.becomes('good', 'in service', ({ state }) => state === 'current');
  expect((await world.daemon.status()).refused ?? []).toEqual([]);
});
