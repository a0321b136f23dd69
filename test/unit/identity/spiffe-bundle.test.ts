import { generateKeyPairSync } from 'node:crypto';
import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import { certificatesPem, isCa, parseCertificate } from '../../../agent/identity/certificate';
import {
  formatSpiffeBundle,
  type JwtKey,
  parseSpiffeBundle,
} from '../../../agent/identity/spiffe-bundle';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { makeTestCa, type TestCa, uriAltName } from '../../support/certs';

const TD = 'other.example';
let ca: TestCa;
let second: TestCa;
let elsewhere: TestCa;
let notCa: TestCa;

beforeAll(async () => {
  ca = await makeTestCa({ name: 'one' });
  second = await makeTestCa({ name: 'two' });
  elsewhere = await makeTestCa({
    name: 'else',
    extraExtensions: [uriAltName('spiffe://cluster.local')],
  });
  notCa = await makeTestCa({ name: 'leaf', isCa: false });
});

const parse = (document: unknown) =>
  parseSpiffeBundle(Buffer.from(JSON.stringify(document)), TD, 'bundle');
const x509 = (certificate: TestCa) => ({
  kty: 'EC',
  use: 'x509-svid',
  x5c: [Buffer.from(certificate.certificateDer).toString('base64')],
});
const publicJwk = (curve = 'P-256') =>
  generateKeyPairSync('ec', { namedCurve: curve }).publicKey.export({ format: 'jwk' });
const jwt = (kid: string, more: object = {}) => ({ ...publicJwk(), use: 'jwt-svid', kid, ...more });

describe('a SPIFFE bundle is read', () => {
  test('as JSON, with roots, keys of tokens and the hint; sequence numbers are for whoever wants them', () => {
    const key = jwt('k1');
    const got = parse({
      keys: [x509(ca), key, x509(second)],
      spiffe_sequence: 42,
      spiffe_refresh_hint: 60,
    });
    expect(got.roots).toEqual(createTrustBundle([ca.certificateDer, second.certificateDer]));
    expect(got.jwtKeys).toEqual([
      {
        kid: 'k1',
        kty: 'EC',
        crv: 'P-256',
        x: (key as unknown as JwtKey).x,
        y: (key as unknown as JwtKey).y,
      },
    ]);
    expect([got.trustDomain, got.refreshHintSeconds]).toEqual([TD, 60]);
  });

  test('as PEM, which has roots only', () => {
    const got = parseSpiffeBundle(certificatesPem([ca.certificateDer]), TD, 'bundle');
    expect(got).toEqual({
      trustDomain: TD,
      roots: ca.bundle,
      jwtKeys: [],
      refreshHintSeconds: undefined,
    });
  });

  test('with an empty list of keys, which takes everything back', () => {
    expect(parse({ keys: [] })).toEqual({
      trustDomain: TD,
      roots: undefined,
      jwtKeys: [],
      refreshHintSeconds: undefined,
    });
  });

  test.each([
    ['an unknown use', () => ({ ...x509(ca), use: 'wit-svid' })],
    ['no use', () => ({ ...x509(ca), use: undefined })],
    ['no x5c', () => ({ ...x509(ca), x5c: undefined })],
    ['an empty x5c', () => ({ ...x509(ca), x5c: [] })],
    [
      'a key of tokens of an unknown kind',
      () => ({ kty: 'OKP', crv: 'Ed25519', x: 'AA', use: 'jwt-svid', kid: 'e' }),
    ],
    ['a key of tokens on another curve', () => jwt('k', { crv: 'secp256k1' })],
  ])('passing over an entry with %s', (_, entry) => {
    expect(parse({ keys: [entry()] })).toMatchObject({ roots: undefined, jwtKeys: [] });
    expect(parse({ keys: [entry(), x509(ca)] }).roots).toEqual(ca.bundle);
  });

  test('taking the first certificate of an x5c and no other', () => {
    const entry = x509(ca);
    expect(parse({ keys: [{ ...entry, x5c: [...entry.x5c, 'not even base64!'] }] }).roots).toEqual(
      ca.bundle,
    );
  });

  test('and written as it is read', () => {
    const key = jwt('k1') as unknown as JwtKey;
    const bundle = parse({ keys: [x509(ca), key], spiffe_refresh_hint: 300 });
    expect(parse(formatSpiffeBundle(bundle))).toEqual(bundle);
  });
});

