import { renameSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Authenticator } from '../../../../agent/authority/server/authenticator';
import { createOidcAuthenticator, type OidcOptions } from '../../../../agent/authority/server/oidc';
import { Secret } from '../../../../agent/base/secret';
import { formatSpiffeId } from '../../../../agent/identity/spiffe-id';
import { startHttpsServer } from '../../../support/https-server';
import { tempDir } from '../../../support/temp-dir';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';
import {
  makeTokenIssuer,
  TEST_AUDIENCE,
  TEST_ISSUER,
  type TokenOptions,
} from '../../../support/tokens';
import { until } from '../../../support/until';

const opened: { close?(): unknown }[] = [];
afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close?.();
});

async function open(
  jwks: string,
  options: Partial<OidcOptions> = {},
  deps = testDeps(),
): Promise<Authenticator> {
  const authenticator = await createOidcAuthenticator(
    {
      issuers: [TEST_ISSUER],
      audiences: [TEST_AUDIENCE],
      jwks,
      trustDomain: 'cluster.local',
      aliases: ['old.local'],
      ...options,
    },
    deps,
  );
  opened.push(authenticator);
  return authenticator;
}

function jwksFile(text: string): string {
  const path = join(tempDir(), 'jwks.json');
  writeFileSync(path, text);
  return path;
}

/** The identity, `not mine`, or the field that was refused. */
async function ask(authenticator: Authenticator, token: string): Promise<string> {
  const credentials = {
    bearer: new Secret(token),
    certificatesDer: [],
    address: '127.0.0.1',
    keySha256: '',
  };
  return authenticator.authenticate(credentials, new AbortController().signal).then(
    (caller) => (caller === undefined ? 'not mine' : formatSpiffeId(caller.id)),
    (error) => `${error.code} ${error.field}`,
  );
}

test.each(['ES256', 'ES384', 'RS256', 'EdDSA'] as const)(
  'a service account token signed with %s names its account',
  async (algorithm) => {
    const issuer = makeTokenIssuer(algorithm);
    expect(await ask(await open(jwksFile(issuer.jwks())), issuer.token())).toBe(
      'spiffe://cluster.local/ns/shop/sa/cart',
    );
  },
);

const HOUR = 3_600;
const now = () => Math.floor(Date.now() / 1_000);
test.each<[string, TokenOptions, string]>([
  ['no exp', { claims: { exp: undefined } }, 'ERR_TOKEN token exp'],
  ['exp of text', { claims: { exp: String(now() + HOUR) } }, 'ERR_TOKEN token exp'],
  ['exp with a fraction', { claims: { exp: now() + HOUR + 0.5 } }, 'ERR_TOKEN token exp'],
  ['exp 1e308', { claims: { exp: 1e308 } }, 'ERR_TOKEN token exp'],
  ['exp past', { claims: { exp: now() - 1 } }, 'ERR_TOKEN token exp'],
  ['nbf ahead', { claims: { nbf: now() + 120 } }, 'ERR_TOKEN token nbf'],
  ['iat ahead', { claims: { iat: now() + 120 } }, 'ERR_TOKEN token iat'],
  ['another audience', { claims: { aud: 'other' } }, 'ERR_TOKEN token audience'],
  ['audiences without ours', { claims: { aud: ['a', 'b'] } }, 'ERR_TOKEN token audience'],
  ['no audience', { claims: { aud: undefined } }, 'ERR_TOKEN token audience'],
  [
    'our audience among others',
    { claims: { aud: ['a', TEST_AUDIENCE] } },
    'spiffe://cluster.local/ns/shop/sa/cart',
  ],
  [
    'an audience as text',
    { claims: { aud: TEST_AUDIENCE } },
    'spiffe://cluster.local/ns/shop/sa/cart',
  ],
  ['another issuer', { claims: { iss: 'https://other.test' } }, 'not mine'],
  ['an issuer with a slash more', { claims: { iss: `${TEST_ISSUER}/` } }, 'not mine'],
  ['no subject', { claims: { sub: undefined } }, 'ERR_TOKEN token sub'],
  ['a subject that is a user', { claims: { sub: 'alice' } }, 'ERR_TOKEN subject'],
  [
    'a namespace with a slash',
    { claims: { sub: 'system:serviceaccount:shop/sa/x:cart' } },
    'ERR_TOKEN namespace',
  ],
  [
    'an account of dots',
    { claims: { sub: 'system:serviceaccount:shop:..' } },
    'ERR_TOKEN service account',
  ],
  [
    'an empty account',
    { claims: { sub: 'system:serviceaccount:shop:' } },
    'ERR_TOKEN service account',
  ],
  [
    'a subject of five parts',
    { claims: { sub: 'system:serviceaccount:shop:cart:x' } },
    'ERR_TOKEN subject',
  ],
])('a token with %s is judged for what it is', async (_, options, want) => {
  const issuer = makeTokenIssuer();
  expect(await ask(await open(jwksFile(issuer.jwks())), issuer.token(options))).toBe(want);
});

