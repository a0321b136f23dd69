import { afterEach, describe, expect, test } from '@jest/globals';
import { openJwtAuthority } from '../../../agent/authority/jwt/jwt-authority';
import { WatchedSource } from '../../../agent/base/watched';
import type { FederatedBundles } from '../../../agent/identity/spiffe-bundle';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { verifyJwtSvid } from '../../../agent/jwt/jwt-svid';
import {
  JWTBundlesResponse,
  JWTSVIDRequest,
  JWTSVIDResponse,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
} from '../../../sds/proto/generated/workload';
import type { JwtSources } from '../../../sds/workload-api/jwt-answers';
import { TEST_ID } from '../../support/certs';
import { type SdsWorld, startSdsWorld, unavailableState } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';
import { testDeps } from '../../support/test-deps';
import { createWorkloadClient, type WorkloadClient } from '../../support/workload-client';

const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const UNIMPLEMENTED = 12;
const UNAVAILABLE = 14;
const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface World {
  readonly sds: SdsWorld;
  readonly client: WorkloadClient;
  token(request: Partial<JWTSVIDRequest>): Promise<JWTSVIDResponse>;
  validate(audience: string, svid: string): Promise<ValidateJWTSVIDResponse>;
  bundles(): Promise<Record<string, { keys: { kid: string; use?: string; d?: string }[] }>>;
}

const withKeys = async (ttlMs = 300_000): Promise<JwtSources> => {
  const authority = await openJwtAuthority(
    { caDir: tempDir(), algorithm: 'ecdsa-p256' },
    testDeps(),
  );
  closing.push(() => authority.close());
  return {
    ttlMs,
    open: async () => authority,
    verify: (token, audience, keysOf) => verifyJwtSvid(token, audience, keysOf, Date.now()),
  };
};
const start = async (jwt?: JwtSources, federated?: FederatedBundles): Promise<World> => {
  const sds = await startSdsWorld(tempDir(), {
    id: parseSpiffeId(TEST_ID),
    hint: 'internal',
    ...(jwt && { jwt }),
    ...(federated && { federated: new WatchedSource(federated) }),
  });
  closing.push(() => sds.close());
  const client = createWorkloadClient(sds.socketPath);
  closing.push(() => client.close());
  return {
    sds,
    client,
    token: (request) =>
      client.call(
        'FetchJWTSVID',
        JWTSVIDRequest.encode({ audience: [], spiffeId: '', ...request }).finish(),
        (bytes) => JWTSVIDResponse.decode(bytes),
      ),
    validate: (audience, svid) =>
      client.call(
        'ValidateJWTSVID',
        ValidateJWTSVIDRequest.encode({ audience, svid }).finish(),
        (bytes) => ValidateJWTSVIDResponse.decode(bytes),
      ),
    bundles: async () => {
      const { bundles } = await client
        .stream('FetchJWTBundles', (bytes) => JWTBundlesResponse.decode(bytes))
        .next();
      return Object.fromEntries(
        [...bundles].map(([name, jwks]) => [name, JSON.parse(jwks.toString())]),
      );
    },
  };
};
const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString());

describe('FetchJWTSVID', () => {
  test('gives a token for the audiences that were asked for, each once, which ValidateJWTSVID finds good', async () => {
    const world = await start(await withKeys());
    await world.sds.rotate();
    const { svids } = await world.token({ audience: ['shop', 'bank', 'shop'], spiffeId: TEST_ID });
    expect(svids).toEqual([{ spiffeId: TEST_ID, svid: expect.any(String), hint: 'internal' }]);
    const claims = claimsOf(svids[0]!.svid);
    expect(claims).toMatchObject({ sub: TEST_ID, aud: ['shop', 'bank'] });
    expect(claims.exp - claims.iat).toBe(300);
    const { spiffeId, claims: told } = await world.validate('bank', svids[0]!.svid);
    expect([spiffeId, told]).toEqual([TEST_ID, claims]);
    await expect(world.validate('till', svids[0]!.svid)).rejects.toMatchObject({
      code: INVALID_ARGUMENT,
      details: expect.stringContaining('token aud'),
    });
  });

  test('no token outlives the certificate', async () => {
    const world = await start(await withKeys(24 * 3_600_000));
    const svid = await world.sds.rotate();
    world.sds.state.set({
      kind: 'current',
      svid: { ...svid, notAfterAt: Date.now() + 60_000 },
      bundle: svid.bundle,
      renewAt: undefined,
    });
    const claims = claimsOf((await world.token({ audience: ['shop'] })).svids[0]!.svid);
    expect(claims.exp - claims.iat).toBeLessThanOrEqual(60);
  });

  test.each<[string, Partial<JWTSVIDRequest>, number]>([
    ['no audience', {}, INVALID_ARGUMENT],
    ['an empty audience', { audience: ['shop', ''] }, INVALID_ARGUMENT],
    [
      'more audiences than anybody has',
      { audience: Array.from({ length: 5_000 }, (_, index) => `a${index}`) },
      INVALID_ARGUMENT,
    ],
    ['a huge audience', { audience: ['a'.repeat(1_025)] }, INVALID_ARGUMENT],
    ['what is no SPIFFE ID', { audience: ['shop'], spiffeId: 'cart' }, INVALID_ARGUMENT],
    [
      'the identity of another',
      { audience: ['shop'], spiffeId: 'spiffe://cluster.local/ns/shop/sa/till' },
      PERMISSION_DENIED,
    ],
  ])('for %s is refused', async (_, request, code) => {
    const world = await start(await withKeys());
    await world.sds.rotate();
    await expect(world.token(request)).rejects.toMatchObject({ code });
  });

  test('without an identity it is UNAVAILABLE, with an expired one PERMISSION_DENIED; with a CA that issues no tokens UNIMPLEMENTED, saying which does', async () => {
    const denied = await start(await withKeys());
    await expect(denied.token({ audience: ['shop'] })).rejects.toMatchObject({
      code: UNAVAILABLE,
      details: 'no certificate yet',
    });
    const svid = await denied.sds.rotate();
    denied.sds.state.set(unavailableState(svid.bundle, svid));
    await expect(denied.token({ audience: ['shop'] })).rejects.toMatchObject({
      code: PERMISSION_DENIED,
    });
    const none = await start();
    await none.sds.rotate();
    await expect(none.token({ audience: ['shop'] })).rejects.toMatchObject({
      code: UNIMPLEMENTED,
      details: expect.stringContaining('--ca builtin'),
    });
  });

  test('calls without the security header get nothing, and malformed ones no more', async () => {
    const world = await start(await withKeys());
    await world.sds.rotate();
    const request = JWTSVIDRequest.encode({ audience: ['shop'], spiffeId: '' }).finish();
    await expect(
      world.client.call('FetchJWTSVID', request, (bytes) => bytes, {}),
    ).rejects.toMatchObject({ code: INVALID_ARGUMENT });
    for (const bytes of [Buffer.from([0x0a, 0xff]), Buffer.from([0x0c]), Buffer.from([0x00])]) {
      await expect(world.client.call('FetchJWTSVID', bytes, (got) => got)).rejects.toMatchObject({
        code: INVALID_ARGUMENT,
      });
    }
  });

  test('keys that cannot be had are UNAVAILABLE, without a word of why, and asked for again by the next call', async () => {
    const good = await withKeys();
    let fails = true;
    const world = await start({
      ...good,
      open: () => (fails ? Promise.reject(new Error('EACCES /secret/place')) : good.open()),
    });
    await world.sds.rotate();
    await expect(world.token({ audience: ['shop'] })).rejects.toMatchObject({
      details: expect.not.stringContaining('/secret/place'),
    });
    expect(await world.client.stream('FetchJWTBundles', (bytes) => bytes).ended).toMatchObject({
      code: UNAVAILABLE,
    });
    fails = false;
    await world.token({ audience: ['shop'] });
    expect(Object.keys(await world.bundles())).toEqual(['spiffe://cluster.local']);
  });
});

