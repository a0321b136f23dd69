import { createPublicKey, type KeyObject, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { AgentError } from '../../agent/base/errors';
import { certificatesPem, parseCertificate } from '../../agent/identity/certificate';
import { generateKeyPair, keyPairOf, privateKeyPem } from '../../agent/identity/keys';
import type { KubeApi } from '../../agent/kube/kube-api';
import { writeCaDir } from '../support/ca-dir';
import {
  type CallOptions,
  type CallOutcome,
  type CaTestClient,
  type CaWorld,
  type CaWorldOptions,
  type ClientIdentity,
  issueIdentity,
  makeRequest,
  startCaWorld,
} from '../support/ca-server';
import { HOUR_MS, issueLeaf, makeTestCa, TEST_ID, type TestCa } from '../support/certs';
import { tempDir } from '../support/temp-dir';
import {
  hmac,
  makeTokenIssuer,
  TEST_AUDIENCE,
  TEST_ISSUER,
  type TokenOptions,
} from '../support/tokens';
import { until } from '../support/until';

const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

const issuer = makeTokenIssuer();
const rsaIssuer = makeTokenIssuer('RS256');
const CART = {
  username: 'system:serviceaccount:shop:cart',
  uid: 'cart-1',
  groups: ['system:serviceaccounts', 'system:serviceaccounts:shop'],
};
const OTHER_SUBJECT = 'system:serviceaccount:shop:admin';
/** What the Kubernetes API says of any token that it is asked about. */
let review: () => Promise<unknown> = async () => ({ authenticated: false });
const api = { request: async () => ({ status: await review() }) } as unknown as Pick<
  KubeApi,
  'request'
>;

let world: CaWorld;
let client: CaTestClient;
let csrDer: Uint8Array;
const more: CaWorld[] = [];

async function start(options: CaWorldOptions = {}): Promise<CaWorld> {
  const jwks = join(tempDir(), 'jwks.json');
  writeFileSync(
    jwks,
    JSON.stringify({ keys: [issuer, rsaIssuer].flatMap((each) => JSON.parse(each.jwks()).keys) }),
  );
  return startCaWorld({
    authenticators: ['client-certificate', 'join-token', 'oidc', 'token-review'],
    oidc: { issuers: [TEST_ISSUER], jwks, audiences: [TEST_AUDIENCE] },
    tokenReview: { api, audiences: [TEST_AUDIENCE] },
    ...options,
  });
}

async function startAnother(options: CaWorldOptions = {}): Promise<CaWorld> {
  const another = await start(options);
  more.push(another);
  return another;
}

beforeAll(async () => {
  world = await start();
  client = world.client();
  csrDer = (await makeRequest()).csrDer;
});
afterEach(async () => {
  review = async () => ({ authenticated: false });
  for (const each of more.splice(0)) await each.close();
});
afterAll(() => world.close());

async function expectRefused(
  code: number,
  options: CallOptions,
  by: CaTestClient = client,
  of = world,
): Promise<CallOutcome> {
  const before = of.issued();
  const outcome = await by.create(csrDer, options);
  expect(outcome).toMatchObject({ code, chain: [] });
  if (code === UNAUTHENTICATED) expect(outcome.details).toBe('request authenticate failure');
  expect(of.issued()).toBe(before);
  // Whatever was sent as a token is nowhere to be read.
  const secret = options.token?.split('.').at(-1);
  if (secret !== undefined && secret.length > 16)
    expect(JSON.stringify([of.events, of.audit()])).not.toContain(secret);
  return outcome;
}

const refusedToken = (options: TokenOptions, by = issuer) =>
  expectRefused(UNAUTHENTICATED, { token: by.token(options) });

test('the issuer of these cases makes tokens that are taken', async () => {
  expect(await client.create(csrDer, { token: issuer.token() })).toMatchObject({ code: 0 });
  expect(await client.create(csrDer, { token: rsaIssuer.token() })).toMatchObject({ code: 0 });
});

test.each(['shop/sa/admin', '..', '.', '', 'a%2Fb', 'sh op', 'sh\u00f6p', 'shop\0'])(
  'A23 a namespace or account %j in a token is UNAUTHENTICATED',
  async (part) => {
    await refusedToken({ claims: { sub: `system:serviceaccount:${part}:cart` } });
    await refusedToken({ claims: { sub: `system:serviceaccount:shop:${part}` } });
  },
);

describe('A25 without exactly one Bearer token it is UNAUTHENTICATED', () => {
  const good = () => issuer.token();
  test.each<[string, () => CallOptions]>([
    ['nothing', () => ({})],
    ['an empty header', () => ({ headers: { authorization: '' } })],
    ['Bearer alone', () => ({ headers: { authorization: 'Bearer' } })],
    ['Bearer and blanks', () => ({ headers: { authorization: 'Bearer    ' } })],
    ['the scheme in lower case', () => ({ headers: { authorization: `bearer ${good()}` } })],
    ['another scheme', () => ({ headers: { authorization: `Basic ${good()}` } })],
    ['the token without a scheme', () => ({ headers: { authorization: good() } })],
    ['a token that is none', () => ({ token: 'canary-of-a-token-that-is-none' })],
  ])('%s', async (_, options) => void (await expectRefused(UNAUTHENTICATED, options())));

  test.each([20_000, 40_000, 60_000])('a token of %i bytes is RESOURCE_EXHAUSTED', async (size) => {
    await expectRefused(RESOURCE_EXHAUSTED, { token: `a.${'b'.repeat(size)}.c` });
  });
});

const now = () => Math.floor(Date.now() / 1_000);
test.each<[string, Record<string, unknown>]>([
  ['is expired', { exp: now() - 10 }],
  ['begins later', { nbf: now() + 600 }],
  ['has no end', { exp: undefined }],
  ['has an end of text', { exp: `${now() + 3_600}` }],
  ['has an end with a fraction', { exp: now() + 3_600.5 }],
  ['ends never', { exp: 1e308 }],
  ['was made later', { iat: now() + 600 }],
])(
  'A26 a token that %s is UNAUTHENTICATED',
  async (_, claims) => void (await refusedToken({ claims })),
);

test.each<[string, unknown]>([
  ['another', 'istiod'],
  ['several without ours', ['a', 'b']],
  ['none', undefined],
  ['an object', { 'istio-ca': true }],
  ['ours within another', 'istio-ca.evil'],
])(
  'A27 a token for the audience %s is UNAUTHENTICATED',
  async (_, aud) => void (await refusedToken({ claims: { aud } })),
);

test.each<[string, TokenOptions]>([
  ['another issuer', { claims: { iss: 'https://evil.test' } }],
  ['a slash more', { claims: { iss: `${TEST_ISSUER}/` } }],
  ['an issuer that is a list', { claims: { iss: [TEST_ISSUER] } }],
  ['an unknown key', { header: { kid: 'unknown' } }],
  ['a key that is a path', { header: { kid: '../../../../dev/zero' } }],
  ['a key that is SQL', { header: { kid: "' OR 1=1 --" } }],
  ['a key that is a number', { header: { kid: 7 } }],
])(
  'A28 a token of %s is UNAUTHENTICATED',
  async (_, options) => void (await refusedToken(options)),
);

test.each(['none', 'None', 'nOnE', 'NONE', ''])(
  'A29 a token with the algorithm %j is UNAUTHENTICATED',
  async (alg) => {
    await refusedToken({ header: { alg }, signature: () => Buffer.alloc(0) });
    await refusedToken({ header: { alg } });
  },
);
test('A29 a token of two parts is UNAUTHENTICATED', async () => {
  const [header, claims] = issuer.token().split('.');
  for (const token of [
    `${header}.${claims}`,
    `${header}.${claims}.`,
    `${header}.${claims}.${claims}.x`,
  ])
    await expectRefused(UNAUTHENTICATED, { token });
});

test.each<[string, (key: KeyObject) => string | Buffer]>([
  ['PEM', (key) => key.export({ type: 'spki', format: 'pem' })],
  ['DER', (key) => key.export({ type: 'spki', format: 'der' })],
  [
    'the modulus',
    (key) =>
      Buffer.from(
        String(key.export({ format: 'jwk' }).n ?? key.export({ format: 'jwk' }).x),
        'base64url',
      ),
  ],
])('A30 a token signed by HMAC with the public key as %s is UNAUTHENTICATED', async (_, secret) => {
  for (const each of [issuer, rsaIssuer]) {
    await refusedToken(
      { header: { alg: 'HS256' }, signature: hmac(secret(createPublicKey(each.privateKey))) },
      each,
    );
  }
});

describe('A31 what a token says of its own key is not looked at', () => {
  test('nothing is fetched, and a key that comes along verifies nothing', async () => {
    let asked = 0;
    const trap = createServer((socket) => {
      asked += 1;
      socket.destroy();
    });
    await new Promise<void>((done) => trap.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(trap.address() as { port: number }).port}/jwks`;
    const evil = makeTokenIssuer();
    const jwk = JSON.parse(evil.jwks()).keys[0];
    for (const header of [
      { jwk },
      { jku: url },
      { x5u: url },
      { x5c: ['AAAA'] },
      { jwk, kid: issuer.kid },
      { jku: url, kid: issuer.kid },
    ]) {
      await refusedToken({ header }, evil);
    }
    expect(asked).toBe(0);
    await new Promise((done) => trap.close(done));
  });
  test.each([
    { crit: ['exp'], exp: 1 },
    { crit: ['b64'], b64: false },
    { crit: [] },
    { zip: 'DEF', crit: ['zip'] },
  ])('header %j', async (header) => {
    await refusedToken({ header });
  });
});

describe('A32 signatures that are none are UNAUTHENTICATED', () => {
  const order = Buffer.from(
    'ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551',
    'hex',
  );
  const one = Buffer.concat([Buffer.alloc(31), Buffer.of(1)]);
  test.each<[string, (input: string) => Uint8Array]>([
    ['all zeros', () => Buffer.alloc(64)],
    ['r of zero', () => Buffer.concat([Buffer.alloc(32), one])],
    ['s of zero', () => Buffer.concat([one, Buffer.alloc(32)])],
    ['r of n', () => Buffer.concat([order, one])],
    ['r and s of n', () => Buffer.concat([order, order])],
    ['DER', (input) => sign('sha256', Buffer.from(input), issuer.privateKey)],
    [
      'a byte more',
      (input) =>
        Buffer.concat([
          sign('sha256', Buffer.from(input), { key: issuer.privateKey, dsaEncoding: 'ieee-p1363' }),
          Buffer.of(0),
        ]),
    ],
    ['nothing', () => Buffer.alloc(0)],
  ])('%s', async (_, signature) => void (await refusedToken({ signature })));

  test('a key of another curve', async () => {
    const evil = makeTokenIssuer('ES384');
    await refusedToken({ header: { alg: 'ES256', kid: issuer.kid } }, evil);
    await refusedToken({ header: { alg: 'ES384' } });
    await refusedToken({ header: { alg: 'PS256' } }, rsaIssuer);
  });
});

test('A33 a token of one account and a CSR for another is PERMISSION_DENIED', async () => {
  await expectRefused(PERMISSION_DENIED, {
    token: issuer.token({ claims: { sub: OTHER_SUBJECT } }),
  });
});

describe('A34 what the Kubernetes API does not vouch for gets nothing', () => {
  const kube = makeTokenIssuer();
  let count = 0;
  const token = () =>
    kube.token({ claims: { iss: 'https://kubernetes.default.svc', jti: String(count++) } });
  test('a token that it knows', async () => {
    review = async () => ({ authenticated: true, audiences: [TEST_AUDIENCE], user: CART });
    expect(await client.create(csrDer, { token: token() })).toMatchObject({ code: 0 });
    expect(world.audit().at(-1)).toMatchObject({ method: 'token-review', caller: TEST_ID });
  });
  test('a token of a pod that is gone is UNAUTHENTICATED', async () => {
    review = async () => ({
      authenticated: false,
      error: 'service account token has been invalidated',
    });
    await expectRefused(UNAUTHENTICATED, { token: token() });
  });
  test.each([
    ['500', new AgentError('ERR_CA_UNAVAILABLE', 'POST tokenreviews: 500')],
    ['a timeout', new AgentError('ERR_TIMEOUT', 'POST tokenreviews: no answer')],
    ['401 for ourselves', new AgentError('ERR_TOKEN', 'POST tokenreviews: 401')],
    ['403 for ourselves', new AgentError('ERR_CA_REJECTED', 'POST tokenreviews: 403')],
  ])('while it answers %s it is UNAVAILABLE', async (_, error) => {
    review = async () => Promise.reject(error);
    await expectRefused(UNAVAILABLE, { token: token() });
  });
});

describe('A35 replay', () => {
  test('a token is good for as many certificates as the rate of its identity allows', async () => {
    const limited = await startAnother({ rates: { perIdentity: 20, total: 0 } });
    const by = limited.client();
    const token = issuer.token();
    const outcomes = await Promise.all(
      Array.from({ length: 200 }, () => by.create(csrDer, { token })),
    );
    const served = outcomes.filter(({ code }) => code === 0).length;
    expect(served).toBeGreaterThanOrEqual(20);
    expect(served).toBeLessThan(60);
    const refused = outcomes.find(({ code }) => code !== 0)!;
    expect(refused.code).toBe(RESOURCE_EXHAUSTED);
    expect(Number(refused.trailers.get('grpc-retry-pushback-ms')[0])).toBeGreaterThan(0);
    expect(refused.trailers.get('grpc-status-details-bin')[0]).toBeInstanceOf(Buffer);
    expect(limited.issued()).toBe(served);
  });
  test('a join token is good for one key, whoever is fastest', async () => {
    const clients = Array.from({ length: 10 }, () => world.client());
    const csrs = await Promise.all(
      Array.from({ length: 100 }, async () => (await makeRequest()).csrDer),
    );
    for (let round = 0; round < 3; round += 1) {
      const token = await world.joinToken();
      const before = world.issued();
      const outcomes = await Promise.all(
        csrs.map((csr, each) => clients[each % 10]!.create(csr, { token })),
      );
      expect(outcomes.filter(({ code }) => code === 0)).toHaveLength(1);
      expect(outcomes.filter(({ code }) => code === UNAUTHENTICATED)).toHaveLength(99);
      expect(world.issued()).toBe(before + 1);
      expect(JSON.stringify([world.events, world.audit()])).not.toContain(token.slice(4));
    }
  });
  test('a request that would be refused anyway does not cost the join token', async () => {
    const token = await world.joinToken();
    expect(await client.create('garbage', { token })).toMatchObject({ code: INVALID_ARGUMENT });
    expect(await client.create(csrDer, { token })).toMatchObject({ code: 0 });
  });
  test('a join token of another identity, and one that never was, get nothing', async () => {
    await expectRefused(PERMISSION_DENIED, {
      token: await world.joinToken('spiffe://cluster.local/vm/other'),
    });
    await expectRefused(UNAUTHENTICATED, { token: `kt1_${'A'.repeat(43)}` });
    await expectRefused(UNAUTHENTICATED, { token: 'kt1_short' });
  });
});

test.each([
  ['x-forwarded-client-cert', `By=spiffe://x;URI=${TEST_ID}`],
  ['x-forwarded-for', '127.0.0.1'],
  ['x-forwarded-proto', 'https'],
  ['x-real-ip', '127.0.0.1'],
  ['x-spiffe-id', TEST_ID],
])('A37 a header %s proves nothing, on this machine neither', async (name, value) => {
  await expectRefused(UNAUTHENTICATED, { headers: { [name]: value } });
});

const makeCa = () =>
  makeTestCa({ notBeforeAt: Date.now() - HOUR_MS, notAfterAt: Date.now() + 100 * HOUR_MS });

describe('A38 client certificates', () => {
  /** A directory's CA as a test CA, so that it signs whatever is asked. */
  async function startWith(ca: TestCa): Promise<CaWorld> {
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: ca, roots: [ca] });
    return startAnother({ dir });
  }
  const times = { notBeforeAt: Date.now() - 60_000, notAfterAt: Date.now() + HOUR_MS };
  const leafOf = async (
    ca: TestCa,
    options: Partial<Parameters<typeof issueLeaf>[1]>,
  ): Promise<ClientIdentity> => {
    const key = await generateKeyPair('ecdsa-p256');
    return {
      key,
      certificatesDer: [issueLeaf(ca, { key, ...times, ...options }), ...ca.intermediatesDer],
    };
  };

  test('one that is right', async () => {
    const ca = await makeCa();
    const one = await startWith(ca);
    expect(await one.client(await leafOf(ca, {})).create(csrDer)).toMatchObject({ code: 0 });
  });

  test.each<[string, Partial<Parameters<typeof issueLeaf>[1]>]>([
    ['that is expired', { notBeforeAt: Date.now() - HOUR_MS, notAfterAt: Date.now() - 1_000 }],
    ['that begins later', { notBeforeAt: Date.now() + 600_000 }],
    ['of a CA', { isCa: true }],
    ['that may sign certificates', { keyUsage: ['digitalSignature', 'keyCertSign'] }],
    ['with two URIs', { uris: [TEST_ID, 'spiffe://cluster.local/ns/shop/sa/admin'] }],
    ['with the same URI twice', { uris: [TEST_ID, TEST_ID] }],
    ['without a SAN', { uris: [] }],
    ['of another trust domain', { uris: ['spiffe://evil.local/ns/shop/sa/cart'] }],
    ['of a trust domain alone', { uris: ['spiffe://cluster.local'] }],
    ['of a URI that is no SPIFFE ID', { uris: ['https://cluster.local/ns/shop/sa/cart'] }],
    ['for another purpose', { purposes: ['1.3.6.1.5.5.7.3.3'] }],
  ])('one %s is UNAUTHENTICATED', async (_, options) => {
    const ca = await makeCa();
    const one = await startWith(ca);
    await expectRefused(UNAUTHENTICATED, {}, one.client(await leafOf(ca, options)), one);
  });

  test('one of another root, and the CA itself, are UNAUTHENTICATED', async () => {
    const ca = await makeCa();
    const one = await startWith(ca);
    const foreign = await makeCa();
    await expectRefused(UNAUTHENTICATED, {}, one.client(await leafOf(foreign, {})), one);
    const itself = {
      key: keyPairOf(ca.privateKey, 'ecdsa-p256'),
      certificatesDer: [ca.certificateDer],
    };
    await expectRefused(UNAUTHENTICATED, {}, one.client(itself), one);
  });

  test('one below an intermediate proves itself, by the chain that it brings', async () => {
    const root = await makeCa();
    const between = await makeTestCa({
      parent: root,
      notBeforeAt: Date.now() - HOUR_MS,
      notAfterAt: Date.now() + 90 * HOUR_MS,
    });
    const one = await startWith(root);
    const identity = await leafOf(between, {});
    expect(await one.client(identity).create(csrDer)).toMatchObject({ code: 0 });
    await expectRefused(
      UNAUTHENTICATED,
      {},
      one.client({ ...identity, certificatesDer: identity.certificatesDer.slice(0, 1) }),
      one,
    );
  });

  test.each([
    ['signed it', [{ keyUsage: undefined }]],
    ['stands higher in its chain', [{ keyUsage: undefined }, {}]],
  ])(
    'field E14 one is UNAUTHENTICATED where a CA without key usage %s: such CAs are made by mistake',
    async (_, options) => {
      const root = await makeCa();
      const one = await startWith(root);
      const times = { notBeforeAt: Date.now() - HOUR_MS, notAfterAt: Date.now() + 90 * HOUR_MS };
      let ca = root;
      for (const each of options)
        ca = await makeTestCa({ parent: ca, name: 'made by mistake', ...times, ...each });
      const by = one.client(await leafOf(ca, {}));
      await expectRefused(UNAUTHENTICATED, {}, by, one);
      expect(one.audit().at(-1)).toMatchObject({
        reason: expect.stringContaining('must have the key usage keyCertSign'),
      });
    },
  );

  test('one that proves nothing does not stand in the way of a token', async () => {
    const ca = await makeCa();
    const one = await startWith(ca);
    const expired = await leafOf(ca, {
      notBeforeAt: Date.now() - HOUR_MS,
      notAfterAt: Date.now() - 1_000,
    });
    expect(await one.client(expired).create(csrDer, { token: issuer.token() })).toMatchObject({
      code: 0,
    });
    expect(one.audit().at(-1)).toMatchObject({ method: 'oidc' });
  });

  test('one that is revoked is UNAUTHENTICATED from then on, on a connection that is open too', async () => {
    const one = await startAnother();
    const identity = await issueIdentity(one.authority);
    const by = one.client(identity);
    const first = await by.create(csrDer);
    expect(first).toMatchObject({ code: 0 });
    const own = parseCertificate(identity.certificatesDer[0]!);
    await one.store.recordIssued({
      serial: own.serial,
      id: TEST_ID,
      keySha256: '00',
      issuedAt: Date.now(),
      notAfterAt: own.notAfterAt,
      issuerKeyId: Buffer.from(own.authorityKeyId!).toString('hex'),
      rootKeySha256: '00',
    });
    await one.store.revoke({ serial: own.serial }, 'keyCompromise', Date.now());
    await until('the revocation', async () => (await by.create(csrDer)).code === UNAUTHENTICATED);
    await expectRefused(UNAUTHENTICATED, {}, one.client(identity), one);
  });

  test('an alias of our trust domain names the same workload', async () => {
    const ca = await makeCa();
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: ca, roots: [ca] });
    const one = await startAnother({ dir, aliases: ['old.local'] });
    expect(
      await one
        .client(await leafOf(ca, { uris: ['spiffe://old.local/ns/shop/sa/cart'] }))
        .create(csrDer),
    ).toMatchObject({ code: 0 });
    expect(one.audit().at(-1)).toMatchObject({ caller: TEST_ID });
  });
});

