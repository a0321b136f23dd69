import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import type { JwtKey } from '../../../agent/identity/spiffe-bundle';
import { verifyJwtSvid } from '../../../agent/jwt/jwt-svid';

const NOW = Date.parse('2026-01-01T00:00:00Z');
const SECONDS = NOW / 1_000;
const SUB = 'spiffe://cluster.local/ns/shop/sa/cart';

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwkOf = (kid: string, key: KeyObject) =>
  ({ ...key.export({ format: 'jwk' }), kid }) as unknown as JwtKey;
const KEYS = [jwkOf('ec', ec.publicKey), jwkOf('rsa', rsa.publicKey)];
const keysOf = (trustDomain: string) =>
  trustDomain === 'cluster.local' ? KEYS : trustDomain === 'empty.example' ? [] : undefined;

const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const CLAIMS = { sub: SUB, aud: ['shop'], exp: SECONDS + 60, iat: SECONDS };
const HEADER = { alg: 'ES256', kid: 'ec', typ: 'JWT' };

interface Making {
  readonly header?: unknown;
  readonly claims?: unknown;
  readonly key?: KeyObject;
  readonly signature?: (input: string) => string;
}

function make({
  header = HEADER,
  claims = CLAIMS,
  key = ec.privateKey,
  signature,
}: Making = {}): string {
  const input = `${encode(header)}.${encode(claims)}`;
  const signed =
    signature?.(input) ??
    sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');
  return `${input}.${signed}`;
}
const judge = (token: string, audience = 'shop') => verifyJwtSvid(token, audience, keysOf, NOW);

describe('a JWT-SVID is good', () => {
  test.each<[string, Making]>([
    ['with a key that it names', {}],
    [
      'without a key identifier: any key of its trust domain may have made it',
      { header: { alg: 'ES256' } },
    ],
    ['of RSA', { header: { alg: 'RS256', kid: 'rsa' }, key: rsa.privateKey }],
    ['of type JOSE', { header: { ...HEADER, typ: 'JOSE' } }],
    ['with one audience as a text', { claims: { ...CLAIMS, aud: 'shop' } }],
    ['with further claims', { claims: { ...CLAIMS, team: { name: 'x' } } }],
  ])('%s', async (_, making) => {
    const { id, claims } = await judge(make(making));
    expect(id).toEqual({ trustDomain: 'cluster.local', path: '/ns/shop/sa/cart' });
    expect(claims.exp).toBe(SECONDS + 60);
  });
});

test('a JWT-SVID without a key identifier is good by a key that its trust domain published since', async () => {
  let published = KEYS.slice(0, 1);
  const judgeNow = (token: string) => verifyJwtSvid(token, 'shop', () => published, NOW);
  await judgeNow(make({ header: { alg: 'ES256' } }));
  published = KEYS;
  await expect(
    judgeNow(make({ header: { alg: 'RS256' }, key: rsa.privateKey })),
  ).resolves.toMatchObject({ claims: CLAIMS });
});

