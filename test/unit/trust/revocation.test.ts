import { generateKeyPairSync } from 'node:crypto';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { writePem } from '../../../agent/base/pem';
import { RECONCILE_INTERVAL_MS } from '../../../agent/base/reconcile-loop';
import { firstValue, WatchedSource } from '../../../agent/base/watched';
import { acceptCrls, type CrlSigners } from '../../../agent/identity/accept-crls';
import { certificatesPem, parseCertificate } from '../../../agent/identity/certificate';
import { type CrlSet, createCrl, MAX_CRL_FILE_BYTES } from '../../../agent/identity/crl';
import { generateKeyPair, keyPairOf } from '../../../agent/identity/keys';
import { proxyObstacle } from '../../../agent/identity/proxy-check';
import { createTrustBundle, type TrustBundle } from '../../../agent/identity/trust-bundle';
import { followRevocation, type Revocation } from '../../../agent/trust/revocation';
import { HOUR_MS, issueLeaf, makeTestCa, TEST_NOW, type TestCa } from '../../support/certs';
import { cpuMs } from '../../support/load';
import { outcome, outcomeOf } from '../../support/outcome';
import { BAD_ENTRIES, BAD_LISTS, listsPem, makeList } from '../../support/proxy-sets';
import { serialsOf as serialsOfList } from '../../support/revoked-serials';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface ListFields {
  readonly number?: number;
  readonly at?: number;
  readonly serials?: readonly string[];
  readonly lifeMs?: number;
}

function listOf(
  ca: TestCa,
  { number = 1, at = TEST_NOW, serials = [], lifeMs = 4 * HOUR_MS }: ListFields = {},
): Buffer {
  const revoked = serials.map((serial) => Buffer.from(serial, 'hex'));
  return listsPem([makeList(ca, { number, thisUpdateAt: at, nextUpdateAt: at + lifeMs, revoked })]);
}

const serialsOf = (set: CrlSet | undefined) => set?.lists.flatMap(serialsOfList);

