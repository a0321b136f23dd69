import {
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { openFileStore } from '../../../../agent/authority/store/file-store';
import type { CaStore, IssuedReading, Revocation } from '../../../../agent/authority/store/store';
import type { Clock } from '../../../../agent/base/clock';
import { Secret } from '../../../../agent/base/secret';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import { issuedEntry, tokenClaim } from '../../../support/ca-store';
import { HOUR_MS, TEST_ID, TEST_NOW } from '../../../support/certs';
import { bundle, start } from '../../../support/child';
import { onFsStep } from '../../../support/fs-steps';
import { REPLICA_AT_ONCE, replicaProgram, startReplica } from '../../../support/store-replica';
import { tempDir } from '../../../support/temp-dir';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';

const ID = parseSpiffeId(TEST_ID);
const DAY_MS = 24 * HOUR_MS;
const FULL = process.env.KEYTURN_TEST === 'full';

const opened: CaStore[] = [];
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});

async function open(dir: string, deps = testDeps({ clock: new TestClock() })): Promise<CaStore> {
  const store = await openFileStore(dir, deps);
  opened.push(store);
  return store;
}

/** Stands at TEST_NOW and waits for nobody. */
const stopped: Clock = {
  now: () => TEST_NOW,
  sleepUntil: async () => undefined,
  onJump: () => () => undefined,
};

const serials = async (store: CaStore) =>
  (await store.issued({}, TEST_NOW)).map(({ serial }) => serial).sort();
const segmentsOf = (dir: string) =>
  readdirSync(join(dir, 'state/issued')).map((name) => join(dir, 'state/issued', name));
const makeOld = (dir: string) => {
  for (const path of segmentsOf(dir))
    utimesSync(path, new Date(TEST_NOW - DAY_MS), new Date(TEST_NOW - DAY_MS));
};

function below(dir: string): string[] {
  return [
    dir,
    ...readdirSync(dir, { withFileTypes: true }).flatMap((each) => {
      const path = join(dir, each.name);
      return each.isDirectory() ? below(path) : [path];
    }),
  ];
}

