import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../agent/config/load';
import { readListText } from '../../agent/config/read-workloads';
import { MAX_WORKLOADS } from '../../agent/config/workload-list';
import { runKeyturn } from '../support/daemon';
import { underLoad } from '../support/load';
import { tempDir } from '../support/temp-dir';
import { identity, startWorkloads } from '../support/workload-list';

/** What a list says: the names of good entries, and the errors of the others. */
async function read(place: string) {
  const { judgeWorkload } = await loadConfig({
    flags: { ca: 'builtin', workloads: place },
    env: {},
    cwd: '/nonexistent',
  });
  const entries = await (await readListText(place)).entries();
  const judged = entries.map((entry) => ('error' in entry ? entry.error : judgeWorkload(entry)));
  return judged.map((each) => (each instanceof Error ? each.message : 'good'));
}

function file(text: string | Uint8Array, name = 'list.yaml'): string {
  const path = join(tempDir(), name);
  writeFileSync(path, text);
  return path;
}

const element = (name: string) => `- {name: ${name}, namespace: shop, service-account: ${name}}\n`;

describe('a list of workloads that is wrong as a whole is refused in words that name it', () => {
  test.each([
    ['nothing', '', /must be a list of workloads, \[\] for none$/],
    ['a mapping', 'name: cart\n', /line 1: must be a list of workloads/],
    [
      '10,000 elements',
      Array.from({ length: 10_000 }, (_, index) => `- name: w${index}\n`).join(''),
      /must not have more than 1000 workloads, it has 10000$/,
    ],
    [
      'half a megabyte and an octet',
      Buffer.alloc(512 * 1024 + 1, 0x23),
      /must not be larger than 524288 bytes/,
    ],
    [
      'an alias bomb',
      `- &a [x,x]\n${Array.from({ length: 30 }, () => '- &b [*a,*a,*a,*a]\n').join('')}`,
      /element \d+: must be a mapping of settings to values$/,
    ],
    [
      'signs without end',
      '[{'.repeat(100_000),
      /must not have more than 150000 words and signs|is nested too deeply/,
    ],
    ['no YAML', '- name: [\n', /is not YAML/],
    ['no UTF-8', Buffer.from([0x2d, 0x20, 0xff]), /must be UTF-8/],
  ])('%s', async (_, text, message) => {
    const begun = Date.now();
    const outcome = await read(file(text)).catch((caught: Error) => [caught.message]);
    expect(Date.now() - begun).toBeLessThan(underLoad(5_000));
    for (const each of outcome) expect(each).toMatch(message);
  });
});

test('an element that is wrong is refused by field, and the others are good', async () => {
  const text = [
    element('cart'),
    '- name: Cart\n',
    `- name: ${'x'.repeat(200_000)}\n`,
    '- name: ../../etc\n',
    '- plain\n',
    '- namespace: shop\n',
    '- {name: a, admin-address: 0.0.0.0:1}\n',
    '- {name: b, ttl: 1h, ttl: 2h}\n',
    '- {name: c, ttl: &x 1h}\n',
    '- {name: d, ca-header: "x-token=secret-value\\u0001"}\n',
    `- {name: e, ${'k'.repeat(1_000)}: x}\n`,
    element('till'),
  ].join('');
  const path = file(text);
  const at = (number: number) => `file ${path} element ${number}`;
  const messages = await read(path);
  const naming =
    'must be at most 63 lower-case letters, digits, "-", "_" and ".", no sign at either end';
  expect(messages).toEqual([
    'good',
    `${at(2)}: name: "Cart" ${naming}`,
    `${at(3)}: name: "${'x'.repeat(57)}..." ${naming}`,
    `${at(4)}: name: "../../etc" ${naming}`,
    `${at(5)}: must be a mapping of settings to values`,
    `${at(6)}: name: is required`,
    `workload a: file ${path}: a: admin-address: is for the whole process, not for one workload`,
    `file ${path} line 8: "ttl" is given twice`,
    `file ${path} line 9: ttl: anchors and tags are not allowed`,
    `workload d: file ${path}: d: ca-header: must be name=value in printable ASCII`,
    `workload e: file ${path}: e: ${'k'.repeat(100)}: is not a setting`,
    'good',
  ]);
});