describe('FetchJWTBundles', () => {
  test('gives the keys of our trust domain and of those that are believed, as plain JWK sets without private parts', async () => {
    const foreign = await withKeys();
    const keys = (await foreign.open()!).keys.value;
    const federated: FederatedBundles = new Map([
      [
        'other.example',
        {
          trustDomain: 'other.example',
          roots: undefined,
          jwtKeys: keys,
          refreshHintSeconds: undefined,
        },
      ],
      ['unknown.example', undefined],
    ]);
    const world = await start(await withKeys(), federated);
    await world.sds.rotate();
    const bundles = await world.bundles();
    expect(Object.keys(bundles).sort()).toEqual([
      'spiffe://cluster.local',
      'spiffe://other.example',
    ]);
    expect(bundles['spiffe://other.example']!.keys).toEqual(keys);
    for (const key of Object.values(bundles).flatMap((each) => each.keys))
      expect([key.use, key.d]).toEqual([undefined, undefined]);
    // A token of theirs is judged by their keys.
    const token = (await foreign.open()!).sign({
      id: parseSpiffeId('spiffe://other.example/a'),
      audience: ['shop'],
      issuedAt: Date.now(),
      expiresAt: Date.now() + 60_000,
    });
    expect((await world.validate('shop', token)).spiffeId).toBe('spiffe://other.example/a');
    const forged = (await foreign.open()!).sign({
      id: parseSpiffeId(TEST_ID),
      audience: ['shop'],
      issuedAt: Date.now(),
      expiresAt: Date.now() + 60_000,
    });
    await expect(world.validate('shop', forged)).rejects.toMatchObject({
      code: INVALID_ARGUMENT,
      details: expect.stringContaining('token key'),
    });
  });

  test('with a CA that issues no tokens our own set is empty, and those of others are given all the same', async () => {
    const world = await start();
    await world.sds.rotate();
    expect(await world.bundles()).toEqual({ 'spiffe://cluster.local': { keys: [] } });
  });
});

test('a token of an unknown key has the keys looked for again, a hundred of them do so once', async () => {
  const jwt = await withKeys();
  const authority = await jwt.open()!;
  let looks = 0;
  const counted = {
    keys: authority.keys,
    sign: authority.sign.bind(authority),
    close: async () => undefined,
    refresh: async () => {
      looks += 1;
    },
  };
  const world = await start({ ...jwt, open: async () => counted });
  await world.sds.rotate();
  const stranger = (await (await withKeys()).open()!).sign({
    id: parseSpiffeId(TEST_ID),
    audience: ['shop'],
    issuedAt: Date.now(),
    expiresAt: Date.now() + 60_000,
  });
  const verdicts = await Promise.allSettled(
    Array.from({ length: 100 }, () => world.validate('shop', stranger)),
  );
  expect(verdicts.every(({ status }) => status === 'rejected')).toBe(true);
  expect(looks).toBe(1);
});

test('a token whose claims are nested without end is refused, not followed', async () => {
  const jwt = await withKeys();
  let deep: unknown = 'x';
  for (let level = 0; level < 3_000; level += 1) deep = [deep];
  const world = await start({
    ...jwt,
    verify: async () => ({ id: parseSpiffeId(TEST_ID), claims: { sub: TEST_ID, deep } }),
  });
  await world.sds.rotate();
  await expect(world.validate('shop', 'a.b.c')).rejects.toMatchObject({
    code: INVALID_ARGUMENT,
    details: expect.stringContaining('nested'),
  });
});
