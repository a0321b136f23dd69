import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { type AuditEntry, openAuditLog } from '../../../../agent/authority/server/audit-log';
import { tempDir } from '../../../support/temp-dir';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';
import { until } from '../../../support/until';

const ENTRY: AuditEntry = {
  event: undefined,
  decision: 'issued',
  caller: 'spiffe://cluster.local/ns/shop/sa/cart',
  method: 'oidc',
  proof: undefined,
  requested: undefined,
  serial: '01',
  keySha256: 'aa',
  notAfter: '2026-01-02T00:00:00.000Z',
  status: 'OK',
  reason: undefined,
  peer: '127.0.0.1:1',
};

const lines = (path: string) => readFileSync(path, 'utf8').split('\n').filter(Boolean);
const nobody = async () => undefined;

async function open(options: { maxBytes?: number; keep?: number; path?: string } = {}) {
  const path = options.path ?? join(tempDir(), 'audit.jsonl');
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const log = await openAuditLog({ ...options, path }, nobody, deps);
  return { path, log, clock, events: deps.events };
}

test('a decision is one line of JSON, in a file for its owner alone', async () => {
  const { path, log } = await open();
  await log.write(ENTRY);
  await log.write({ ...ENTRY, decision: 'refused', reason: 'two\nlines' });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(lines(path).map((line) => JSON.parse(line))).toMatchObject([
    { time: '2026-01-01T00:00:00.000Z', decision: 'issued', serial: '01', peer: '127.0.0.1:1' },
    { decision: 'refused', reason: 'two\nlines' },
  ]);
  await log.close();
});

test('many decisions at once are all there, in order', async () => {
  const { path, log } = await open();
  await Promise.all(
    Array.from({ length: 1_000 }, (_, each) => log.write({ ...ENTRY, serial: String(each) })),
  );
  expect(lines(path).map((line) => JSON.parse(line).serial)).toEqual(
    Array.from({ length: 1_000 }, (_, each) => String(each)),
  );
  await log.close();
});

test('a full file is put aside, the oldest goes, and no line is torn', async () => {
  const { path, log } = await open({ maxBytes: 2_000, keep: 2 });
  for (let each = 0; each < 40; each += 1) await log.write({ ...ENTRY, serial: String(each) });
  const kept = [`${path}.2`, `${path}.1`, path]
    .flatMap(lines)
    .map((line) => Number(JSON.parse(line).serial));
  expect(kept.at(-1)).toBe(39);
  expect(kept).toEqual(kept.map((_, index) => kept[0]! + index));
  expect(existsSync(`${path}.3`)).toBe(false);
  expect(statSync(`${path}.1`).size).toBeLessThanOrEqual(2_000);
  await log.close();
});

test('a file that somebody else puts aside is made anew', async () => {
  const { path, log, clock } = await open();
  await log.write(ENTRY);
  renameSync(path, `${path}.old`);
  await clock.advanceBy(1_000);
  await log.write({ ...ENTRY, serial: '02' });
  expect(lines(`${path}.old`)).toHaveLength(1);
  expect(lines(path)).toHaveLength(1);
  await log.close();
});

test('a line that was torn by a full disk is ended before the next one', async () => {
  const { path, log } = await open();
  await log.close();
  appendFileSync(path, '{"torn":');
  const again = await open({ path });
  await again.log.write(ENTRY);
  expect(lines(path)).toHaveLength(2);
  expect(JSON.parse(lines(path)[1]!)).toMatchObject({ serial: '01' });
  await again.log.close();
});

test('B10 a log that cannot be written is told once, keeps failing, and recovers', async () => {
  const dir = tempDir();
  const path = join(dir, 'log', 'audit.jsonl');
  mkdirSync(join(dir, 'log'));
  const { log, clock, events } = await open({ path });
  await log.write(ENTRY);
  renameSync(join(dir, 'log'), join(dir, 'gone'));
  await clock.advanceBy(1_000);
  for (let each = 0; each < 3; each += 1)
    await expect(log.write(ENTRY)).rejects.toMatchObject({ code: 'ERR_OUTPUT', retry: 'soon' });
  await expect(log.probe()).rejects.toMatchObject({ code: 'ERR_OUTPUT', retry: 'soon' });
  expect(log.problem()).toMatchObject({ code: 'ERR_OUTPUT' });
  expect(events.filter(({ level }) => level === 'error')).toHaveLength(1);
  mkdirSync(join(dir, 'log'));
  await log.write(ENTRY);
  await log.probe();
  expect(log.problem()).toBeUndefined();
  expect(lines(path).map((line) => JSON.parse(line))).toMatchObject([
    { decision: 'issued' },
    { event: 'audit-log-resumed', since: '2026-01-01T00:00:01.000Z' },
  ]);
  await log.close();
});

test('field B2 a log that could not be written is written again without a decision', async () => {
  const dir = tempDir();
  const path = join(dir, 'log', 'audit.jsonl');
  mkdirSync(join(dir, 'log'));
  const { log, clock, events } = await open({ path });
  renameSync(join(dir, 'log'), join(dir, 'gone'));
  await clock.advanceBy(1_000);
  await expect(log.probe()).rejects.toMatchObject({ code: 'ERR_OUTPUT' });
  await clock.advanceBy(60_000);
  expect(log.problem()).toMatchObject({ code: 'ERR_OUTPUT' });
  mkdirSync(join(dir, 'log'));
  await clock.advanceBy(12_000);
  await until('the end of the trouble', async () => log.problem() === undefined);
  expect(events.map(({ event }) => event)).toEqual([
    'audit log write failed, refusing to issue',
    'audit log writes recovered',
  ]);
  expect(JSON.parse(lines(path)[0]!)).toMatchObject({
    event: 'audit-log-resumed',
    since: '2026-01-01T00:00:01.000Z',
  });
  await log.close();
});

test('what cannot be opened is refused at the start', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'file'), '');
  chmodSync(join(dir, 'file'), 0o600);
  await expect(open({ path: join(dir, 'file', 'audit.jsonl') })).rejects.toMatchObject({
    code: 'ERR_CONFIG',
    field: '--audit-log',
  });
});

test('without a file, lines go where the program says', async () => {
  const written: string[] = [];
  const log = await openAuditLog(
    { path: undefined },
    async (line) => void written.push(line),
    testDeps(),
  );
  await log.write(ENTRY);
  expect(JSON.parse(written.join(''))).toMatchObject({ serial: '01' });
  await log.close();
});