describe('the register', () => {
  test('keeps what was entered over a restart, and finds it by serial, identity, signer and root', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const entries = [
      issuedEntry(),
      issuedEntry({ id: 'spiffe://cluster.local/ns/shop/sa/till' }),
      issuedEntry({ issuerKeyId: 'cc'.repeat(20), rootKeySha256: 'dd'.repeat(32) }),
    ];
    await Promise.all(entries.map((entry) => store.recordIssued(entry)));
    const again = await open(dir);
    expect(await serials(again)).toEqual(entries.map(({ serial }) => serial).sort());
    expect(await again.issued({ serial: entries[0]!.serial }, TEST_NOW)).toEqual([entries[0]]);
    expect(await again.issued({ id: 'spiffe://cluster.local/ns/shop/sa/till' }, TEST_NOW)).toEqual([
      entries[1],
    ]);
    expect(await again.issued({ issuerKeyId: 'cc'.repeat(20) }, TEST_NOW)).toEqual([entries[2]]);
    expect(await again.issued({ rootKeySha256: 'dd'.repeat(32), id: TEST_ID }, TEST_NOW)).toEqual([
      entries[2],
    ]);
    expect(await again.issued({}, TEST_NOW + HOUR_MS)).toEqual([]);
  });

  test('is read on from where an earlier reading ended, in all segments, and anew where one of them went', async () => {
    const dir = tempDir();
    const [store, another] = [await open(dir), await open(dir)];
    const enter = (by: CaStore, serial: string) => by.recordIssued(issuedEntry({ serial }));
    const since = async (end?: IssuedReading['end']) => {
      const read = await store.issuedSince({ id: TEST_ID }, TEST_NOW, end);
      return { ...read, entries: read.entries.map(({ serial }) => serial).sort() };
    };
    await enter(store, 'aa');
    const first = await since();
    expect(first).toMatchObject({ entries: ['aa'], isWhole: true });
    await enter(store, 'bb');
    await enter(another, 'cc');
    const second = await since(first.end);
    expect(second).toMatchObject({ entries: ['bb', 'cc'], isWhole: false });
    expect(await since(second.end)).toMatchObject({ entries: [], isWhole: false });
    renameSync(segmentsOf(dir)[0]!, join(dir, 'state/issued', `${'0'.repeat(32)}.log`));
    expect(await since(second.end)).toMatchObject({ entries: ['aa', 'bb', 'cc'], isWhole: true });
  });

  test('shares one fsync among those who wait', async () => {
    const store = await open(tempDir());
    let syncs = 0;
    const undo = await onFsStep((name) => {
      if (name === 'sync') syncs += 1;
    });
    await Promise.all(Array.from({ length: 2_000 }, () => store.recordIssued(issuedEntry())));
    undo();
    expect(await serials(store)).toHaveLength(2_000);
    expect(syncs).toBeLessThan(10);
  });

  test('is open to nobody else, whatever the umask', async () => {
    const before = process.umask(0o000);
    const dir = tempDir();
    try {
      const store = await open(dir);
      await store.recordIssued(issuedEntry());
      await store.createJoinToken(ID, 60, TEST_NOW);
      await store.revoke({}, 'keyCompromise', TEST_NOW);
    } finally {
      process.umask(before);
    }
    const modes = below(join(dir, 'state')).map((path) => [
      statSync(path).isDirectory(),
      statSync(path).mode & 0o777,
    ]);
    expect(modes.filter(([directory, mode]) => mode !== (directory ? 0o700 : 0o600))).toEqual([]);
    expect(modes.filter(([directory]) => !directory)).toHaveLength(3);
  });

  test('drops an end that was cut anywhere, says so, and keeps all that was acknowledged', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const first = issuedEntry();
    await store.recordIssued(first);
    const [path] = segmentsOf(dir);
    const whole = statSync(path!).size;
    await store.recordIssued(issuedEntry());
    const bytes = readFileSync(path!);
    for (let length = whole + 2; length < bytes.length; length += FULL ? 1 : 17) {
      const copy = tempDir();
      await (await open(copy)).recordIssued(issuedEntry());
      const [segment] = segmentsOf(copy);
      writeFileSync(segment!, bytes.subarray(0, length));
      const deps = testDeps({ clock: stopped });
      expect(await serials(await open(copy, deps))).toEqual([first.serial]);
      expect(deps.events).toMatchObject([
        { level: 'warn', facts: { path: segment, offset: whole + 1 } },
      ]);
      // It is mended, not just passed over.
      const later = testDeps({ clock: stopped });
      expect(await serials(await open(copy, later))).toEqual([first.serial]);
      expect(later.events).toEqual([]);
    }
  });

  test('leaves a line alone that a living writer is in the middle of', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const entry = issuedEntry();
    await store.recordIssued(entry);
    const [path] = segmentsOf(dir);
    const bytes = readFileSync(path!);
    truncateSync(path!, bytes.length - 9);
    const finish: Clock = { ...stopped, sleepUntil: async () => writeFileSync(path!, bytes) };
    const deps = testDeps({ clock: finish });
    expect(await serials(await open(dir, deps))).toEqual([entry.serial]);
    expect([segmentsOf(dir), deps.events]).toEqual([[path], []]);
  });

  test('refuses to start with damage before a good entry, naming file and byte; a damaged byte never changes an entry', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const entries = Array.from({ length: 4 }, () => issuedEntry());
    const offsets: number[] = [];
    for (const entry of entries) {
      offsets.push(segmentsOf(dir).map((path) => statSync(path).size)[0] ?? 0);
      await store.recordIssued(entry);
    }
    await store.close();
    const [path] = segmentsOf(dir);
    const good = readFileSync(path!);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(good.length - 1),
        fc.integer({ min: 1, max: 255 }),
        async (at, flip) => {
          const bytes = Buffer.from(good);
          bytes[at]! ^= flip;
          writeFileSync(path!, bytes);
          const batch = offsets.findLastIndex((offset) => offset <= at);
          const found = await openFileStore(dir, testDeps({ clock: stopped })).catch(
            (error) => error,
          );
          if (batch < 3) {
            // A batch begins with a newline, which may be what is damaged.
            const places = [offsets[batch]!, offsets[batch]! + 1].map(
              (offset) => `read ${path}: damaged at byte ${offset}`,
            );
            expect(found).toMatchObject({ code: 'ERR_CA_STATE' });
            expect(places).toContain(found.message);
          } else {
            expect(await found.issued({}, TEST_NOW)).toEqual(entries.slice(0, 3));
            for (const segment of segmentsOf(dir)) rmSync(segment);
            writeFileSync(path!, good);
          }
        },
      ),
      { numRuns: FULL ? 1_000 : 150 },
    );
  });

  test('forgets what has expired when it is tidied up, also what another process holds open, and loses nothing else', async () => {
    const dir = tempDir();
    const [writer, sweeper] = [await open(dir), await open(dir)];
    const kept: string[] = [];
    for (let round = 0; round < 20; round += 1) {
      const valid = issuedEntry();
      kept.push(valid.serial);
      // What is under way while the segment is taken away must come through too.
      const under = [
        writer.recordIssued(issuedEntry({ notAfterAt: TEST_NOW - 1 })),
        writer.recordIssued(issuedEntry({ notAfterAt: TEST_NOW - 1 })),
        writer.recordIssued(valid),
      ];
      makeOld(dir);
      await Promise.all([...under, sweeper.sweep(TEST_NOW), sweeper.issued({}, TEST_NOW)]);
      makeOld(dir);
      await sweeper.sweep(TEST_NOW);
    }
    await writer.recordIssued(issuedEntry({ notAfterAt: TEST_NOW - 1 }));
    expect(await serials(sweeper)).toEqual(kept.sort());
    makeOld(dir);
    await sweeper.sweep(TEST_NOW + 2 * HOUR_MS);
    expect(await sweeper.issued({}, 0)).toEqual([]);
    expect(segmentsOf(dir)).toEqual([]);
  });
});

