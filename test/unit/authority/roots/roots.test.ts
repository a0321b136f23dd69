import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  connect,
  createServer as createTlsServer,
  type SecureContextOptions,
  type TLSSocket,
} from 'node:tls';
import { afterEach, describe, expect, test } from '@jest/globals';
import {
  type Authority,
  type IssuedLeaf,
  openAuthority,
} from '../../../../agent/authority/authority';
import {
  DEFAULT_OVERLAP_MS,
  namedTrustDomain,
  type RootsOptions,
} from '../../../../agent/authority/roots/root-facts';
import {
  activateRoot,
  addRoot,
  listRoots,
  retireRoot,
} from '../../../../agent/authority/roots/roots';
import { dropSigner, keepSigner } from '../../../../agent/authority/signers';
import { openFileStore } from '../../../../agent/authority/store/file-store';
import type { CaStore } from '../../../../agent/authority/store/store';
import { Secret } from '../../../../agent/base/secret';
import { firstValue } from '../../../../agent/base/watched';
import {
  certificatesPem,
  parseCertificate,
  parseCertificates,
  parseRootBundle,
} from '../../../../agent/identity/certificate';
import { verifyChain } from '../../../../agent/identity/chain';
import { directEngine } from '../../../../agent/identity/direct-engine';
import { type KeyPair, privateKeyPem } from '../../../../agent/identity/keys';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import type { TrustBundle } from '../../../../agent/identity/trust-bundle';
import { writeCaDir } from '../../../support/ca-dir';
import { issuedEntry } from '../../../support/ca-store';
import { HOUR_MS, makeTestCa, TEST_ID, TEST_NOW, type TestCa } from '../../../support/certs';
import { onFsStep } from '../../../support/fs-steps';
import { underLoad } from '../../../support/load';
import { tempDir } from '../../../support/temp-dir';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';

const DAY_MS = 24 * HOUR_MS;
const OTHER_ID = 'spiffe://cluster.local/ns/shop/sa/other';
const NEW = { algorithm: 'ecdsa-p256' } as const;
const FULL = process.env.KEYTURN_TEST === 'full';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

interface World extends RootsOptions {
  readonly store: CaStore;
  readonly clock: TestClock;
  readonly deps: ReturnType<typeof testDeps>;
  readonly ca: TestCa;
}

/** A CA directory with one root, at TEST_NOW; its signer is the root itself unless another is given. */
async function world(ca?: TestCa, root = ca): Promise<World> {
  const dir = tempDir();
  const signer = ca ?? (await makeTestCa());
  writeCaDir(dir, { signer, roots: [root ?? signer] });
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const store = await openFileStore(dir, deps);
  closing.push(() => store.close());
  return {
    dir,
    trustDomain: 'cluster.local',
    engine: directEngine,
    store,
    clock,
    deps,
    ca: signer,
  };
}

const fileOf = (dir: string, name: string) => readFileSync(join(dir, name));
const rootsOf = (dir: string) =>
  parseRootBundle(fileOf(dir, 'root-cert.pem'), 'root-cert.pem').bundle.rootsDer;
const stages = async (at: World) =>
  (await listRoots(at, undefined, at.clock.now()))
    .map(({ stage, inUse }) => `${stage} ${inUse}`)
    .sort();
const print = (der: Uint8Array) => parseCertificate(der).sha256;
/** What goes out above a leaf, as cert-chain.pem has it. */
const shownBy = (at: World) =>
  parseCertificates(fileOf(at.dir, 'cert-chain.pem'), 'chain').map(({ sha256 }) => sha256);
const idOf = (ca: TestCa) => parseCertificate(ca.certificateDer).sha256.slice(0, 16);
const keyPem = (ca: TestCa) => Buffer.from(ca.privateKey.export({ type: 'pkcs8', format: 'pem' }));

