import { afterEach, describe, expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { atOnce } from '../../../agent/base/steps';
import { WatchedSource } from '../../../agent/base/watched';
import type { CertState } from '../../../agent/identity/cert-state';
import { type CrlSet, crlSetSteps } from '../../../agent/identity/crl';
import { isListed } from '../../../agent/identity/crl-entries';
import { generateKeyPair, type KeyPair } from '../../../agent/identity/keys';
import type { HandshakeMaterial } from '../../../agent/identity/self-handshake';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../../../agent/identity/svid';
import { createTrustBundle, type TrustBundle } from '../../../agent/identity/trust-bundle';
import { createServingGate, type ServingGate } from '../../../agent/lifecycle/serving-gate';
import {
  HOUR_MS,
  issueLeaf,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
  type TestCa,
  type TestCaOptions,
} from '../../support/certs';
import { parseCrl } from '../../support/parse-crl';
import { makeList } from '../../support/proxy-sets';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const gates: ServingGate[] = [];
afterEach(async () => {
  for (const gate of gates.splice(0)) await gate.close();
});

/** The same name and key, certified again. */
const again = (ca: TestCa, options: TestCaOptions) =>
  makeTestCa({ privateKey: ca.privateKey, ...options });
const bundleOf = (...cas: readonly TestCa[]) =>
  createTrustBundle(cas.map(({ certificateDer }) => certificateDer));

async function svidOf(
  ca: TestCa,
  bundle: TrustBundle,
  now: number,
  options: { readonly from?: number; readonly serial?: Uint8Array } = {},
): Promise<Svid> {
  const key: KeyPair = await generateKeyPair('ecdsa-p256');
  const { from = now - HOUR_MS, serial } = options;
  const leaf = issueLeaf(ca, {
    key,
    notBeforeAt: from,
    notAfterAt: now + 24 * HOUR_MS,
    ...(serial && { serial }),
  });
  return acceptIssuedChain(
    { id: parseSpiffeId(TEST_ID), key, source: 'test' },
    [leaf, ...ca.intermediatesDer],
    bundle,
    now,
  );
}

const current = (svid: Svid, bundle = svid.bundle): CertState => ({
  kind: 'current',
  svid,
  bundle,
  renewAt: undefined,
});
const listsOf = (...ders: readonly Uint8Array[]) =>
  atOnce(crlSetSteps(ders.map((der) => parseCrl(der))));

/** A gate whose handshakes succeed unless told. */
function gateOf(first: CertState, lists?: CrlSet) {
  const clock = new TestClock();
  const deps = testDeps({ clock });
  const source = new WatchedSource<CertState>(first);
  const crl = lists && new WatchedSource<CrlSet | undefined>(lists);
  const asked: HandshakeMaterial[] = [];
  const tls: { says: string | undefined } = { says: undefined };
  const handshake = async (material: HandshakeMaterial) => {
    asked.push(material);
    return tls.says;
  };
  const revoked: string[] = [];
  const gate = createServingGate(
    { state: source, lists: crl, handshake, revoked: (serial) => revoked.push(serial) },
    deps,
  );
  gates.push(gate);
  const roots = () => gate.state.value.bundle?.rootsDer ?? [];
  const serial = () => ('svid' in gate.state.value ? gate.state.value.svid.serial : undefined);
  const offer = (state: CertState) => {
    source.set(state);
    return settle();
  };
  return { clock, deps, source, crl, asked, tls, revoked, gate, roots, serial, offer };
}

describe('roots', () => {
  test('field A1: of one name are served living first, and the others are withheld until their dates', async () => {
    const live = await makeTestCa({ notAfterAt: TEST_NOW + 100 * HOUR_MS });
    const ended = await again(live, { notAfterAt: TEST_NOW - HOUR_MS });
    const ahead = await again(live, {
      notBeforeAt: TEST_NOW + HOUR_MS,
      notAfterAt: TEST_NOW + 90 * HOUR_MS,
    });
    const soon = await again(live, { notAfterAt: TEST_NOW + 2 * HOUR_MS });
    const bundle = bundleOf(ended, ahead, soon, live);
    const at = gateOf(current(await svidOf(live, bundle, TEST_NOW)));
    await settle();
    const of = (...cas: readonly TestCa[]) =>
      cas.map(({ certificateDer }) => Buffer.from(certificateDer));
    const served = () => at.roots().map((der) => Buffer.from(der));
    expect(served()).toEqual(of(live, soon));
    expect(
      at.gate
        .withheld()
        .map(({ because }) => because)
        .sort(),
    ).toEqual(['begins at 2026-01-01T01:00:00.000Z', 'ended at 2025-12-31T23:00:00.000Z']);
    await at.clock.advanceBy(HOUR_MS);
    expect(served()).toEqual(of(live, ahead, soon));
    await at.clock.advanceBy(HOUR_MS);
    expect(served()).toEqual(of(live, ahead));
    expect(at.gate.problem()).toBeUndefined();
  });

  test('field A1: that have all ended are not served; where some were served, they stay and the problem says so', async () => {
    const ca = await makeTestCa({ notAfterAt: TEST_NOW + HOUR_MS });
    const bundle = bundleOf(ca);
    const at = gateOf(current(await svidOf(ca, bundle, TEST_NOW)));
    await settle();
    expect(at.roots()).toHaveLength(1);
    await at.clock.advanceBy(HOUR_MS);
    expect(at.gate.state.value).toMatchObject({ kind: 'unavailable' });
    expect(at.gate.problem()?.message).toMatch(
      /must hold a root that is valid now: .* ended at 2026-01-01T01:00:00/,
    );
    const fresh = gateOf({
      kind: 'starting',
      bundle: bundleOf(await again(ca, { notAfterAt: TEST_NOW - 1_000 })),
    });
    expect(fresh.roots()).toEqual([]);
    expect(fresh.gate.problem()?.message).toMatch(/nothing is served/);
  });

  test('field A8: more than a handshake can name are refused with the number that works, and the last good bundle stays', async () => {
    const ca = await makeTestCa();
    const others = await Promise.all(
      Array.from({ length: 80 }, (_, index) =>
        again(ca, { name: `${index} ${'of a long name '.repeat(70)}` }),
      ),
    );
    const svid = await svidOf(ca, bundleOf(ca), TEST_NOW);
    const at = gateOf(current(svid));
    await settle();
    await at.offer(current(svid, bundleOf(ca, ...others)));
    expect(at.roots()).toHaveLength(1);
    const [, works] = /must not hold 81 roots: .*; (\d+) work; the previous set stays/.exec(
      at.gate.problem()!.message,
    )!;
    await at.offer(current(svid, bundleOf(ca, ...others.slice(0, Number(works) - 1))));
    expect(at.gate.problem()).toBeUndefined();
    expect(at.roots()).toHaveLength(Number(works));
  });
});

describe('what fails does not replace what works', () => {
  test('field B2: a set that TLS refuses is tried again each minute, and served once it passes', async () => {
    const ca = await makeTestCa();
    const bundle = bundleOf(ca);
    const at = gateOf({ kind: 'starting', bundle });
    at.tls.says = 'CRL_NOT_YET_VALID';
    await at.offer(current(await svidOf(ca, bundle, TEST_NOW)));
    expect([at.gate.problem()?.code, at.serial()]).toEqual(['ERR_SELF_CHECK', undefined]);
    await at.clock.advanceBy(60_000);
    expect([at.gate.problem()?.code, at.asked.length]).toEqual(['ERR_SELF_CHECK', 2]);
    at.tls.says = undefined;
    await at.clock.advanceBy(60_000);
    expect([at.gate.problem(), at.asked.length]).toEqual([undefined, 3]);
    expect(at.serial()).toBeDefined();
    await at.clock.advanceBy(10 * 60_000);
    expect(at.asked).toHaveLength(3);
  });

  test("a certificate that the machine's TLS refuses, and each set is asked about once", async () => {
    const ca = await makeTestCa();
    const [first, second] = [
      await svidOf(ca, ca.bundle, TEST_NOW),
      await svidOf(ca, ca.bundle, TEST_NOW),
    ];
    const at = gateOf(current(first));
    await settle();
    at.tls.says = 'ERR_SSL_OVERFLOW';
    await at.offer(current(second));
    expect(at.gate.state.value).toMatchObject({
      kind: 'overdue',
      svid: first,
      error: { code: 'ERR_SELF_CHECK' },
    });
    expect(at.gate.problem()?.message).toMatch(
      /TLS of this machine says ERR_SSL_OVERFLOW; the previous set stays in service/,
    );
    await at.offer(current(first));
    expect(at.gate.state.value).toMatchObject({ kind: 'current', svid: first });
    expect(at.asked).toHaveLength(2);
    expect(at.deps.events.map(({ event }) => event)).toEqual(
      expect.arrayContaining(['self-check failed', 'self-check passed again']),
    );
  });

  test('a first certificate that fails is not served, nor are its roots', async () => {
    const ca = await makeTestCa();
    const at = gateOf(current(await svidOf(ca, ca.bundle, TEST_NOW, { from: TEST_NOW + 30_000 })));
    await settle();
    expect([at.serial(), at.roots()]).toEqual([undefined, []]);
    expect(at.gate.problem()?.message).toMatch(
      /leaf must be valid now: it begins at .*; nothing is served/,
    );
    await at.clock.advanceBy(30_000);
    expect(at.gate.state.value.kind).toBe('current');
  });

  test('a bundle without our own root, until a certificate comes that verifies by it', async () => {
    const [old, next] = [await makeTestCa(), await makeTestCa({ name: 'next' })];
    const svid = await svidOf(old, old.bundle, TEST_NOW);
    const at = gateOf(current(svid));
    await settle();
    await at.offer(current(svid, next.bundle));
    expect(at.gate.state.value.bundle?.version).toBe(old.bundle.version);
    const renewed = await svidOf(next, next.bundle, TEST_NOW);
    await at.offer(current(renewed));
    expect(at.gate.state.value).toMatchObject({
      kind: 'current',
      svid: renewed,
      bundle: { version: next.bundle.version },
    });
    expect(at.gate.problem()).toBeUndefined();
  });
});

test('the end of a certificate is no failure of the check, whoever hears of it first', async () => {
  const ca = await makeTestCa();
  const svid = await svidOf(ca, ca.bundle, TEST_NOW);
  const at = gateOf(current(svid));
  await settle();
  await at.clock.advanceTo(svid.notAfterAt);
  expect(at.gate.problem()).toBeUndefined();
  const error = new AgentError('ERR_CA_UNAVAILABLE', 'expired');
  await at.offer({
    kind: 'unavailable',
    bundle: ca.bundle,
    expired: svid,
    error,
    retryAt: svid.notAfterAt,
  });
  expect([at.serial(), at.gate.problem(), at.gate.state.value.kind]).toEqual([
    undefined,
    undefined,
    'unavailable',
  ]);
});

describe('revocation lists', () => {
  const world = async () => {
    const root = await makeTestCa();
    const int = await makeTestCa({ parent: root });
    const at = { thisUpdateAt: TEST_NOW - HOUR_MS, nextUpdateAt: TEST_NOW + 24 * HOUR_MS };
    const serial = Buffer.from('40aa', 'hex');
    return {
      root,
      int,
      at,
      serial,
      svid: await svidOf(int, root.bundle, TEST_NOW, { serial }),
      ofRoot: makeList(root, at),
      ofInt: makeList(int, at),
    };
  };

  test('field A3: without one of the issuer of our own leaf nothing is served, and the problem names it', async () => {
    const { svid, ofRoot, ofInt } = await world();
    const at = gateOf(current(svid), listsOf(ofRoot));
    await settle();
    expect(at.serial()).toBeUndefined();
    expect(at.gate.problem()?.message).toMatch(
      /must hold a list of the issuer of our certificate, "O=cluster.local, CN=intermediate"/,
    );
    at.crl!.set(listsOf(ofRoot, ofInt));
    await settle();
    expect([at.serial(), at.gate.lists!.value?.lists.length, at.gate.problem()]).toEqual([
      '40aa',
      2,
      undefined,
    ]);
    at.crl!.set(listsOf(ofRoot));
    await settle();
    expect([at.serial(), at.gate.lists!.value?.lists.length]).toEqual(['40aa', 2]);
    expect(at.gate.problem()?.message).toMatch(/the previous set stays in service/);
  });

  test('that name our own certificate are served, since they name others too; the problem says that it is revoked', async () => {
    const { root, svid, ofRoot, ofInt, int, at: dates, serial } = await world();
    const at = gateOf(current(svid), listsOf(ofRoot, ofInt));
    await settle();
    at.crl!.set(listsOf(ofRoot, makeList(int, { ...dates, revoked: [serial] })));
    await settle();
    expect([
      at.serial(),
      at.gate.lists!.value?.lists.some(({ revoked }) => isListed(revoked, '40aa')),
    ]).toEqual(['40aa', true]);
    expect(at.gate.problem()).toMatchObject({
      field: 'leaf',
      rule: expect.stringContaining('names 40aa'),
    });
    expect(at.gate.problem()!.message).toMatch(/served certificate is revoked$/);
    expect(new Set(at.revoked)).toEqual(new Set(['40aa']));
    const renewed = await svidOf(int, root.bundle, TEST_NOW);
    await at.offer(current(renewed));
    expect([at.serial(), at.gate.problem()]).toEqual([renewed.serial, undefined]);
  });

  test('that have not begun wait for their date while the last ones are served', async () => {
    const { svid, ofRoot, ofInt, int } = await world();
    const at = gateOf(current(svid), listsOf(ofRoot, ofInt));
    await settle();
    const ahead = makeList(int, {
      thisUpdateAt: TEST_NOW + 30_000,
      nextUpdateAt: TEST_NOW + 24 * HOUR_MS,
    });
    at.crl!.set(listsOf(ofRoot, ahead));
    await settle();
    expect(at.gate.lists!.value?.lists.map(({ der }) => Buffer.from(der))).toEqual([
      Buffer.from(ofRoot),
      Buffer.from(ofInt),
    ]);
    await at.clock.advanceBy(30_000);
    expect(at.gate.lists!.value?.lists.map(({ der }) => Buffer.from(der))).toEqual([
      Buffer.from(ofRoot),
      Buffer.from(ahead),
    ]);
  });
});