describe('a full or failing disk', () => {
  const fail = (code: string) => Object.assign(new Error(`${code}: no`), { code });

  test.each(['open', 'writeFile', 'sync', 'stat', 'chmod'])(
    'that fails in %s refuses the entry, and nothing is written behind a half one',
    async (call) => {
      const dir = tempDir();
      const store = await open(dir);
      const kept = [issuedEntry(), issuedEntry()];
      // With a segment in use for the calls of each entry, without one for the calls that make one.
      if (call === 'writeFile' || call === 'sync') await store.recordIssued(kept[0]!);
      const undo = await onFsStep((name) => {
        if (name === call) throw fail('ENOSPC');
      });
      await expect(store.recordIssued(issuedEntry())).rejects.toMatchObject({
        code: 'ERR_CA_STATE',
        retry: 'soon',
        hint: 'free some space on its file system',
      });
      undo();
      await store.recordIssued(kept[1]!);
      const again = await open(dir);
      const found = await serials(again);
      expect(found).toEqual(expect.arrayContaining([kept[1]!.serial]));
      expect(found.length).toBeLessThanOrEqual(2);
    },
  );

  test('makes no join token', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const undo = await onFsStep((name) => {
      if (name === 'writeFile') throw fail('ENOSPC');
    });
    await expect(store.createJoinToken(ID, 60, TEST_NOW)).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
    });
    undo();
    expect(readdirSync(join(dir, 'state/tokens'))).toEqual([]);
  });
});