describe('roots change in stages', () => {
  test('add tells of a new root, activate signs under it, retire takes the old one away', async () => {
    const at = await world();
    const before = fileOf(at.dir, 'ca-cert.pem');
    const id = await addRoot(at, NEW, at.deps);
    expect(rootsOf(at.dir)).toHaveLength(2);
    expect(fileOf(at.dir, 'ca-cert.pem')).toEqual(before);
    expect(await stages(at)).toEqual(['active 0', 'ready 0']);
    await at.clock.advanceBy(DEFAULT_OVERLAP_MS);
    expect(await activateRoot(at, {}, at.deps)).toBe(id);
    expect(fileOf(at.dir, 'ca-cert.pem')).not.toEqual(before);
    expect(await stages(at)).toEqual(['active 0', 'ready 0']);
    expect(await retireRoot(at, {}, at.deps)).toBe(idOf(at.ca));
    expect(await stages(at)).toEqual(['active 0']);
    expect(fileOf(at.dir, 'root-cert.pem')).toEqual(fileOf(at.dir, 'ca-cert.pem'));
    // The key that nobody needs any more is gone.
    expect(readdirSync(join(at.dir, 'signers')).filter((name) => !name.startsWith('.'))).toEqual([
      id,
    ]);
  });

  test('H2 nothing is signed under a root before everybody was told of it', async () => {
    const at = await world();
    const id = await addRoot(at, NEW, at.deps);
    await at.clock.advanceBy(DEFAULT_OVERLAP_MS - 1);
    await expect(activateRoot(at, {}, at.deps)).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
      rule: 'must not sign before every workload has its root',
      message: expect.stringContaining(new Date(TEST_NOW + DAY_MS).toISOString()),
    });
    // Who got a certificate before the root was added may hold the old bundle for as long as it is valid.
    await at.store.recordIssued(
      issuedEntry({ issuedAt: TEST_NOW - 1, notAfterAt: TEST_NOW + 2 * DAY_MS }),
    );
    await at.store.recordIssued(
      issuedEntry({ issuedAt: TEST_NOW + 1, notAfterAt: TEST_NOW + 3 * DAY_MS, handedRoots: [id] }),
    );
    await at.clock.advanceTo(TEST_NOW + 2 * DAY_MS - 1);
    await expect(activateRoot(at, {}, at.deps)).rejects.toMatchObject({ code: 'ERR_TOO_EARLY' });
    await at.clock.advanceBy(1);
    await activateRoot(at, {}, at.deps);
  });

  test('H2 the overlap can be set, and forced', async () => {
    const at = await world();
    await addRoot(at, NEW, at.deps);
    await at.clock.advanceBy(60_000);
    await expect(activateRoot(at, { overlapMs: 60_001 }, at.deps)).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
    });
    await activateRoot(at, { overlapMs: 60_000 }, at.deps);
    const other = await world();
    await addRoot(other, NEW, other.deps);
    await activateRoot(other, { force: true }, other.deps);
    expect(await stages(other)).toEqual(['active 0', 'ready 0']);
  });

  test('field 14 nothing is signed under a root before each identity in use was handed it; the list names who was not', async () => {
    const at = await world();
    const old = [
      issuedEntry(),
      issuedEntry(),
      issuedEntry({ id: OTHER_ID }),
      issuedEntry({ id: 'ca.example' }),
    ];
    for (const entry of old) await at.store.recordIssued(entry);
    const root = await addRoot(at, NEW, at.deps);
    const activate = () => activateRoot(at, { overlapMs: 0 }, at.deps);
    const waiting = async () =>
      (await listRoots(at, 0, TEST_NOW)).flatMap(({ withoutIt }) => withoutIt);
    expect(await waiting()).toEqual([
      { id: TEST_ID, certificates: 2, untilAt: TEST_NOW + HOUR_MS },
      { id: OTHER_ID, certificates: 1, untilAt: TEST_NOW + HOUR_MS },
    ]);
    await expect(activate()).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
      rule: 'must not sign before each identity with a valid certificate has received its root',
      message: expect.stringContaining(`${TEST_ID}, ${OTHER_ID}`),
    });
    // A replica that was behind handed out the roots of before.
    await at.store.recordIssued(
      issuedEntry({ id: OTHER_ID, provenBy: old[2]!.serial, handedRoots: [idOf(at.ca)] }),
    );
    await at.store.recordIssued(issuedEntry({ handedRoots: [idOf(at.ca), root] }));
    // One of two replicas has renewed.
    expect((await waiting()).map(({ id }) => id)).toEqual([TEST_ID, OTHER_ID]);
    await at.store.recordIssued(issuedEntry({ handedRoots: [root] }));
    expect((await waiting()).map(({ id }) => id)).toEqual([OTHER_ID]);
    await at.store.revoke({ id: OTHER_ID }, 'unspecified', TEST_NOW);
    expect(await waiting()).toEqual([]);
    await activate();
  });

  test('field 14 of replicas with one identity each must have been handed the root', async () => {
    const at = await world();
    const [one, other] = [issuedEntry(), issuedEntry()];
    for (const entry of [one, other]) await at.store.recordIssued(entry);
    const root = await addRoot(at, NEW, at.deps);
    const activate = () => activateRoot(at, { overlapMs: 0 }, at.deps);
    // The first renews twice, the second has not come.
    const renewed = issuedEntry({ provenBy: one.serial, handedRoots: [root] });
    for (const entry of [renewed, issuedEntry({ provenBy: renewed.serial, handedRoots: [root] })])
      await at.store.recordIssued(entry);
    await expect(activate()).rejects.toMatchObject({ code: 'ERR_TOO_EARLY' });
    // The second has lost its state, and comes by a token.
    await at.store.recordIssued(issuedEntry({ handedRoots: [root] }));
    await activate();
  });

  test('field 14 a machine that proves itself by one provisioned certificate each time has been handed the root once it has renewed', async () => {
    const at = await world();
    const provisioned = issuedEntry();
    const first = issuedEntry({ provenBy: provisioned.serial });
    for (const entry of [provisioned, first]) await at.store.recordIssued(entry);
    const root = await addRoot(at, NEW, at.deps);
    await expect(activateRoot(at, { overlapMs: 0 }, at.deps)).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
    });
    await at.store.recordIssued(issuedEntry({ provenBy: provisioned.serial, handedRoots: [root] }));
    await activateRoot(at, { overlapMs: 0 }, at.deps);
  });

  test('field 14 a signer that may not certify another CA is followed by force only, or by one that leads to its root by itself', async () => {
    const root = await makeTestCa();
    const at = await world(await makeTestCa({ parent: root, pathLength: 0 }), root);
    await addRoot(at, NEW, at.deps);
    await expect(activateRoot(at, { overlapMs: 0 }, at.deps)).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
      message: expect.stringContaining(idOf(root)),
      rule: expect.stringContaining('may not certify another CA'),
    });
    const next = await makeTestCa({ name: 'next' });
    const certified = await makeTestCa({ name: 'next', privateKey: next.privateKey, parent: root });
    const pem = Buffer.concat([
      keyPem(next),
      certificatesPem([next.certificateDer, certified.certificateDer]),
    ]);
    const id = await addRoot(at, { ...NEW, pem }, at.deps);
    expect(await activateRoot(at, { id, overlapMs: 0 }, at.deps)).toBe(id);
    expect(shownBy(at)).toEqual([next.certificateDer, certified.certificateDer].map(print));
    const forced = await world(await makeTestCa({ parent: root, pathLength: 0 }), root);
    await addRoot(forced, NEW, forced.deps);
    await activateRoot(forced, { force: true }, forced.deps);
    expect(forced.deps.events).toContainEqual(
      expect.objectContaining({
        event: 'clients with old roots only will refuse new certificates',
      }),
    );
  });

  test('field 14 a signer under the same root needs no certificate of the one before; what leads to a retired root goes with it', async () => {
    const root = await makeTestCa();
    const at = await world(await makeTestCa({ parent: root, name: 'first' }), root);
    const second = await makeTestCa({ parent: root, name: 'second' });
    const pem = (ca: TestCa) => Buffer.concat([keyPem(ca), certificatesPem([ca.certificateDer])]);
    await addRoot(at, { ...NEW, pem: pem(second) }, at.deps);
    await activateRoot(at, { id: idOf(second), overlapMs: 0 }, at.deps);
    expect(shownBy(at)).toEqual([print(second.certificateDer)]);
    // The root of before may go, and so may what leads to it alone.
    const next = await makeTestCa({ name: 'next' });
    await addRoot(at, { ...NEW, pem: pem(next) }, at.deps);
    await activateRoot(at, { id: idOf(next), overlapMs: 0 }, at.deps);
    expect(shownBy(at)).toHaveLength(3);
    await retireRoot(at, { id: idOf(root) }, at.deps);
    expect(shownBy(at)).toEqual([print(next.certificateDer)]);
  });

  test('field 14 force says whose peers refuse what is signed', async () => {
    const at = await world();
    await at.store.recordIssued(issuedEntry());
    await addRoot(at, NEW, at.deps);
    await activateRoot(at, { force: true }, at.deps);
    expect(at.deps.events).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        event: 'identities without the new root will refuse peers until they renew',
        facts: expect.objectContaining({ of: TEST_ID }),
      }),
    );
  });

  test('a certificate that proved its own renewal is in use no more: however often one renewed before, once after is enough', async () => {
    const at = await world();
    const chain = [issuedEntry()];
    for (const _ of [1, 2, 3]) chain.push(issuedEntry({ provenBy: chain.at(-1)!.serial }));
    for (const entry of chain) await at.store.recordIssued(entry);
    const root = await addRoot(at, NEW, at.deps);
    await at.store.recordIssued(
      issuedEntry({ provenBy: chain.at(-1)!.serial, handedRoots: [root] }),
    );
    await activateRoot(at, { overlapMs: 0 }, at.deps);
  });

  test('item 35 a replaced certificate of a server of ours does not keep its root from retiring, the one that it shows does', async () => {
    const at = await world();
    const rootKeySha256 = await keyHashOf(at.ca);
    await at.store.recordIssued(issuedEntry({ id: 'localhost', rootKeySha256 }));
    await addRoot(at, NEW, at.deps);
    await activateRoot(at, { force: true }, at.deps);
    await expect(retireRoot(at, {}, at.deps)).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
      rule: expect.stringContaining('of localhost'),
    });
    await at.store.recordIssued(issuedEntry({ id: 'localhost', issuedAt: TEST_NOW + 1 }));
    await retireRoot(at, {}, at.deps);
  });

  test('a root is not retired while certificates that lead to it are in use, unless they are revoked or it is forced', async () => {
    const at = await world();
    await addRoot(at, NEW, at.deps);
    await activateRoot(at, { force: true }, at.deps);
    const [root] = (await listRoots(at, undefined, TEST_NOW)).filter(
      ({ stage }) => stage === 'ready',
    );
    const rootKeySha256 = await keyHashOf(at.ca);
    const entries = [1, 2].map((days) =>
      issuedEntry({ rootKeySha256, notAfterAt: TEST_NOW + days * DAY_MS }),
    );
    for (const entry of entries) await at.store.recordIssued(entry);
    await at.store.recordIssued(issuedEntry({ notAfterAt: TEST_NOW + 9 * DAY_MS }));
    await expect(retireRoot(at, { id: root!.id }, at.deps)).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
      rule: `must not have certificates in use: 2 until ${new Date(TEST_NOW + 2 * DAY_MS).toISOString()}, of ${TEST_ID}`,
    });
    expect(rootsOf(at.dir)).toHaveLength(2);
    await at.store.revoke({ serial: entries[1]!.serial }, 'keyCompromise', TEST_NOW);
    await at.clock.advanceBy(DAY_MS - 1);
    await expect(retireRoot(at, {}, at.deps)).rejects.toMatchObject({ code: 'ERR_TOO_EARLY' });
    await at.clock.advanceBy(1);
    await retireRoot(at, {}, at.deps);
    expect(rootsOf(at.dir)).toHaveLength(1);
  });

  test('the root that the active signer leads to is never retired, forced or not', async () => {
    const at = await world();
    await expect(retireRoot(at, { id: idOf(at.ca), force: true }, at.deps)).rejects.toMatchObject({
      rule: 'must not be the only one',
    });
    await addRoot(at, NEW, at.deps);
    await expect(retireRoot(at, { id: idOf(at.ca), force: true }, at.deps)).rejects.toMatchObject({
      rule: 'must not be what the active signer leads to',
    });
    expect(rootsOf(at.dir)).toHaveLength(2);
  });

  test('H4 a step back to the signer before needs no waiting', async () => {
    const at = await world();
    const before = fileOf(at.dir, 'ca-key.pem');
    await addRoot(at, NEW, at.deps);
    await activateRoot(at, { force: true }, at.deps);
    expect(await activateRoot(at, { id: idOf(at.ca) }, at.deps)).toBe(idOf(at.ca));
    expect(fileOf(at.dir, 'ca-key.pem')).toEqual(before);
  });

  test('an activation without a name that is run again takes nothing back, whichever signed before', async () => {
    const at = await world();
    for (let rounds = 0; rounds < 2; rounds += 1) {
      const id = await addRoot(at, NEW, at.deps);
      expect(await activateRoot(at, { force: true }, at.deps)).toBe(id);
      const key = fileOf(at.dir, 'ca-key.pem');
      expect(await activateRoot(at, { force: true }, at.deps)).toBe(id);
      expect(fileOf(at.dir, 'ca-key.pem')).toEqual(key);
    }
  });

  test('what has signed before may do so again from now on', async () => {
    const at = await world();
    await addRoot(at, NEW, at.deps);
    await activateRoot(at, { force: true }, at.deps);
    const now = TEST_NOW + 5_000;
    expect(
      (await listRoots(at, undefined, now)).find(({ stage }) => stage === 'ready'),
    ).toMatchObject({ activateAt: now });
  });

  test('the signer that is active already is told with the time since when, and nothing changes', async () => {
    const at = await world();
    const id = await addRoot(at, NEW, at.deps);
    await activateRoot(at, { force: true }, at.deps);
    await at.clock.advanceBy(60_000);
    const before = fileOf(at.dir, 'ca-cert.pem');
    expect(await activateRoot(at, { id }, at.deps)).toBe(id);
    expect(fileOf(at.dir, 'ca-cert.pem')).toEqual(before);
    expect(at.deps.events.at(-1)).toMatchObject({
      level: 'warn',
      event: 'this CA signer is active already',
      facts: { signer: id, since: new Date(TEST_NOW).toISOString() },
    });
    await expect(activateRoot(at, { id: 'ffff' }, at.deps)).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
    });
  });

  test('field A1: a copy of a root that is dead, or would be beside it, is not added; a renewed root is, and tells which one it renews', async () => {
    const at = await world();
    const { privateKey } = at.ca;
    const add = async (notBeforeAt: number, notAfterAt: number, force?: boolean) => {
      const pem = certificatesPem([
        (await makeTestCa({ privateKey, notBeforeAt, notAfterAt })).certificateDer,
      ]);
      return addRoot(at, { ...NEW, pem, ...(force && { force }) }, at.deps);
    };
    const untilAt = parseCertificate(at.ca.certificateDer).notAfterAt;
    await expect(add(TEST_NOW - 2 * DAY_MS, TEST_NOW - DAY_MS)).rejects.toMatchObject({
      code: 'ERR_CA_STATE',
      rule: 'must not be expired: it ended at 2025-12-31T00:00:00.000Z',
    });
    await expect(add(TEST_NOW + DAY_MS, untilAt + DAY_MS)).rejects.toMatchObject({
      rule: 'must be valid now, as its name and key are in the bundle already: it begins at 2026-01-02T00:00:00.000Z',
      hint: expect.stringMatching(/add it after 2026-01-02.*--force/),
    });
    await expect(add(TEST_NOW - DAY_MS, TEST_NOW + DAY_MS)).rejects.toMatchObject({
      rule: expect.stringMatching(/must not end before the root of its name and key/),
      hint: expect.stringMatching(/--force/),
    });
    const both = await Promise.all(
      [-DAY_MS, DAY_MS].map((life) =>
        makeTestCa({
          privateKey,
          name: 'new',
          notBeforeAt: TEST_NOW - 2 * DAY_MS,
          notAfterAt: TEST_NOW + life,
        }),
      ),
    );
    const inOneFile = certificatesPem(both.map(({ certificateDer }) => certificateDer));
    await expect(addRoot(at, { ...NEW, pem: inOneFile }, at.deps)).rejects.toMatchObject({
      rule: expect.stringMatching(/must not be expired/),
    });
    expect(rootsOf(at.dir)).toHaveLength(1);
    await add(TEST_NOW - DAY_MS, untilAt + DAY_MS);
    expect(rootsOf(at.dir)).toHaveLength(2);
    const retire = `keyturn ca root retire ${idOf(at.ca)}`;
    expect(at.deps.events.filter(({ facts }) => facts?.hint === retire)).toHaveLength(1);
    expect(await retireRoot(at, { id: idOf(at.ca) }, at.deps)).toBe(idOf(at.ca));
    await add(TEST_NOW - 2 * DAY_MS, TEST_NOW - DAY_MS, true);
    expect(rootsOf(at.dir)).toHaveLength(2);
  });

  test('H6 an expired root beside a valid one hinders nothing and can be retired', async () => {
    const at = await world();
    const expired = await makeTestCa({
      name: 'old',
      notBeforeAt: TEST_NOW - 2 * DAY_MS,
      notAfterAt: TEST_NOW - DAY_MS,
    });
    await addRoot(at, { ...NEW, pem: certificatesPem([expired.certificateDer]) }, at.deps);
    expect(await stages(at)).toEqual(['active 0', 'trusted 0']);
    await retireRoot(at, { id: idOf(expired) }, at.deps);
    expect(await stages(at)).toEqual(['active 0']);
  });

  test('H7 a root renewed under the same key takes over what leads to it', async () => {
    const at = await world();
    const renewed = await makeTestCa({
      privateKey: at.ca.privateKey,
      notAfterAt: TEST_NOW + 9_000 * DAY_MS,
    });
    await at.store.recordIssued(
      issuedEntry({ rootKeySha256: await keyHashOf(at.ca), notAfterAt: TEST_NOW + DAY_MS }),
    );
    await addRoot(
      at,
      { ...NEW, pem: Buffer.concat([keyPem(renewed), certificatesPem([renewed.certificateDer])]) },
      at.deps,
    );
    expect(rootsOf(at.dir)).toHaveLength(2);
    await activateRoot(at, { force: true, id: idOf(renewed) }, at.deps);
    await retireRoot(at, { id: idOf(at.ca) }, at.deps);
    expect(rootsOf(at.dir)).toEqual([Buffer.from(renewed.certificateDer)]);
  });

  test.each([
    [
      'the same name under another key',
      () => makeTestCa({ notAfterAt: TEST_NOW + 9_000 * DAY_MS }),
    ],
    [
      'another name under the same key',
      (at: World) => makeTestCa({ name: 'renamed', privateKey: at.ca.privateKey }),
    ],
  ])('H7 a root of %s takes over nothing', async (_, makeNext) => {
    const at = await world();
    const next = await makeNext(at);
    await at.store.recordIssued(
      issuedEntry({ rootKeySha256: await keyHashOf(at.ca), notAfterAt: TEST_NOW + DAY_MS }),
    );
    await addRoot(
      at,
      { ...NEW, pem: Buffer.concat([keyPem(next), certificatesPem([next.certificateDer])]) },
      at.deps,
    );
    await activateRoot(at, { force: true, id: idOf(next) }, at.deps);
    await expect(retireRoot(at, { id: idOf(at.ca) }, at.deps)).rejects.toMatchObject({
      code: 'ERR_TOO_EARLY',
    });
    expect(rootsOf(at.dir)).toHaveLength(2);
  });

  test('H8 what is no root is not added, and nothing changes', async () => {
    const at = await world();
    const intermediate = await makeTestCa({ parent: await makeTestCa({ name: 'stranger' }) });
    const foreign = await makeTestCa({ name: 'foreign' });
    const before = fileOf(at.dir, 'root-cert.pem');
    for (const [pem, rule] of [
      [Buffer.from('no certificate'), /must hold|BEGIN/],
      [certificatesPem([intermediate.certificateDer]), /must hold a self-signed CA certificate/],
      [
        Buffer.concat([keyPem(foreign), certificatesPem([at.ca.certificateDer])]),
        /must hold the certificate that its key belongs to/,
      ],
      [
        certificatesPem([(await makeTestCa({ isCa: false })).certificateDer]),
        /must hold CA certificates only/,
      ],
      [
        Buffer.concat([keyPem(intermediate), certificatesPem([intermediate.certificateDer])]),
        /must verify to a trusted root/,
      ],
    ] as const) {
      const error = await addRoot(at, { ...NEW, pem }, at.deps).catch((caught) => caught);
      expect(['ERR_PARSE', 'ERR_CA_STATE']).toContain(error.code);
      expect(error.message).toMatch(rule);
    }
    expect(fileOf(at.dir, 'root-cert.pem')).toEqual(before);
    expect(await stages(at)).toEqual(['active 0']);
  });

  test('an intermediate under a new root is added and activated as one', async () => {
    const at = await world();
    const root = await makeTestCa({ name: 'offline' });
    const signer = await makeTestCa({ parent: root });
    const pem = Buffer.concat([
      keyPem(signer),
      certificatesPem([signer.certificateDer, root.certificateDer]),
    ]);
    await addRoot(at, { ...NEW, pem }, at.deps);
    expect(await activateRoot(at, { id: idOf(root), force: true }, at.deps)).toBe(idOf(signer));
    expect(fileOf(at.dir, 'ca-cert.pem')).toEqual(certificatesPem([signer.certificateDer]));
    expect(await stages(at)).toEqual(['active 0', 'ready 0']);
  });

  test('two commands at once do not undo each other', async () => {
    const at = await world();
    const results = await Promise.allSettled([
      addRoot(at, NEW, at.deps),
      addRoot(at, NEW, at.deps),
    ]);
    const failed = results.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
    for (const { reason } of failed) expect(reason).toMatchObject({ code: 'ERR_SOCKET_IN_USE' });
    expect(rootsOf(at.dir)).toHaveLength(3 - failed.length);
  });
});