describe('a JWT-SVID is refused', () => {
  const hmac = (secret: string | Buffer) => (input: string) =>
    createHmac('sha256', secret).update(input).digest('base64url');
  const publicPem = rsa.publicKey.export({ type: 'spki', format: 'pem' });
  test.each<[string, Making, string]>([
    [
      'without a signature (alg none)',
      { header: { alg: 'none' }, signature: () => 'AA' },
      'token alg',
    ],
    ['with alg None', { header: { alg: 'None' }, signature: () => 'AA' }, 'token alg'],
    [
      'whose MAC was made with the public key (RS256 to HS256)',
      { header: { alg: 'HS256', kid: 'rsa' }, signature: hmac(publicPem) },
      'token alg',
    ],
    ['of an algorithm that is no SVID’s', { header: { alg: 'EdDSA', kid: 'ec' } }, 'token alg'],
    ['without an algorithm', { header: { kid: 'ec' } }, 'token alg'],
    ['whose algorithm is a list', { header: { alg: ['ES256'], kid: 'ec' } }, 'token alg'],
    [
      'of an algorithm that its key cannot have made',
      { header: { alg: 'RS256', kid: 'ec' } },
      'token key',
    ],
    ['of another key under a known name', { key: other.privateKey }, 'token'],
    ['of a key that nobody knows', { header: { ...HEADER, kid: 'nobody' } }, 'token key'],
    [
      'that brings its own key',
      {
        header: { alg: 'ES256', jwk: other.publicKey.export({ format: 'jwk' }) },
        key: other.privateKey,
      },
      'token',
    ],
    ['with something critical', { header: { ...HEADER, crit: ['b64'], b64: false } }, 'token'],
    ['of another type', { header: { ...HEADER, typ: 'at+jwt' } }, 'token typ'],
    [
      'with a key identifier that is a path',
      { header: { ...HEADER, kid: '../../key' } },
      'token key',
    ],
    ['with a key identifier that is a number', { header: { ...HEADER, kid: 1 } }, 'token kid'],
    ['without a subject', { claims: { ...CLAIMS, sub: undefined } }, 'token sub'],
    ['whose subject is no SPIFFE ID', { claims: { ...CLAIMS, sub: 'cart' } }, 'token sub'],
    [
      'whose subject is a trust domain',
      { claims: { ...CLAIMS, sub: 'spiffe://cluster.local' } },
      'token sub',
    ],
    [
      'of a trust domain that is not believed',
      { claims: { ...CLAIMS, sub: 'spiffe://other.example/a' } },
      'token sub',
    ],
    [
      'of a trust domain that took its keys back',
      { claims: { ...CLAIMS, sub: 'spiffe://empty.example/a' } },
      'token sub',
    ],
    ['without an audience', { claims: { ...CLAIMS, aud: undefined } }, 'token aud'],
    ['with an empty audience', { claims: { ...CLAIMS, aud: [] } }, 'token aud'],
    ['for another audience', { claims: { ...CLAIMS, aud: ['bank'] } }, 'token aud'],
    [
      'for an audience of the same beginning',
      { claims: { ...CLAIMS, aud: ['shop2', 'sho'] } },
      'token aud',
    ],
    ['without an end', { claims: { ...CLAIMS, exp: undefined } }, 'token exp'],
    ['that has ended', { claims: { ...CLAIMS, exp: SECONDS } }, 'token exp'],
    ['whose end is a text', { claims: { ...CLAIMS, exp: String(SECONDS + 60) } }, 'token exp'],
    ['whose end is beyond all time', { claims: { ...CLAIMS, exp: 1e308 } }, 'token exp'],
    ['that begins later', { claims: { ...CLAIMS, nbf: SECONDS + 120 } }, 'token nbf'],
    ['from the future', { claims: { ...CLAIMS, iat: SECONDS + 120 } }, 'token iat'],
    ['whose claims are a list', { claims: [CLAIMS] }, 'token claims'],
    ['whose claims are no JSON', { claims: '{' }, 'token claims'],
    ['whose header is no JSON', { header: '{' }, 'token header'],
  ])('%s', async (_, making, field) => {
    await expect(judge(make(making))).rejects.toMatchObject({ code: 'ERR_TOKEN', field });
  });

  test.each([
    '',
    'a.b',
    'a.b.c.d',
    '..',
    'a..c',
    `${'a'.repeat(20_000)}.b.c`,
    ' a.b.c',
    '{"payload":"","signatures":[]}',
  ])('%j, which is none', async (token) => {
    await expect(judge(token)).rejects.toMatchObject({ code: 'ERR_TOKEN', field: 'token' });
  });

  test('no token of 10,000 that were changed anywhere is good', async () => {
    const good = make();
    await fc.assert(
      fc.asyncProperty(
        fc.nat(good.length - 1),
        fc.constantFrom(...'ABCabc012-_.'),
        async (at, character) => {
          const changed = `${good.slice(0, at)}${character}${good.slice(at + 1)}`;
          if (
            Buffer.from(changed.split('.')[2] ?? '', 'base64url').equals(
              Buffer.from(good.split('.')[2]!, 'base64url'),
            ) &&
            changed.split('.').slice(0, 2).join() === good.split('.').slice(0, 2).join()
          )
            return;
          const verdict = await judge(changed).catch((caught) => caught);
          expect(verdict).toBeInstanceOf(AgentError);
          expect((verdict as AgentError).code).toBe('ERR_TOKEN');
        },
      ),
      { numRuns: 10_000 },
    );
  });
});