describe('a join token', () => {
  test('is good for one key, for its identity, until it expires, and only its hash is on disk', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const token = await store.createJoinToken(ID, 60, TEST_NOW);
    const late = await store.createJoinToken(ID, 60, TEST_NOW);
    const redeem = (each: Secret<string>, now: number) =>
      store.redeemJoinToken(each, tokenClaim(), now);
    expect(await redeem(late, TEST_NOW + 60_000)).toEqual({ kind: 'refused', why: 'expired' });
    expect(await redeem(token, TEST_NOW + 59_999)).toEqual({ kind: 'redeemed', id: ID, again: 0 });
    expect(await redeem(token, TEST_NOW)).toEqual({ kind: 'refused', why: 'another key' });
    expect(await redeem(new Secret(`kt1_${'A'.repeat(43)}`), TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'unknown',
    });
    expect(await redeem(new Secret('../../ca-key.pem'), TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'malformed',
    });
    for (const path of below(dir).filter((each) => statSync(each).isFile())) {
      for (const each of [token, late])
        expect(`${path} ${readFileSync(path, 'utf8')}`).not.toContain(each.reveal().slice(4));
    }
    await store.sweep(TEST_NOW + 2 * DAY_MS);
    expect(
      readdirSync(join(dir, 'state/tokens')).concat(readdirSync(join(dir, 'state/token-uses'))),
    ).toEqual([]);
    expect(await redeem(token, TEST_NOW)).toEqual({ kind: 'refused', why: 'unknown' });
  });

  test('field A6 is answered again for its key alone, five times in ten minutes, over a restart and among replicas', async () => {
    const dir = tempDir();
    const [one, two] = [await open(dir), await open(dir)];
    const token = await one.createJoinToken(ID, 3_600, TEST_NOW);
    const mine = () => tokenClaim('ab'.repeat(32));
    expect(await one.findJoinToken(token, mine(), TEST_NOW)).toEqual({ kind: 'good', id: ID });
    expect(await one.redeemJoinToken(token, mine(), TEST_NOW)).toEqual({
      kind: 'redeemed',
      id: ID,
      again: 0,
    });
    expect(await two.redeemJoinToken(token, mine(), TEST_NOW + 599_000)).toEqual({
      kind: 'redeemed',
      id: ID,
      again: 1,
    });
    expect(await one.redeemJoinToken(token, mine(), TEST_NOW + 600_000)).toEqual({
      kind: 'refused',
      why: 'used',
    });
    expect(await one.redeemJoinToken(token, tokenClaim(), TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'another key',
    });
    await one.close();
    const again = await open(dir);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, at) =>
        [two, again][at % 2]!.redeemJoinToken(token, mine(), TEST_NOW),
      ),
    );
    expect(
      answers.flatMap((each) => (each.kind === 'redeemed' ? [each.again] : [])).sort(),
    ).toEqual([2, 3, 4, 5]);
    expect(await again.findJoinToken(token, mine(), TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'used',
    });
    expect(await again.findJoinToken(token, tokenClaim(), TEST_NOW + HOUR_MS)).toEqual({
      kind: 'refused',
      why: 'another key',
    });
  });

  test('field B5 is free again where nothing was signed, but not once another call has redeemed it', async () => {
    const store = await open(tempDir());
    const token = await store.createJoinToken(ID, 60, TEST_NOW);
    const [first, other] = [tokenClaim(), tokenClaim()];
    await store.redeemJoinToken(token, first, TEST_NOW);
    await store.giveBackJoinToken(token, other);
    expect(await store.redeemJoinToken(token, other, TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'another key',
    });
    await store.giveBackJoinToken(token, first);
    expect(await store.redeemJoinToken(token, other, TEST_NOW)).toEqual({
      kind: 'redeemed',
      id: ID,
      again: 0,
    });
    await store.redeemJoinToken(token, { ...other, by: 'a later call' }, TEST_NOW);
    await store.giveBackJoinToken(token, other);
    expect(await store.redeemJoinToken(token, first, TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'another key',
    });
  });

  test.each<[string, (store: CaStore, token: Secret<string>, serial: string) => Promise<unknown>]>([
    ['it is deleted', (store, token) => store.deleteJoinTokens({ token }, TEST_NOW)],
    [
      'the tokens of its identity are deleted',
      (store) => store.deleteJoinTokens({ id: TEST_ID }, TEST_NOW),
    ],
    [
      'the certificate that it led to is revoked',
      (store, _, serial) => store.revoke({ serial }, 'keyCompromise', TEST_NOW),
    ],
    [
      'its identity is revoked',
      (store) => store.revoke({ id: TEST_ID }, 'keyCompromise', TEST_NOW),
    ],
  ])('field A6 is never answered again once %s', async (_, close) => {
    const store = await open(tempDir());
    const [token, other] = [
      await store.createJoinToken(ID, 60, TEST_NOW),
      await store.createJoinToken(parseSpiffeId(`${TEST_ID}-2`), 60, TEST_NOW),
    ];
    const mine = tokenClaim();
    await store.redeemJoinToken(token, mine, TEST_NOW);
    await store.redeemJoinToken(other, mine, TEST_NOW);
    const entry = issuedEntry({ keySha256: mine.keySha256 });
    await store.recordIssued(entry);
    await close(store, token, entry.serial);
    expect(await store.redeemJoinToken(token, mine, TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'deleted',
    });
    expect(await store.findJoinToken(token, mine, TEST_NOW)).toEqual({
      kind: 'refused',
      why: 'deleted',
    });
    expect(await store.redeemJoinToken(other, mine, TEST_NOW)).toMatchObject({ kind: 'redeemed' });
  });

  test('is won by one of a hundred who show it at once to two stores', async () => {
    const dir = tempDir();
    const stores = [await open(dir), await open(dir)];
    const token = await stores[0]!.createJoinToken(ID, 60, TEST_NOW);
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        stores[index % 2]!.redeemJoinToken(token, tokenClaim(), TEST_NOW),
      ),
    );
    expect(answers.filter(({ kind }) => kind === 'redeemed')).toHaveLength(1);
  });

  test('is won by one of several processes, and what they enter at once is all there', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const tokens = await Promise.all(
      Array.from({ length: 40 }, () => store.createJoinToken(ID, 60, TEST_NOW)),
    );
    const program = bundle(`
      import { systemClock } from './agent/base/clock';
      import { noLog } from './agent/base/log';
      import { noMetrics } from './agent/base/metrics';
      import { Secret } from './agent/base/secret';
      import { openFileStore } from './agent/authority/store/file-store';
      async function main() {
        const [dir, entries, tokens] = [process.argv[2]!, JSON.parse(process.argv[3]!), process.argv[4]!.split(',')];
        const store = await openFileStore(dir, { clock: systemClock, random: Math.random, log: noLog, metrics: noMetrics });
        const [won] = await Promise.all([
          Promise.all(tokens.map(async (token) => ((await store.redeemJoinToken(new Secret(token), { keySha256: String(process.pid), by: token }, ${TEST_NOW})).kind === 'redeemed' ? token : ''))),
          ...entries.map((entry: never) => store.recordIssued(entry)),
        ]);
        const numbers = [];
        for (let round = 0; round < 10; round += 1) numbers.push(await store.nextCrlNumber());
        process.stdout.write(JSON.stringify({ won: won.filter(Boolean), numbers }));
        await store.close();
      }
      void main();
    `);
    const entries = Array.from({ length: 4 }, () =>
      Array.from({ length: 50 }, () => issuedEntry()),
    );
    const texts = tokens.map((token) => token.reveal()).join();
    const exits = await Promise.all(
      entries.map((own) => start(program, [dir, JSON.stringify(own), texts]).exited),
    );
    const answers = exits.map(
      ({ stdout, stderr }) => JSON.parse(stdout || stderr) as { won: string[]; numbers: number[] },
    );
    expect(answers.flatMap(({ won }) => won).sort()).toEqual(texts.split(',').sort());
    expect(await serials(store)).toEqual(
      entries
        .flat()
        .map(({ serial }) => serial)
        .sort(),
    );
    for (const { numbers } of answers)
      expect(numbers).toEqual([...numbers].sort((one, other) => one - other));
    const numbers = answers.flatMap((answer) => answer.numbers);
    expect(new Set(numbers).size).toBe(40);
    expect(await store.nextCrlNumber()).toBeGreaterThan(Math.max(...numbers));
  });
});

