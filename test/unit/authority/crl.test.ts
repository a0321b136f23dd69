import { afterEach, expect, test } from '@jest/globals';
import { createCrlPublisher } from '../../../agent/authority/crl';
import { activateRoot, addRoot, retireRoot } from '../../../agent/authority/roots/roots';
import { openFileStore } from '../../../agent/authority/store/file-store';
import type { Revocation } from '../../../agent/authority/store/store';
import { readPem } from '../../../agent/base/pem';
import { acceptCrls } from '../../../agent/identity/accept-crls';
import { parseCertificate } from '../../../agent/identity/certificate';
import { isCrlOf } from '../../../agent/identity/crl';
import { MAX_CRL_ENTRIES } from '../../../agent/identity/crl-bounds';
import { isListed } from '../../../agent/identity/crl-entries';
import { directEngine } from '../../../agent/identity/direct-engine';
import { writeCaDir } from '../../support/ca-dir';
import { issuedEntry } from '../../support/ca-store';
import { HOUR_MS, makeTestCa, TEST_ID, TEST_NOW, type TestCa } from '../../support/certs';
import { longestTurn } from '../../support/longest-turn';
import { parseCrl } from '../../support/parse-crl';
import { serialsOf } from '../../support/revoked-serials';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function world(signer: TestCa, roots: readonly TestCa[] = [signer]) {
  const dir = tempDir();
  writeCaDir(dir, { signer, roots });
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const store = await openFileStore(dir, deps);
  const crl = createCrlPublisher({ dir, store, validityMs: 4 * HOUR_MS }, deps);
  closing.push(() => store.close(), crl.close);
  const blocks = async () => readPem((await crl.current()).pem, 'crl');
  const read = async () =>
    (await blocks()).filter(({ label }) => label === 'X509 CRL').map(({ der }) => parseCrl(der));
  return {
    dir,
    clock,
    deps,
    store,
    read,
    blocks,
    roots: { dir, trustDomain: 'cluster.local', engine: directEngine, store },
  };
}

const keyIdOf = (ca: TestCa) => Buffer.from(ca.keyId).toString('hex');
const revocationOf = (ca: TestCa, index: number): Revocation => ({
  serial: (2n ** 126n + BigInt(index)).toString(16),
  id: TEST_ID,
  issuerKeyId: keyIdOf(ca),
  notAfterAt: TEST_NOW + 48 * HOUR_MS,
  revokedAt: TEST_NOW,
  reason: 'keyCompromise',
});

test('a list is made anew after a quarter of its life and after each revocation, and is the same in between', async () => {
  const ca = await makeTestCa();
  const at = await world(ca);
  const [first] = await at.read();
  expect(first).toMatchObject({
    number: '01',
    thisUpdateAt: TEST_NOW - 120_000,
    nextUpdateAt: TEST_NOW + 4 * HOUR_MS,
  });
  await at.clock.advanceBy(HOUR_MS - 1);
  expect(await at.read()).toEqual([first]);
  await at.clock.advanceBy(1);
  const [second] = await at.read();
  expect(second).toMatchObject({ number: '02', nextUpdateAt: TEST_NOW + 5 * HOUR_MS });
  const entry = issuedEntry({ issuerKeyId: keyIdOf(ca), notAfterAt: TEST_NOW + 3 * HOUR_MS });
  await at.store.recordIssued(entry);
  await at.store.revoke({}, 'keyCompromise', at.clock.now());
  await at.clock.advanceBy(HOUR_MS);
  expect(serialsOf((await at.read())[0]!)).toEqual([entry.serial]);
  // What has expired needs no revocation.
  await at.clock.advanceBy(HOUR_MS);
  expect((await at.read())[0]!.revoked.size).toBe(0);
});

