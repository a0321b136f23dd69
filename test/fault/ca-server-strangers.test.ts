import { generateKeyPairSync } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createClientCertificateAuthenticator } from '../../agent/authority/server/client-certificate';
import { parseCertificate } from '../../agent/identity/certificate';
import { generateKeyPair } from '../../agent/identity/keys';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { but } from '../support/but';
import {
  type CaWorld,
  type ClientIdentity,
  issueIdentity,
  makeRequest,
  startCaWorld,
} from '../support/ca-server';
import {
  HOUR_MS,
  issueLeaf,
  makeCsr,
  makeDearCsr,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
} from '../support/certs';
import { cpuMs } from '../support/load';
import { TestClock } from '../support/test-clock';
import { testDeps } from '../support/test-deps';

const INVALID_ARGUMENT = 3;
const UNAUTHENTICATED = 16;

const dearKey = () => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;

/** What a stranger shows: a leaf and seven CAs of the authority's own name, P-521, each signed by the next. */
async function strangersChain({ rootsDer }: TrustBundle): Promise<ClientIdentity> {
  const { subjectDer } = parseCertificate(rootsDer[0]!);
  const key = await generateKeyPair('ecdsa-p256');
  const cas = [await makeTestCa({ subjectDer, noKeyIds: true, privateKey: dearKey() })];
  while (cas.length < 7)
    cas.unshift(
      await makeTestCa({ subjectDer, noKeyIds: true, privateKey: dearKey(), parent: cas[0] }),
    );
  const leaf = issueLeaf(cas[0]!, { key, noKeyIds: true, notAfterAt: Date.now() + HOUR_MS });
  return { key, certificatesDer: [leaf, ...cas.map(({ certificateDer }) => certificateDer)] };
}

describe('field E4: strangers do not make the authority compute', () => {
  let world: CaWorld;
  /** Requests whose signature was verified. */
  let verified = 0;
  beforeAll(async () => {
    world = await startCaWorld({
      wrapAuthority: (authority) =>
        but(authority, {
          verifyCsr: (csr) => {
            verified += 1;
            return authority.verifyCsr(csr);
          },
        }),
    });
  });
  afterAll(() => world.close());

  test.each([
    ['RSA-8192', makeDearCsr, INVALID_ARGUMENT],
    ['P-521', () => makeCsr({ privateKey: dearKey() }), 0],
  ] as const)(
    'the signature of a request of %s is verified for an authenticated caller alone',
    async (_, makeRequestDer, code) => {
      const csr = makeRequestDer();
      const before = verified;
      for (const client of [
        world.client(),
        world.client(await strangersChain(world.authority.trust.value)),
      ]) {
        expect(await client.create(csr)).toMatchObject({ code: UNAUTHENTICATED });
        expect(await client.create(csr, { token: `kt1_${'A'.repeat(43)}` })).toMatchObject({
          code: UNAUTHENTICATED,
        });
      }
      expect(verified).toBe(before);
      expect(await world.client(await issueIdentity(world.authority)).create(csr)).toMatchObject({
        code,
      });
      expect(verified).toBe(before + 1);
    },
  );

  test('a request that its own key did not sign leaves the one-time token that came with it good', async () => {
    const token = await world.joinToken();
    const [{ csrDer }, another] = [await makeRequest(), await makeRequest()];
    const forged = makeCsr({ privateKey: dearKey(), signer: dearKey() });
    expect(await world.client().create(forged, { token })).toMatchObject({
      code: INVALID_ARGUMENT,
    });
    expect(await world.client().create(csrDer, { token })).toMatchObject({ code: 0 });
    expect(await world.client().create(another.csrDer, { token })).toMatchObject({
      code: UNAUTHENTICATED,
    });
  });

  test('a chain of eight certificates of its own name is refused, and an agent beside it is served', async () => {
    const { csrDer } = await makeRequest();
    const [stranger, agent] = [
      await strangersChain(world.authority.trust.value),
      await issueIdentity(world.authority),
    ];
    const calls = Array.from({ length: 50 }, () => world.client(stranger).create(csrDer));
    expect(await world.client(agent).create(csrDer)).toMatchObject({ code: 0 });
    expect(new Set((await Promise.all(calls)).map(({ code }) => code))).toEqual(
      new Set([UNAUTHENTICATED]),
    );
  });
});

describe('field E4: what a client certificate was found to be is remembered', () => {
  const setUp = async () => {
    const root = await makeTestCa();
    const clock = new TestClock(TEST_NOW);
    const trust = { value: root.bundle, subscribe: () => () => undefined };
    const revoked = new Set<string>();
    const options = {
      trustDomain: 'cluster.local',
      aliases: [],
      trust,
      isRevoked: (serial: string) => revoked.has(serial),
    };
    const authenticator = createClientCertificateAuthenticator(options, testDeps({ clock }));
    const show = (certificatesDer: readonly Uint8Array[]) =>
      authenticator.authenticate(
        { bearer: undefined, certificatesDer, address: '127.0.0.1', keySha256: '' },
        new AbortController().signal,
      );
    return { root, clock, show, revoked };
  };

  test('refusals too: two thousand calls of eight dear certificates take less than one signature each', async () => {
    const { root, show } = await setUp();
    const { certificatesDer } = await strangersChain(root.bundle);
    await expect(show(certificatesDer)).rejects.toMatchObject({ code: 'ERR_TOKEN' });
    const startedAt = cpuMs();
    for (let call = 0; call < 2_000; call += 1) await show(certificatesDer).catch(() => undefined);
    // 56 signatures of 1.4 ms each, for every call, would be minutes.
    expect(cpuMs() - startedAt).toBeLessThan(2_800);
  });

  test('but not a revocation, nor beyond the end of a certificate', async () => {
    const { root, clock, show, revoked } = await setUp();
    const key = await generateKeyPair('ecdsa-p256');
    const [one, other] = [issueLeaf(root, { key }), issueLeaf(root, { key })];
    for (const each of [one, other])
      await expect(show([each])).resolves.toMatchObject({
        id: { path: new URL(TEST_ID).pathname },
      });
    revoked.add(parseCertificate(one).serial);
    await expect(show([one])).rejects.toThrow('must not be revoked');
    await clock.advanceTo(TEST_NOW + 25 * HOUR_MS);
    await expect(show([other])).rejects.toThrow('must not be expired');
  });
});