async function keyHashOf(ca: TestCa): Promise<string> {
  const { createHash } = await import('node:crypto');
  return createHash('sha256')
    .update(parseCertificate(ca.certificateDer).publicKey.spkiDer)
    .digest('hex');
}

test('a signer that is added is durable before it has its name, and one that is dropped has lost its name durably before its files go', async () => {
  const at = await world();
  const steps: string[] = [];
  const ends = await onFsStep(
    (name) => ['writeFile', 'sync', 'rename', 'rm'].includes(name) && steps.push(name),
  );
  try {
    await keepSigner(at.dir, 'a'.repeat(16), {
      keyPem: new Secret(keyPem(at.ca)),
      certPem: fileOf(at.dir, 'ca-cert.pem'),
      chainPem: fileOf(at.dir, 'cert-chain.pem'),
      rootPem: fileOf(at.dir, 'root-cert.pem'),
    });
    const written = ['writeFile', 'sync'];
    expect(steps.splice(0)).toEqual([
      'sync',
      ...written,
      ...written,
      ...written,
      ...written,
      'sync',
      'rename',
      'sync',
    ]);
    await dropSigner(at.dir, 'a'.repeat(16));
    expect(steps).toEqual(['rename', 'sync', 'rm']);
  } finally {
    ends();
  }
});