describe('a revocation', () => {
  test('takes all certificates of an identity, once, and is kept until they have expired', async () => {
    const dir = tempDir();
    const store = await open(dir);
    const [one, two, other] = [
      issuedEntry(),
      issuedEntry({ notAfterAt: TEST_NOW + 2 * HOUR_MS }),
      issuedEntry({ id: 'spiffe://cluster.local/ns/shop/sa/till' }),
    ];
    for (const entry of [one, two, other]) await store.recordIssued(entry);
    const revoked = await store.revoke({ id: TEST_ID }, 'keyCompromise', TEST_NOW);
    expect(revoked.map(({ serial }) => serial).sort()).toEqual([one.serial, two.serial].sort());
    expect(await store.revoke({ id: TEST_ID }, 'superseded', TEST_NOW)).toEqual([]);
    const again = await open(dir);
    const bySerial = (a: Revocation, b: Revocation) => (a.serial < b.serial ? -1 : 1);
    expect([...(await again.revocations(TEST_NOW))].sort(bySerial)).toEqual(
      [...revoked].sort(bySerial),
    );
    expect(revoked[0]).toMatchObject({
      id: TEST_ID,
      issuerKeyId: one.issuerKeyId,
      revokedAt: TEST_NOW,
      reason: 'keyCompromise',
    });
    expect((await again.revocations(TEST_NOW + HOUR_MS)).map(({ serial }) => serial)).toEqual([
      two.serial,
    ]);
    await again.sweep(TEST_NOW + HOUR_MS);
    expect(readdirSync(join(dir, 'state/revoked'))).toEqual([two.serial]);
  });

  test('is told to a running server when another process makes it', async () => {
    const dir = tempDir();
    const [server, command] = [await open(dir, testDeps()), await open(dir, testDeps())];
    await command.recordIssued(issuedEntry());
    let calls = 0;
    let told = () => {};
    const call = () => new Promise<void>((done) => (told = done));
    const watching = call();
    server.onRevocation(() => {
      calls += 1;
      told();
    });
    await watching;
    expect([calls, await server.revocations(TEST_NOW)]).toEqual([1, []]);
    const second = call();
    await command.revoke({}, 'unspecified', TEST_NOW);
    await second;
    expect(await server.revocations(TEST_NOW)).toHaveLength(1);
  });
});