test('a claim that holds a SPIFFE ID names it, of our trust domain or an alias of it', async () => {
  const issuer = makeTokenIssuer();
  const authenticator = await open(jwksFile(issuer.jwks()), { spiffeIdClaim: 'sub' });
  const of = (sub: string) => ask(authenticator, issuer.token({ claims: { sub } }));
  expect(await of('spiffe://cluster.local/vm/db-1')).toBe('spiffe://cluster.local/vm/db-1');
  expect(await of('spiffe://old.local/vm/db-1')).toBe('spiffe://cluster.local/vm/db-1');
  expect(await of('spiffe://other.local/vm/db-1')).toBe('ERR_TOKEN identity');
  expect(await of('spiffe://cluster.local/vm/../db-1')).toBe('ERR_TOKEN path');
});

test('what is no token of ours is left to others', async () => {
  const authenticator = await open(jwksFile(makeTokenIssuer().jwks()));
  const withPayload = (text: string) =>
    `${'a'.repeat(10)}.${Buffer.from(text).toString('base64url')}.x`;
  for (const token of [
    'kt1_abc',
    'a.b',
    'a.b.c',
    '..',
    ...['[]', 'null', '1', '"x"', '{'].map(withPayload),
  ]) {
    expect(await ask(authenticator, token)).toBe('not mine');
  }
});

test('a key set that is replaced is followed, and a broken one leaves the last in service', async () => {
  const [first, second] = [makeTokenIssuer(), makeTokenIssuer()];
  const path = jwksFile(first.jwks());
  const deps = testDeps();
  const authenticator = await open(path, {}, deps);
  writeFileSync(`${path}.new`, second.jwks());
  renameSync(`${path}.new`, path);
  await until('the second key', async () =>
    (await ask(authenticator, second.token())).startsWith('spiffe:'),
  );
  expect(await ask(authenticator, first.token())).toBe('ERR_TOKEN token key');
  writeFileSync(path, '{');
  await until('the complaint', async () =>
    deps.events.some(({ event }) => event.startsWith('token keys invalid')),
  );
  expect(await ask(authenticator, second.token())).toBe('spiffe://cluster.local/ns/shop/sa/cart');
});

test.each([
  [
    'a private key',
    () => JSON.stringify({ keys: [makeTokenIssuer().privateKey.export({ format: 'jwk' })] }),
  ],
  ['a shared secret', () => JSON.stringify({ keys: [{ kty: 'oct', k: 'c2VjcmV0' }] })],
  ['no keys', () => JSON.stringify({ keys: [] })],
  [
    'only a key for encryption',
    () =>
      JSON.stringify({ keys: [{ ...JSON.parse(makeTokenIssuer().jwks()).keys[0], use: 'enc' }] }),
  ],
  ['something else', () => '"keys"'],
])('a key set of %s is refused at the start', async (_, text) => {
  await expect(open(jwksFile(text()))).rejects.toMatchObject({
    code: 'ERR_PARSE',
    field: '--jwks',
  });
});

test('a plain http URL of another machine is refused', async () => {
  await expect(open('http://issuer.test/jwks')).rejects.toMatchObject({
    code: 'ERR_CONFIG',
    field: '--jwks',
  });
});