describe('lists are accepted', () => {
  test('of roots, and of intermediates whose certificates come with them; of nobody else', async () => {
    const [root, stranger] = [await makeTestCa(), await makeTestCa({ name: 'stranger' })];
    const [below, other] = [
      await makeTestCa({ parent: root, name: 'below' }),
      await makeTestCa({ parent: stranger, name: 'other' }),
    ];
    const file = [
      listOf(root, { serials: ['0a'] }),
      listOf(below, { serials: ['0b'] }),
      listOf(stranger),
      listOf(other),
    ];
    const certificates = certificatesPem(
      [below, other, stranger].map(({ certificateDer }) => certificateDer),
    );
    const { set, skipped } = await acceptCrls(
      Buffer.concat([...file, certificates]),
      'crl',
      { bundle: root.bundle, chainDer: [] },
      TEST_NOW,
    );
    expect(serialsOf(set)).toEqual(['0a', '0b']);
    expect(set.pem).toEqual(Buffer.concat(file.slice(0, 2)));
    expect(skipped).toEqual([
      'crl: list of O=cluster.local, CN=stranger: must be signed by a CA of the trust bundle or of the served chain',
      'crl: list of O=cluster.local, CN=other: must be signed by a CA of the trust bundle or of the served chain',
    ]);
  });

  test('field A3: of an intermediate whose certificate is in the served chain alone, and one bad list leaves the others', async () => {
    const root = await makeTestCa();
    const int = await makeTestCa({ parent: root });
    const signers = { bundle: root.bundle, chainDer: int.intermediatesDer };
    const at = { thisUpdateAt: TEST_NOW, nextUpdateAt: TEST_NOW + HOUR_MS };
    const good = await acceptCrls(
      listsPem([makeList(root, at), makeList(int, at)]),
      'crl',
      signers,
      TEST_NOW,
    );
    expect([good.set.lists.length, good.skipped]).toEqual([2, []]);
    for (const [name, options] of Object.entries({ ...BAD_LISTS, ...BAD_ENTRIES })) {
      const bad = makeList(int, { ...at, ...options });
      const fresh = await acceptCrls(listsPem([makeList(root, at), bad]), 'crl', signers, TEST_NOW);
      expect([name, fresh.set.lists.map(({ issuer }) => issuer)]).toEqual([
        name,
        ['O=cluster.local, CN=root'],
      ]);
      expect(fresh.unusable).toEqual([
        expect.stringMatching(/^crl: list of O=cluster.local, CN=intermediate: must not have the /),
      ]);
      // Where a good one of the same signer is in use, it stays.
      const kept = await acceptCrls(
        listsPem([makeList(root, at), bad]),
        'crl',
        signers,
        TEST_NOW,
        good.set,
      );
      expect([kept.set.lists[1], kept.unusable]).toEqual([good.set.lists[1], fresh.unusable]);
    }
  });

  test('field E5: of sixty CAs of one name and dear keys no more are asked than a budget allows, and a list of the root counts beside them', async () => {
    const root = await makeTestCa();
    const dear = () => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;
    const { subjectDer } = parseCertificate(root.certificateDer);
    const top = await makeTestCa({ subjectDer, noKeyIds: true, privateKey: dear() });
    const cas = [top];
    while (cas.length < 60)
      cas.push(
        await makeTestCa({ subjectDer, noKeyIds: true, privateKey: dear(), parent: cas.at(-1)! }),
      );
    const at = { thisUpdateAt: TEST_NOW, nextUpdateAt: TEST_NOW + HOUR_MS };
    const foreign = makeList(await makeTestCa({ subjectDer, noKeyIds: true }), at);
    const file = Buffer.concat([
      listsPem([foreign, makeList(root, at)]),
      certificatesPem(cas.map(({ certificateDer }) => certificateDer)),
    ]);
    const before = cpuMs();
    const { set, skipped } = await acceptCrls(
      file,
      'crl',
      { bundle: root.bundle, chainDer: [] },
      TEST_NOW,
    );
    // 60 x 60 signatures of 1.4 ms would be five seconds.
    expect(cpuMs() - before).toBeLessThan(2_000);
    expect([set.lists.length, skipped.length]).toEqual([1, 1]);
  });

  test('the signature of a list in use is verified once: before it is served nobody hashes it again', async () => {
    const root = await makeTestCa();
    const at = { thisUpdateAt: TEST_NOW, nextUpdateAt: TEST_NOW + HOUR_MS };
    const { set } = await acceptCrls(
      listsPem([makeList(root, at)]),
      'crl',
      { bundle: root.bundle, chainDer: [] },
      TEST_NOW,
    );
    const leaf = issueLeaf(root, { key: await generateKeyPair('ecdsa-p256') });
    const [chain, roots] = [[leaf], [root.certificateDer]].map((ders) =>
      ders.map((der) => parseCertificate(der)),
    );
    const [list] = set.lists;
    list!.signature.fill(0);
    expect(
      proxyObstacle({ chain: chain!, roots: roots!, lists: set.lists }, TEST_NOW),
    ).toBeUndefined();
    const stranger = { ...list! };
    expect(
      proxyObstacle({ chain: chain!, roots: roots!, lists: [stranger] }, TEST_NOW),
    ).toMatchObject({
      kind: 'lists',
    });
  });

  test('a long list is read in turns with everything else', async () => {
    const root = await makeTestCa();
    const revoked = Array.from({ length: 30_000 }, (_, at) => ({
      serial: (0x7000000000000000n + BigInt(at)).toString(16),
      revokedAt: TEST_NOW,
      reason: 0,
    }));
    const spec = {
      issuerDer: root.subjectDer,
      authorityKeyId: root.keyId,
      number: 1,
      thisUpdateAt: TEST_NOW,
      nextUpdateAt: TEST_NOW + HOUR_MS,
    };
    const pem = writePem(
      'X509 CRL',
      await createCrl({ ...spec, revoked }, keyPairOf(root.privateKey, 'ecdsa-p256')),
    );
    let turns = 0;
    const turn = () => {
      turns += 1;
      counting = setImmediate(turn);
    };
    let counting = setImmediate(turn);
    const { set } = await acceptCrls(pem, 'crl', { bundle: root.bundle, chainDer: [] }, TEST_NOW);
    clearImmediate(counting);
    expect(set.lists[0]!.revoked.size).toBe(30_000);
    expect(set.pem).toEqual(pem);
    // 30 ms of work at the least, 5 ms at a time.
    expect(turns).toBeGreaterThan(5);
  });

  test('as DER too', async () => {
    const root = await makeTestCa();
    const signers = { bundle: root.bundle, chainDer: [] };
    const { set } = await acceptCrls(listOf(root), 'crl', signers, TEST_NOW);
    expect((await acceptCrls(set.lists[0]!.der, 'crl', signers, TEST_NOW)).set).toEqual(set);
  });

  test.each<[string, (root: TestCa) => Buffer, string]>([
    [
      'out of date',
      (root) => listOf(root, { at: TEST_NOW - 4 * HOUR_MS }),
      'must not be out of date',
    ],
    [
      'of the future',
      (root) => listOf(root, { at: TEST_NOW + 120_000 }),
      'must not be of the future',
    ],
    [
      'none at all',
      (root) => certificatesPem([root.certificateDer]),
      'must hold a certificate revocation list',
    ],
    [
      'a key among them',
      (root) => Buffer.concat([listOf(root), writePem('PRIVATE KEY', Buffer.from([1]))]),
      'must hold X509 CRL and CERTIFICATE only',
    ],
    ['no PEM', () => Buffer.from('<html>'), 'must'],
  ])('but not %s', async (_, make, rule) => {
    const root = await makeTestCa();
    expect(
      await outcomeOf(
        acceptCrls(make(root), 'crl', { bundle: root.bundle, chainDer: [] }, TEST_NOW),
      ),
    ).toMatchObject({
      rule: expect.stringContaining(rule),
    });
  });
});