test('death before any file operation loses nothing that was promised and promises nothing twice', async () => {
  let steps = 0;
  for (let dieAt = 1; dieAt < 500; dieAt += FULL ? 1 : 2) {
    const dir = tempDir();
    const before = await open(dir);
    const old = issuedEntry({ notAfterAt: TEST_NOW - 1 });
    await before.recordIssued(old);
    const [token, spare] = [
      await before.createJoinToken(ID, 60, TEST_NOW),
      await before.createJoinToken(ID, 60, TEST_NOW),
    ];
    makeOld(dir);
    const done: string[] = [];
    let dead = false;
    const [one, two] = [issuedEntry(), issuedEntry({ id: 'spiffe://cluster.local/x' })];
    let dying: CaStore | undefined;
    let newToken: Secret<string> | undefined;
    let number = 0;
    const undo = await onFsStep((name, step) => {
      steps = step;
      // Death closes every file.
      if (step >= dieAt && name !== 'close') {
        dead = true;
        throw Object.assign(new Error('killed'), { code: 'EKILLED' });
      }
    });
    try {
      const store = await openFileStore(dir, testDeps({ clock: new TestClock() }));
      dying = store;
      await store.recordIssued(one);
      done.push('one');
      if ((await store.redeemJoinToken(token, tokenClaim(), TEST_NOW)).kind === 'redeemed')
        done.push('redeemed');
      newToken = await store.createJoinToken(ID, 60, TEST_NOW);
      await store.revoke({ serial: one.serial }, 'keyCompromise', TEST_NOW);
      done.push('revoked');
      number = await store.nextCrlNumber();
      await store.sweep(TEST_NOW);
      await store.recordIssued(two);
      done.push('two');
      await store.close();
    } catch (caught) {
      if (!dead) throw caught;
    } finally {
      undo();
      await dying?.close();
    }
    const after = await open(dir);
    const found = await serials(after);
    if (done.includes('one')) expect(found).toContain(one.serial);
    if (done.includes('two')) expect(found).toContain(two.serial);
    const wins = [
      await after.redeemJoinToken(token, tokenClaim(), TEST_NOW),
      await after.redeemJoinToken(token, tokenClaim(), TEST_NOW),
    ];
    expect(wins.filter(({ kind }) => kind === 'redeemed').length).toBeLessThanOrEqual(
      done.includes('redeemed') ? 0 : 1,
    );
    expect(await after.redeemJoinToken(spare, tokenClaim(), TEST_NOW)).toMatchObject({
      kind: 'redeemed',
    });
    if (newToken)
      expect(await after.redeemJoinToken(newToken, tokenClaim(), TEST_NOW)).toMatchObject({
        kind: 'redeemed',
      });
    if (done.includes('revoked')) expect(await after.revocations(TEST_NOW)).toHaveLength(1);
    expect(await after.nextCrlNumber()).toBeGreaterThan(number);
    if (!dead) break;
  }
  expect(steps).toBeGreaterThan(60);
});