/** A JWKS endpoint that counts. */
async function serveJwks(answer: () => string | undefined | Promise<string>) {
  let asked = 0;
  const server: Server = createServer(async (_, response) => {
    asked += 1;
    const text = await answer();
    response.writeHead(text === undefined ? 500 : 200).end(text);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  opened.push({ close: () => new Promise((done) => server.close(done)) });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`,
    asked: () => asked,
  };
}

test('keys from a URL are fetched once, again for a key that is new, and no more often than every 30 s', async () => {
  let issuer = makeTokenIssuer();
  const { url, asked } = await serveJwks(() => issuer.jwks());
  const clock = new TestClock(Date.now());
  const authenticator = await open(url, {}, testDeps({ clock }));
  for (let each = 0; each < 5; each += 1)
    expect(await ask(authenticator, issuer.token())).toMatch(/^spiffe:/);
  expect(asked()).toBe(1);
  issuer = makeTokenIssuer();
  expect(await ask(authenticator, issuer.token())).toBe('ERR_TOKEN token key');
  expect(asked()).toBe(1);
  await clock.advanceBy(30_000);
  expect(await ask(authenticator, issuer.token())).toMatch(/^spiffe:/);
  expect(asked()).toBe(2);
  for (let each = 0; each < 5; each += 1) await ask(authenticator, makeTokenIssuer().token());
  expect(asked()).toBe(2);
});

test('field: a server of keys that takes 12 s is heard to its end, in one request; callers wait for 5 s', async () => {
  const issuer = makeTokenIssuer();
  let answerIt: (jwks: string) => void = () => undefined;
  const { url, asked } = await serveJwks(() => new Promise((resolve) => (answerIt = resolve)));
  const clock = new TestClock(Date.now());
  const authenticator = await open(url, {}, testDeps({ clock }));
  const first = ask(authenticator, issuer.token());
  await until('the request', async () => asked() === 1);
  await clock.advanceBy(5_000);
  expect(await first).toBe('ERR_CA_UNAVAILABLE undefined');
  await clock.advanceBy(7_000);
  answerIt(issuer.jwks());
  await until('the keys', async () =>
    (await ask(authenticator, issuer.token())).startsWith('spiffe:'),
  );
  expect(asked()).toBe(1);
});

test('keys from a URL that is away are gone by for an hour, and no longer', async () => {
  const issuer = makeTokenIssuer();
  let up = true;
  const { url } = await serveJwks(() => (up ? issuer.jwks() : undefined));
  const clock = new TestClock(Date.now());
  const authenticator = await open(url, {}, testDeps({ clock }));
  const token = issuer.token({ claims: { exp: Math.floor(Date.now() / 1_000) + 10 * HOUR } });
  expect(await ask(authenticator, token)).toMatch(/^spiffe:/);
  up = false;
  await clock.advanceBy(59 * 60_000);
  expect(await ask(authenticator, token)).toMatch(/^spiffe:/);
  await clock.advanceBy(2 * 60_000);
  expect(await ask(authenticator, token)).toBe('ERR_CA_UNAVAILABLE undefined');
  up = true;
  await clock.advanceBy(30_000);
  expect(await ask(authenticator, token)).toMatch(/^spiffe:/);
});

test('of ten thousand tokens that were changed anywhere, none names anybody', async () => {
  const issuer = makeTokenIssuer();
  const authenticator = await open(jwksFile(issuer.jwks()));
  const token = issuer.token();
  // The last character of each part may differ in bits that stand for nothing.
  const decoded = (text: string) =>
    text.split('.').map((part) => Buffer.from(part, 'base64url').toString('hex'));
  const original = decoded(token).join('.');
  await fc.assert(
    fc.asyncProperty(
      fc.nat({ max: token.length - 1 }),
      fc.constantFrom(...'ABCXYZabcxyz0189-_.'),
      fc.boolean(),
      async (at, character, insert) => {
        const changed = token.slice(0, at) + character + token.slice(at + (insert ? 0 : 1));
        if (decoded(changed).join('.') === original) return;
        expect(await ask(authenticator, changed)).not.toMatch(/^spiffe:/);
      },
    ),
    { numRuns: 10_000 },
  );
});

test('keys come over https from a server that --jwks-ca vouches for, also after its root is replaced, and from no other', async () => {
  const issuer = makeTokenIssuer();
  const serve = () => startHttpsServer((_, response) => response.end(issuer.jwks()));
  const server = await serve();
  opened.push(server);
  const roots = join(tempDir(), 'roots.pem');
  writeFileSync(roots, (await serve().then(closed)).caPem);
  const clock = new TestClock(Date.now());
  const deps = testDeps({ clock });
  const authenticator = await open(server.url, { jwksCa: roots }, deps);
  expect(await ask(authenticator, issuer.token())).toBe('ERR_CA_UNAVAILABLE undefined');
  expect(
    deps.events.find(({ event }) => event === 'fetching token keys failed')?.facts.cause,
  ).toMatchObject({
    hint: 'name the roots of its server with --jwks-ca',
  });
  writeFileSync(roots, server.caPem);
  await clock.advanceBy(2_000);
  expect(await ask(authenticator, issuer.token())).toBe('spiffe://cluster.local/ns/shop/sa/cart');
});

test.each([
  ['a file that is not there', 'https://127.0.0.1:1/', 'missing.pem', { code: 'ERR_INPUT' }],
  ['no certificate in it', 'https://127.0.0.1:1/', __filename, { code: 'ERR_PARSE' }],
  ['keys from a file', '/dev/null', __filename, { code: 'ERR_CONFIG', field: '--jwks-ca' }],
  [
    'keys over plain http',
    'http://127.0.0.1:1/',
    __filename,
    { code: 'ERR_CONFIG', field: '--jwks-ca' },
  ],
])('--jwks-ca with %s stops the start', async (_, jwks, jwksCa, want) => {
  await expect(open(jwks, { jwksCa })).rejects.toMatchObject(want);
});

async function closed<T extends { close(): Promise<void> }>(server: T): Promise<T> {
  await server.close();
  return server;
}