describe('a SPIFFE bundle is refused, by field,', () => {
  test.each<[string, () => unknown, RegExp]>([
    ['that is no list of keys', () => ({ keys: {} }), /^bundle keys: must be a list$/],
    ['without keys', () => ({}), /^bundle keys: must be a list$/],
    [
      'that is a map of bundles',
      () => ({ trust_domains: {} }),
      /must be the bundle of one trust domain/,
    ],
    [
      'with an entry that is no object',
      () => ({ keys: ['x'] }),
      /^bundle keys\[0\]: must be an object$/,
    ],
    [
      'with a hint of another type',
      () => ({ keys: [], spiffe_refresh_hint: '60' }),
      /spiffe_refresh_hint: must be a whole number/,
    ],
    [
      'with a negative hint',
      () => ({ keys: [], spiffe_refresh_hint: -1 }),
      /spiffe_refresh_hint: must be a whole number/,
    ],
    [
      'with a root of another trust domain',
      () => ({ keys: [x509(ca), x509(elsewhere)] }),
      /^bundle keys\[1\]\.x5c: must be of trust domain other\.example, not cluster\.local$/,
    ],
    [
      'with a root that is no CA',
      () => ({ keys: [x509(notCa)] }),
      /^bundle keys\[0\]\.x5c: must be a CA certificate$/,
    ],
    [
      'with a damaged root',
      () => ({ keys: [{ use: 'x509-svid', x5c: ['MIIB'] }] }),
      /^bundle keys\[0\]\.x5c/,
    ],
    [
      'with a root that is not base64',
      () => ({ keys: [{ use: 'x509-svid', x5c: ['!'] }] }),
      /x5c: must be base64$/,
    ],
    [
      'with a private key',
      () => ({ keys: [jwt('k', { d: 'AA' })] }),
      /must not hold a private key$/,
    ],
    [
      'with a shared secret',
      () => ({ keys: [{ kty: 'oct', k: 'AA', use: 'jwt-svid', kid: 'k' }] }),
      /must not hold a private key$/,
    ],
    [
      'with a key of tokens without a name',
      () => ({ keys: [jwt('')] }),
      /keys\[0\]\.kid: must be there$/,
    ],
    [
      'with two keys of one name',
      () => ({ keys: [jwt('k'), jwt('k')] }),
      /keys\[1\]\.kid: must not be that of another key$/,
    ],
    [
      'with a point off its curve',
      () => ({ keys: [jwt('k', { x: 'AA' })] }),
      /^bundle keys\[0\]: must be a public key$/,
    ],
    [
      'with too small an RSA key',
      () => ({
        keys: [
          {
            ...generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({
              format: 'jwk',
            }),
            use: 'jwt-svid',
            kid: 'k',
          },
        ],
      }),
      /must be RSA of at least 2048 bits$/,
    ],
    [
      'with more keys than anybody has',
      () => ({ keys: Array.from({ length: 101 }, () => ({})) }),
      /must not hold more than 100 keys$/,
    ],
  ])('%s', (_, document, want) => {
    expect(refusal(() => parse(document()))).toMatchObject({
      code: 'ERR_PARSE',
      message: expect.stringMatching(want),
    });
  });

  test('also as PEM: a root of another trust domain', () => {
    const pem = certificatesPem([ca.certificateDer, elsewhere.certificateDer]);
    expect(() => parseSpiffeBundle(pem, TD, 'bundle')).toThrow(
      'bundle block 2: must be of trust domain other.example, not cluster.local',
    );
  });

  test.each([[''], ['hello'], ['[]'], ['{"keys":[]'], ['null']])('that is %j', (text) => {
    expect(refusal(() => parseSpiffeBundle(Buffer.from(text), TD, 'bundle'))).toMatchObject({
      code: 'ERR_PARSE',
    });
  });
});

test('10,000 bundles with anything in them are read or refused with ERR_PARSE, and no root that is no CA gets in', () => {
  const good = { keys: [x509(ca), jwt('k1')], spiffe_refresh_hint: 60 };
  const anything = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom(...good.keys),
    fc.record(
      {
        use: fc.constantFrom('x509-svid', 'jwt-svid'),
        x5c: fc.jsonValue(),
        kid: fc.jsonValue(),
        kty: fc.constantFrom('EC', 'RSA'),
        n: fc.jsonValue(),
        e: fc.jsonValue(),
      },
      { requiredKeys: [] },
    ),
  );
  const documents = fc.oneof(
    fc
      .record(
        { keys: fc.array(anything), spiffe_refresh_hint: fc.oneof(fc.integer(), fc.jsonValue()) },
        { requiredKeys: [] },
      )
      .map((value) => JSON.stringify(value)),
    fc
      .tuple(fc.nat(JSON.stringify(good).length - 1), fc.string({ maxLength: 3 }))
      .map(([at, text]) => {
        const whole = JSON.stringify(good);
        return `${whole.slice(0, at)}${text}${whole.slice(at + text.length)}`;
      }),
  );
  fc.assert(
    fc.property(documents, (text) => {
      try {
        const { roots } = parseSpiffeBundle(Buffer.from(text), TD, 'bundle');
        for (const der of roots?.rootsDer ?? [])
          expect(isCa(parseCertificate(der, 'root'))).toBe(true);
      } catch (caught) {
        if (!(caught instanceof AgentError)) throw caught;
        expect(caught.code).toBe('ERR_PARSE');
      }
    }),
    { numRuns: 10_000 },
  );
});

function refusal(work: () => unknown): unknown {
  try {
    return work();
  } catch (caught) {
    return caught;
  }
}