test('of three processes on one directory one is killed under load, again and again: a token is won once and nothing is lost', async () => {
  const program = bundle(
    replicaProgram(
      `import { openFileStore } from './agent/authority/store/file-store';`,
      `const store = await openFileStore(argument, deps);`,
    ),
  );
  for (let round = 0; round < (FULL ? 20 : 2); round += 1) {
    const dir = tempDir();
    const store = await open(dir);
    const tokens = await Promise.all(
      Array.from({ length: 60 }, () => store.createJoinToken(ID, 60, TEST_NOW)),
    );
    const texts = tokens.map((token) => token.reveal());
    const replicas = [0, 1, 2].map((turn) =>
      startReplica(program, dir, [...texts.slice(turn * 9), ...texts.slice(0, turn * 9)]),
    );
    await Promise.all(replicas.map((each) => each.seen('ready', 1)));
    for (const each of replicas) each.go();
    const [victim, ...others] = replicas;
    await victim!.seen('entered', 50 + 37 * round);
    await victim!.kill();
    await Promise.all(others.map((each) => each.seen('entered', 500)));
    expect(await Promise.all(others.map((each) => each.stop()))).toEqual([0, 0]);
    const said = (word: string) => replicas.flatMap((each) => each.said(word));
    const won = said('redeemed');
    expect(new Set(won).size).toBe(won.length);
    expect(won.length).toBeGreaterThanOrEqual(texts.length - 1);
    const again = await open(dir);
    for (const token of tokens)
      expect(await again.redeemJoinToken(token, tokenClaim(), TEST_NOW)).toEqual({
        kind: 'refused',
        why: 'another key',
      });
    const found = await serials(again);
    const lost = new Set(said('entered'));
    for (const serial of found) lost.delete(serial);
    expect([...lost]).toEqual([]);
    expect(found.length - said('entered').length).toBeLessThanOrEqual(REPLICA_AT_ONCE);
    expect(new Set(said('number')).size).toBe(said('number').length);
  }
});