test('of a directory only files are read that are files, none is waited for, and each is refused for itself', async () => {
  const dir = tempDir();
  const put = (name: string, text: string | Uint8Array) => writeFileSync(join(dir, name), text);
  put('good.yaml', 'namespace: shop\nservice-account: good\n');
  put('large.yaml', Buffer.alloc(32 * 1024 + 1, 0x23));
  put('Upper.yaml', 'namespace: shop\nservice-account: upper\n');
  put('other.yml', 'name: another\nnamespace: shop\nservice-account: other\n');
  for (const name of ['.hidden.yaml', 'note.txt', 'good.yaml~', 'good.yaml.bak', '..data'])
    put(name, 'not: ours\n');
  execFileSync('mkfifo', [join(dir, 'fifo.yaml')]);
  mkdirSync(join(dir, 'dir.yaml'));
  symlinkSync('/dev/zero', join(dir, 'zero.yaml'));
  symlinkSync('loop.yaml', join(dir, 'loop.yaml'));
  symlinkSync('nowhere', join(dir, 'nowhere.yaml'));
  symlinkSync(join(dir, 'good.yaml'), join(dir, 'link.yaml'));
  expect((await read(dir)).map((each) => each.replaceAll(`${dir}/`, ''))).toEqual([
    'file Upper.yaml: name: "Upper" must be at most 63 lower-case letters, digits, "-", "_" and ".", no sign at either end',
    'file dir.yaml: must be a regular file (dir.yaml)',
    'file fifo.yaml: must be a regular file (fifo.yaml)',
    'good',
    'file large.yaml: must not be larger than 32768 bytes (large.yaml)',
    'good',
    expect.stringMatching(/^read loop\.yaml: ELOOP/),
    'read nowhere.yaml: there is no such file',
    'good',
    'file zero.yaml: must be a regular file (zero.yaml)',
  ]);
});

test('a directory with more files than workloads may run is refused as a whole', async () => {
  const dir = tempDir();
  for (let count = 0; count <= MAX_WORKLOADS; count += 1)
    writeFileSync(join(dir, `w${count}.yaml`), '');
  await expect(read(dir)).rejects.toThrow(
    `workloads ${dir}: must not have more than 1000 workloads, it has 1001`,
  );
});

test.each([
  ['a place that is not there', 'nowhere', /workloads nowhere: there is no such file or directory/],
  ['a file that is no list', 'text', /file text line 1: must be a list of workloads/],
])('the agent does not start on %s', async (_, place, message) => {
  const dir = tempDir();
  writeFileSync(join(dir, 'text'), 'text');
  const { code, stderr } = await runKeyturn(
    ['run', '--ca', 'builtin', '--workloads', place, '--admin-address', '127.0.0.1:0'],
    { dir },
  );
  expect({ code, stderr }).toEqual({ code: 78, stderr: expect.stringMatching(message) });
});

test('while it runs, a directory that goes bad takes nothing away', async () => {
  const world = startWorkloads({ cart: [identity('cart')], till: [identity('till')] });
  await world.daemon.ready();
  for (let count = 0; count <= MAX_WORKLOADS; count += 1)
    writeFileSync(join(world.dir, 'workloads', `w${count}.yaml`), 'x');
  const refused = await world.daemon.event('workload list invalid, keeping the running workloads');
  expect(refused.cause).toMatch(/must not have more than 1000 workloads/);
  const { workloads, ready, refused: told } = await world.daemon.status();
  expect({ names: workloads.map(({ name }) => name), ready }).toEqual({
    names: ['cart', 'till'],
    ready: true,
  });
  expect(told).toMatchObject([{ file: 'workloads', inService: true }]);
  expect(
    world.daemon.events.filter(({ event }) => event.startsWith('workload list invalid')),
  ).toHaveLength(1);
});

test('a file that nobody may read is told as what it is', async () => {
  const path = file(element('cart'));
  chmodSync(path, 0o000);
  const outcome = await read(path).catch((caught: Error) => caught.message);
  // Root reads it all the same.
  expect(outcome).toEqual(process.getuid?.() === 0 ? ['good'] : expect.stringMatching(/EACCES/));
});