describe('a command that dies before any file operation', () => {
  const signed = async (dir: string) => {
    const authority = await openAuthority(
      { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
      testDeps({ clock: new TestClock() }),
    );
    const leaf = await issue(authority);
    await authority.close();
    const [first, ...rest] = leaf.certificatesDer.map((der) => parseCertificate(der));
    return verifyChain(
      first!,
      rest,
      rootsOf(dir).map((der) => parseCertificate(der)),
      TEST_NOW,
    ).root.sha256;
  };

  test.each(['add', 'activate', 'retire'] as const)(
    '%s leaves a directory that signs, and can be run again to its end',
    async (command) => {
      const run = (at: World) =>
        command === 'add'
          ? addRoot(at, NEW, at.deps)
          : command === 'activate'
            ? activateRoot(at, { force: true }, at.deps)
            : retireRoot(at, { id: idOf(at.ca) }, at.deps);
      let died = 0;
      for (let dieAt = 1; dieAt < 500; dieAt += FULL ? 1 : 17) {
        const at = await world();
        if (command !== 'add') await addRoot(at, NEW, at.deps);
        if (command === 'retire') await activateRoot(at, { force: true }, at.deps);
        let dead = false;
        const undo = await onFsStep((name, step) => {
          if (step < dieAt || name === 'close') return;
          dead = true;
          throw Object.assign(new Error('killed'), { code: 'EKILLED' });
        });
        await run(at).catch((caught) => {
          if (!dead) throw caught;
        });
        undo();
        const root = await signed(at.dir);
        if (command === 'add') expect(root).toBe(parseCertificate(at.ca.certificateDer).sha256);
        if (!dead) break;
        died += 1;
        // Where it had done its work before it died there is nothing left to do, and it says so.
        await run(at).catch((caught) =>
          expect(caught).toMatchObject({
            code: 'ERR_CA_STATE',
            message: expect.stringMatching(/to choose from/),
          }),
        );
        await signed(at.dir);
        expect(rootsOf(at.dir).length).toBeLessThanOrEqual(command === 'retire' ? 1 : 3);
      }
      expect(died).toBeGreaterThan(FULL ? 40 : 3);
    },
  );
});

async function issue(authority: Authority, key?: KeyPair): Promise<IssuedLeaf & { key: KeyPair }> {
  const own = key ?? (await directEngine.generateKeyPair('ecdsa-p256'));
  const csr = await authority.readCsr(await directEngine.createCsr(own, parseSpiffeId(TEST_ID)));
  return { ...(await authority.issue(csr, parseSpiffeId(TEST_ID), 3_600)), key: own };
}

/** A workload as its proxy is: the certificate and the bundle that it was last given. */
interface Peer {
  leaf: IssuedLeaf & { key: KeyPair };
  bundle: TrustBundle;
}

async function handshake(server: Peer, client: Peer): Promise<void> {
  const context = ({ leaf, bundle }: Peer): SecureContextOptions => ({
    cert: certificatesPem(leaf.certificatesDer),
    key: privateKeyPem(leaf.key, 'pkcs8'),
    ca: certificatesPem(bundle.rootsDer),
    minVersion: 'TLSv1.3',
  });
  const listener = createTlsServer(
    { ...context(server), requestCert: true, rejectUnauthorized: true },
    (socket: TLSSocket) => socket.end('hello'),
  );
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
  try {
    await new Promise<void>((done, failed) => {
      const { port } = listener.address() as { port: number };
      listener.once('tlsClientError', failed);
      const socket = connect({
        ...context(client),
        port,
        host: '127.0.0.1',
        checkServerIdentity: () => undefined,
      });
      socket.once('error', failed);
      // The greeting comes once the server has accepted the client's certificate too.
      socket.once('data', () => {
        socket.destroy();
        done();
      });
    });
  } finally {
    await new Promise((done) => listener.close(done));
  }
}

test('H1 H5 no handshake fails while a root is added, activated and the old one retired, whoever renews when', async () => {
  const dir = tempDir();
  const deps = testDeps();
  const options = {
    dir,
    trustDomain: 'cluster.local',
    rootAlgorithm: 'ecdsa-p256',
    engine: directEngine,
  } as const;
  const authority = await openAuthority(options, deps);
  closing.push(() => authority.close());
  const store = await openFileStore(dir, deps);
  closing.push(() => store.close());
  const roots = { ...options, store };
  const renew = async (peer: Peer) => {
    peer.leaf = await issue(authority);
    peer.bundle = authority.trust.value;
    const { serial, notAfterAt, issuerKeyId, rootKeySha256 } = peer.leaf;
    await store.recordIssued(issuedEntry({ serial, notAfterAt, issuerKeyId, rootKeySha256 }));
  };
  const peers = await Promise.all(
    [0, 1, 2].map(async () => ({ leaf: await issue(authority), bundle: authority.trust.value })),
  );
  const all = async () => {
    for (const server of peers)
      for (const client of peers) if (server !== client) await handshake(server, client);
  };
  const step = async (change: () => Promise<unknown>, seen: (value: TrustBundle) => boolean) => {
    await all();
    await change();
    await firstValue(authority.trust, seen);
    for (const peer of peers) {
      await renew(peer);
      await all();
    }
  };
  const [old] = peers[0]!.leaf.certificatesDer;
  const begun = Date.now();
  await step(
    () => addRoot(roots, NEW, deps),
    ({ rootsDer }) => rootsDer.length === 2,
  );
  // H5: a running authority has told of the new root at once.
  expect(Date.now() - begun).toBeLessThan(underLoad(5_000));
  const signer = new Promise<void>((done) => authority.onSignerChange(done));
  await step(
    async () => {
      await activateRoot(roots, { force: true }, deps);
      await signer;
    },
    ({ rootsDer }) => rootsDer.length === 2,
  );
  expect(parseCertificate(peers[0]!.leaf.certificatesDer[0]!).authorityKeyId).not.toEqual(
    parseCertificate(old!).authorityKeyId,
  );
  await expect(retireRoot(roots, {}, deps)).rejects.toMatchObject({ code: 'ERR_TOO_EARLY' });
  await step(
    () => retireRoot(roots, { force: true }, deps),
    ({ rootsDer }) => rootsDer.length === 1,
  );
});

test('H10 after a stolen CA key a new root signs, and all that the old one signed is revoked', async () => {
  const at = await world();
  const rootKeySha256 = await keyHashOf(at.ca);
  const stolen = parseCertificate(at.ca.certificateDer).subjectKeyId!;
  const issuerKeyId = Buffer.from(stolen).toString('hex');
  for (let index = 0; index < 100; index += 1) {
    await at.store.recordIssued(
      issuedEntry({ rootKeySha256, issuerKeyId, notAfterAt: TEST_NOW + DAY_MS }),
    );
  }
  const begun = performance.now();
  await addRoot(at, NEW, at.deps);
  await activateRoot(at, { force: true }, at.deps);
  expect(await at.store.revoke({ issuerKeyId }, 'keyCompromise', TEST_NOW)).toHaveLength(100);
  await retireRoot(at, {}, at.deps);
  expect(performance.now() - begun).toBeLessThan(underLoad(5_000));
  expect(rootsOf(at.dir)).toHaveLength(1);
  expect(await at.store.issued({ issuerKeyId }, TEST_NOW)).toHaveLength(100);
});

test('a root for another trust domain is refused, and nothing is left of it', async () => {
  const dir = tempDir();
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const options = {
    dir,
    trustDomain: 'cluster.local',
    rootAlgorithm: 'ecdsa-p256',
    engine: directEngine,
  } as const;
  await (await openAuthority(options, deps)).close();
  const store = await openFileStore(dir, deps);
  closing.push(() => store.close());
  const at = { ...options, store, clock, deps };
  expect(await namedTrustDomain(dir)).toBe('cluster.local');
  await expect(addRoot({ ...at, trustDomain: 'other.org' }, NEW, at.deps)).rejects.toMatchObject({
    code: 'ERR_CA_STATE',
    field: 'ca-cert.pem',
  });
  expect(readdirSync(join(at.dir, 'signers'))).toEqual([]);
  await addRoot(at, NEW, at.deps);
  expect(rootsOf(at.dir)).toHaveLength(2);
});

test('a directory that is not a CA is left alone', async () => {
  const at = await world();
  rmSync(join(at.dir, 'ca-key.pem'));
  await expect(addRoot(at, NEW, at.deps)).rejects.toMatchObject({ code: 'ERR_CA_STATE' });
  writeFileSync(join(at.dir, 'ca-key.pem'), keyPem(await makeTestCa()), { mode: 0o600 });
  await expect(addRoot(at, NEW, at.deps)).rejects.toMatchObject({
    code: 'ERR_CA_STATE',
    field: 'ca-key.pem',
  });
});