/** A web server with one answer; its ETag changes with it. */
async function serve(first: Buffer) {
  const state = { body: first, status: 200, etag: '"1"', seen: [] as (string | undefined)[] };
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    state.seen.push(request.headers['if-none-match']);
    const known = request.headers['if-none-match'] === state.etag && state.status === 200;
    response.writeHead(known ? 304 : state.status, { etag: state.etag });
    response.end(known ? undefined : state.body);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  closing.push(() => new Promise((done) => server.close(done)));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/crl.pem`;
  return { state, url };
}

function follow(place: string, trust: TrustBundle | undefined, stateDir?: string) {
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const signersOf = (bundle: TrustBundle | undefined) => bundle && { bundle, chainDer: [] };
  const signers = new WatchedSource<CrlSigners | undefined>(signersOf(trust));
  const source = { set: (bundle: TrustBundle) => signers.set(signersOf(bundle)) };
  const revocation: Revocation = followRevocation(place, signers, stateDir, deps);
  closing.push(() => revocation.close());
  const loaded = () =>
    firstValue(revocation.lists, (value): value is CrlSet => value !== undefined);
  return { clock, deps, source, revocation, loaded };
}

describe('followed at a URL', () => {
  test('a revocation is known a minute later, and an unchanged list is not sent again', async () => {
    const root = await makeTestCa();
    const { state, url } = await serve(listOf(root));
    const at = follow(url, root.bundle);
    expect(serialsOf(await at.loaded())).toEqual([]);
    for (let round = 0; round < 3; round += 1) {
      const before = state.seen.length;
      await until('another request', async () => {
        await at.clock.advanceBy(60_000);
        return state.seen.length > before;
      });
    }
    expect(state.seen.slice(1).every((etag) => etag === '"1"')).toBe(true);
    Object.assign(state, {
      body: listOf(root, { number: 2, at: at.clock.now(), serials: ['0a'] }),
      etag: '"2"',
    });
    await until('the revocation', async () => {
      await at.clock.advanceBy(60_000);
      return serialsOf(at.revocation.lists.value)?.length === 1;
    });
    expect(at.revocation.problem()).toBeUndefined();
  });

  test('a list that was read before the bundle is taken up with the bundle, though it is not sent again', async () => {
    const [root, next] = [await makeTestCa(), await makeTestCa({ name: 'next' })];
    const { state, url } = await serve(
      Buffer.concat([listOf(root), listOf(next, { serials: ['0a'] })]),
    );
    const at = follow(url, undefined);
    await until('a request', async () => state.seen.length > 0);
    const listsAre = (count: number) =>
      until(`${count} lists`, async () => {
        await at.clock.advanceBy(RECONCILE_INTERVAL_MS);
        return at.revocation.lists.value?.lists.length === count;
      });
    at.source.set(root.bundle);
    await listsAre(1);
    at.source.set(createTrustBundle([...root.bundle.rootsDer, ...next.bundle.rootsDer]));
    await listsAre(2);
    expect(state.seen.slice(1).every((etag) => etag === '"1"')).toBe(true);
  });

  test('an older list does not take a revocation back', async () => {
    const root = await makeTestCa();
    const { state, url } = await serve(listOf(root, { number: 2, serials: ['0a'] }));
    const at = follow(url, root.bundle);
    await at.loaded();
    Object.assign(state, {
      body: listOf(root, { number: 1, at: TEST_NOW - HOUR_MS }),
      etag: '"0"',
    });
    const before = state.seen.length;
    await until('two requests', async () => {
      await at.clock.advanceBy(60_000);
      return state.seen.length > before + 1;
    });
    expect(serialsOf(at.revocation.lists.value)).toEqual(['0a']);
  });

  test('lists that are not renewed are told of before their end and after it, and are never taken away', async () => {
    const root = await makeTestCa();
    const { state, url } = await serve(listOf(root, { serials: ['0a'] }));
    const at = follow(url, root.bundle);
    const set = await at.loaded();
    state.status = 503;
    await until('the failure', async () => {
      await at.clock.advanceBy(60_000);
      return at.revocation.problem() !== undefined;
    });
    expect(at.revocation.problem()).toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      message: expect.stringContaining('status 503'),
    });
    const told = () =>
      at.deps.events
        .filter(({ level }) => level !== 'info')
        .map(({ level, event }) => `${level} ${event}`);
    await at.clock.advanceTo(TEST_NOW + 3 * HOUR_MS);
    await until('the warning', async () => {
      await at.clock.advanceBy(1_000);
      return told().includes('warn revocation lists expire soon');
    });
    expect(at.revocation.problem()).toMatchObject({
      hint: 'proxies refuse every peer from then on',
    });
    await at.clock.advanceTo(TEST_NOW + 4 * HOUR_MS);
    await until('the alarm', async () => {
      await at.clock.advanceBy(1_000);
      return told().includes('error revocation lists expired, proxies refuse every peer');
    });
    expect(at.revocation.problem()).toMatchObject({
      hint: 'proxies refuse every peer until newer lists arrive',
    });
    expect(at.revocation.lists.value).toBe(set);
    Object.assign(state, {
      status: 200,
      body: listOf(root, { number: 2, at: at.clock.now() }),
      etag: '"2"',
    });
    await until('the new list', async () => {
      await at.clock.advanceBy(60_000);
      return at.revocation.problem() === undefined;
    });
    expect(serialsOf(at.revocation.lists.value)).toEqual([]);
  });

  test('what it gave is there after a restart while nobody answers, but not for another mesh', async () => {
    const root = await makeTestCa();
    const { state, url } = await serve(listOf(root, { serials: ['0a'] }));
    const dir = tempDir();
    const first = follow(url, root.bundle, dir);
    await first.loaded();
    await until('its file', async () => existsSync(join(dir, 'crl/crl.pem')));
    await first.revocation.close();
    state.status = 503;
    const second = follow(url, root.bundle, dir);
    expect(serialsOf(await second.loaded())).toEqual(['0a']);
    const after = follow(url, (await makeTestCa({ name: 'other' })).bundle, dir);
    await until('its problem', async () => after.revocation.problem());
    expect(after.revocation.lists.value).toBeUndefined();
  });

  test.each([
    ['ftp://127.0.0.1/crl', 'must be a file or an http or https URL'],
    ['http://', 'must be a file or an http or https URL'],
  ])('%s is refused', (place, rule) => {
    expect(
      outcome(() =>
        followRevocation(
          place,
          new WatchedSource<CrlSigners | undefined>(undefined),
          undefined,
          testDeps(),
        ),
      ),
    ).toEqual({
      field: '--crl',
      rule,
    });
  });

  test('an answer without end is broken off', async () => {
    const root = await makeTestCa();
    const { url } = await serve(Buffer.alloc(MAX_CRL_FILE_BYTES + 1, 0x41));
    const at = follow(url, root.bundle);
    await until('the refusal', async () => at.revocation.problem());
    expect(at.revocation.problem()!.message).toContain(`more than ${MAX_CRL_FILE_BYTES} bytes`);
    expect(at.revocation.lists.value).toBeUndefined();
  });
});

describe('followed in a file', () => {
  test('a new list is taken up, a bad one is not, and a list waits for the bundle that it is judged by', async () => {
    const root = await makeTestCa();
    const path = join(tempDir(), 'crl.pem');
    writeFileSync(path, listOf(root, { serials: ['0a'] }));
    const at = follow(path, undefined);
    await at.clock.advanceBy(1_000);
    expect(at.revocation.lists.value).toBeUndefined();
    at.source.set(createTrustBundle(root.bundle.rootsDer));
    expect(serialsOf(await at.loaded())).toEqual(['0a']);
    for (const [bytes, problem, serials] of [
      [Buffer.from('nonsense'), true, ['0a']],
      [listOf(await makeTestCa({ name: 'other' })), true, ['0a']],
      [
        listOf(root, { number: 3, at: TEST_NOW + 1_000, serials: ['0a', '0b'] }),
        false,
        ['0a', '0b'],
      ],
    ] as const) {
      writeFileSync(path, bytes);
      await until('the change', async () => {
        await at.clock.advanceBy(1_000);
        return (at.revocation.problem() !== undefined) === problem;
      });
      expect(serialsOf(at.revocation.lists.value)).toEqual(serials);
    }
    rmSync(path);
    await until('its loss', async () => {
      await at.clock.advanceBy(1_000);
      return at.revocation.problem();
    });
    expect(serialsOf(at.revocation.lists.value)).toEqual(['0a', '0b']);
  });
});