describe('A39 a connection is worth what its certificate is worth now', () => {
  test('a root that is taken away ends what it vouched for, on connections that are open', async () => {
    const [old, next] = [await makeCa(), await makeCa()];
    const dir = join(tempDir(), 'ca');
    writeCaDir(dir, { signer: old, roots: [old, next] });
    const one = await startAnother({ dir });
    const identity = await issueIdentity(one.authority);
    const by = one.client(identity);
    expect(await by.create(csrDer)).toMatchObject({ code: 0 });
    writeCaDir(dir, { signer: next, roots: [old, next] });
    await until('the new signer', async () =>
      one.events.some(({ event }) => event === 'CA signer changed'),
    );
    expect(await by.create(csrDer)).toMatchObject({ code: 0 });
    writeCaDir(dir, { roots: [next] });
    await until('the old root to go', async () => one.authority.trust.value.rootsDer.length === 1);
    await expectRefused(UNAUTHENTICATED, {}, by, one);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'no session of %s is ever resumed',
    async (version) => {
      const identity = await issueIdentity(world.authority);
      const [host, port] = world.server.address.split(':');
      const open = (session?: Buffer) =>
        new Promise<{ socket: TLSSocket; session: Buffer | undefined }>((resolve, reject) => {
          let kept: Buffer | undefined;
          const socket = connect({
            host: host!,
            port: Number(port),
            servername: 'localhost',
            ALPNProtocols: ['h2'],
            ca: certificatesPem(world.authority.trust.value.rootsDer),
            key: privateKeyPem(identity.key, 'pkcs8'),
            cert: certificatesPem(identity.certificatesDer),
            minVersion: version,
            maxVersion: version,
            ...(session && { session }),
          });
          socket.on('session', (each: Buffer) => {
            kept = each;
          });
          socket.once('error', reject);
          // Tickets of TLS 1.3 follow the handshake, with the server's SETTINGS.
          socket.once('data', () => resolve({ socket, session: kept ?? socket.getSession() }));
          socket.once('secureConnect', () =>
            socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'),
          );
        });
      const first = await open();
      const second = await open(first.session);
      expect([first.socket.isSessionReused(), second.socket.isSessionReused()]).toEqual([
        false,
        false,
      ]);
      first.socket.destroy();
      second.socket.destroy();
    },
  );
});

test('B11 no token, key or password of all these cases is in a log', () => {
  const said = JSON.stringify([world.events, world.audit()]);
  for (const each of [issuer, rsaIssuer]) {
    const d = String(each.privateKey.export({ format: 'jwk' }).d);
    expect(said).not.toContain(d.slice(0, 20));
  }
  expect(said).not.toMatch(/eyJ[\w-]{20}/);
  expect(said).not.toContain('canary-of-a-token');
  expect(said).not.toContain('PRIVATE KEY');
});

test('after all of that the server signs as before', async () => {
  expect(await client.create(csrDer, { token: issuer.token() })).toMatchObject({ code: 0 });
  expect(world.server.problems()).toEqual([]);
});