test('each signer has its list, from the moment that its root is added until it is retired', async () => {
  const ca = await makeTestCa();
  const at = await world(ca);
  const ours = issuedEntry({ issuerKeyId: keyIdOf(ca) });
  for (const entry of [ours, issuedEntry({ issuerKeyId: 'ee'.repeat(20) })])
    await at.store.recordIssued(entry);
  await at.store.revoke({}, 'superseded', TEST_NOW);
  await addRoot(at.roots, { algorithm: 'ecdsa-p256' }, at.deps);
  const counts = async () => {
    await at.clock.advanceBy(1_000);
    return (await at.read()).map(({ revoked }) => revoked.size);
  };
  expect(await counts()).toEqual([1, 0]);
  await activateRoot(at.roots, { force: true }, at.deps);
  expect((await counts()).sort()).toEqual([0, 1]);
  await retireRoot(at.roots, {}, at.deps);
  expect(await counts()).toEqual([0]);
});

test('an intermediate signs its list, and its certificate comes with it', async () => {
  const root = await makeTestCa();
  const signer = await makeTestCa({ parent: root });
  const at = await world(signer, [root]);
  const [list] = await at.read();
  const certificates = (await at.blocks())
    .filter(({ label }) => label === 'CERTIFICATE')
    .map(({ der }) => parseCertificate(der));
  expect(certificates.map((each) => isCrlOf(list!, each))).toEqual([true]);
});

test('field E8: as many as a list holds are in it, and an agent takes it; one more is refused by name until there are fewer', async () => {
  const ca = await makeTestCa();
  const dir = tempDir();
  writeCaDir(dir, { signer: ca, roots: [ca] });
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const revocation = (index: number) => revocationOf(ca, index);
  let all = Array.from({ length: MAX_CRL_ENTRIES }, (_, index) => revocation(index));
  const store = {
    revocations: async () => all,
    onRevocation: () => () => undefined,
    nextCrlNumber: async () => 1,
  };
  const publisher = createCrlPublisher({ dir, store }, deps);
  closing.push(() => publisher.close());
  const { set } = await acceptCrls(
    (await publisher.current()).pem,
    'crl',
    { bundle: ca.bundle, chainDer: [] },
    TEST_NOW,
  );
  const [list] = set.lists;
  expect(Buffer.compare((await publisher.current()).der, list!.der)).toBe(0);
  expect([list!.revoked.size, isListed(list!.revoked, all.at(-1)!.serial)]).toEqual([
    MAX_CRL_ENTRIES,
    true,
  ]);
  expect(isListed(list!.revoked, revocation(-1).serial)).toBe(false);
  expect(deps.events.map(({ event }) => event)).toContain('CRL nearly full');
  all = [...all, revocation(MAX_CRL_ENTRIES)];
  await clock.advanceBy(7 * HOUR_MS);
  await expect(publisher.current()).rejects.toMatchObject({ code: 'ERR_CA_STATE' });
  expect(publisher.problem()!.message).toBe(
    'sign a CRL: 500001 certificates are revoked, and it holds 500000',
  );
  all = all.slice(-3);
  await clock.advanceBy(20_000);
  await until('another attempt', async () => publisher.problem() === undefined);
});

test('field E8: half a million revocations are put into a list in turns with everything else', async () => {
  const ca = await makeTestCa();
  const dir = tempDir();
  writeCaDir(dir, { signer: ca, roots: [ca] });
  const all = Array.from({ length: MAX_CRL_ENTRIES }, (_, index) => revocationOf(ca, index));
  const store = {
    // Another array each time, as when word of a change has come.
    revocations: async () => [...all],
    onRevocation: () => () => undefined,
    nextCrlNumber: async () => 1,
  };
  const clock = new TestClock();
  const publisher = createCrlPublisher({ dir, store }, testDeps({ clock }));
  closing.push(() => publisher.close());
  const { longestTurnMs, totalMs } = await longestTurn(async () => {
    await clock.advanceBy(7 * HOUR_MS);
    await publisher.current();
  });
  // In one piece, taking them apart by their signers alone is a third of it.
  expect(longestTurnMs).toBeLessThan(totalMs / 20);
});

test('a signer that may not sign lists signs none', async () => {
  const at = await world(await makeTestCa({ keyUsage: ['keyCertSign'] }));
  await expect(at.read()).rejects.toMatchObject({
    code: 'ERR_CA_STATE',
    hint: 'plug in a CA that has it',
  });
});
