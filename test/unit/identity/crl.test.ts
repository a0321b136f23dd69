import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  contextTag,
  derElement,
  derInteger,
  derOctetString,
  derSequence,
  derTime,
  TAG,
} from '../../../agent/base/der';
import { AgentError } from '../../../agent/base/errors';
import { parseCertificate } from '../../../agent/identity/certificate';
import { type CrlSpec, createCrl, isCrlOf } from '../../../agent/identity/crl';
import { encodeExtension } from '../../../agent/identity/extensions';
import { type KeyAlgorithm, type KeyPair, keyPairOf } from '../../../agent/identity/keys';
import {
  algorithmDer,
  HOUR_MS,
  makeTestCa,
  signDer,
  TEST_NOW,
  type TestCa,
} from '../../support/certs';
import { outcome } from '../../support/outcome';
import { parseCrl } from '../../support/parse-crl';
import { serialsOf } from '../../support/revoked-serials';

const keyOf = (ca: TestCa, algorithm: KeyAlgorithm = 'ecdsa-p256'): KeyPair =>
  keyPairOf(ca.privateKey, algorithm);
const specOf = (ca: TestCa, fields: Partial<CrlSpec> = {}): CrlSpec => ({
  issuerDer: ca.subjectDer,
  authorityKeyId: ca.keyId,
  number: 7,
  thisUpdateAt: TEST_NOW,
  nextUpdateAt: TEST_NOW + HOUR_MS,
  revoked: [],
  ...fields,
});

test.each(['ecdsa-p256', 'ecdsa-p384', 'rsa-2048'] as const)(
  'a list that is made is the list that is read (%s)',
  async (algorithm) => {
    const ca = await makeTestCa({ algorithm });
    const revoked = [
      { serial: '01', revokedAt: TEST_NOW, reason: 1 },
      { serial: 'ff00', revokedAt: TEST_NOW - HOUR_MS, reason: 0 },
      { serial: '7f'.repeat(16), revokedAt: Date.parse('2051-01-01T00:00:00Z'), reason: 4 },
    ];
    const crl = parseCrl(
      await createCrl(specOf(ca, { revoked, number: 300 }), keyOf(ca, algorithm)),
    );
    expect(crl).toMatchObject({
      number: '012c',
      thisUpdateAt: TEST_NOW,
      nextUpdateAt: TEST_NOW + HOUR_MS,
      issuer: 'O=cluster.local, CN=root',
    });
    expect(serialsOf(crl)).toEqual(revoked.map(({ serial }) => serial));
    expect(isCrlOf(crl, parseCertificate(ca.certificateDer))).toBe(true);
    expect(parseCrl(await createCrl(specOf(ca), keyOf(ca, algorithm))).revoked.size).toBe(0);
  },
);

describe('a list is not its', () => {
  test.each<[string, (ca: TestCa) => Promise<TestCa>]>([
    ['another name', (ca) => makeTestCa({ name: 'other', privateKey: ca.privateKey })],
    ['another key of the same name', () => makeTestCa()],
    [
      'a signer that may not sign lists',
      (ca) => makeTestCa({ privateKey: ca.privateKey, keyUsage: ['keyCertSign'] }),
    ],
  ])('%s', async (_, make) => {
    const ca = await makeTestCa();
    const crl = parseCrl(await createCrl(specOf(ca), keyOf(ca)));
    expect(isCrlOf(crl, parseCertificate((await make(ca)).certificateDer))).toBe(false);
  });

  test('signer, where a byte of it was changed', async () => {
    const ca = await makeTestCa();
    const der = await createCrl(
      specOf(ca, { revoked: [{ serial: '0102030405', revokedAt: TEST_NOW, reason: 0 }] }),
      keyOf(ca),
    );
    const at = Buffer.from(der).indexOf(Buffer.from('0102030405', 'hex'));
    der[at] = 9;
    expect(isCrlOf(parseCrl(der), parseCertificate(ca.certificateDer))).toBe(false);
  });
});

describe('a list is refused', () => {
  const algorithm = algorithmDer('ECDSA-SHA256');
  const times = [derTime(TEST_NOW), derTime(TEST_NOW + HOUR_MS)];
  const number = encodeExtension('2.5.29.20', false, derInteger(1));
  const critical = (oid: string) => encodeExtension(oid, true, derOctetString(Buffer.of(1)));

  test.each<[string, string, (name: Uint8Array) => readonly Uint8Array[]]>([
    [
      'without nextUpdate',
      'crl next update',
      (name) => [derInteger(1), algorithm, name, times[0]!],
    ],
    [
      'whose nextUpdate is its thisUpdate',
      'crl next update',
      (name) => [derInteger(1), algorithm, name, times[0]!, times[0]!],
    ],
    ['of version 3', 'crl version', (name) => [derInteger(2), algorithm, name, ...times]],
    [
      'of version 1 with extensions',
      'crl version',
      (name) => [algorithm, name, ...times, derElement(contextTag(0), derSequence(number))],
    ],
    [
      'with no extension in their place',
      'crl extensions',
      (name) => [
        derInteger(1),
        algorithm,
        name,
        ...times,
        derElement(contextTag(0), derSequence()),
      ],
    ],
    [
      'with another algorithm inside',
      'crl signature algorithm',
      (name) => [derInteger(1), algorithmDer('ECDSA-SHA384'), name, ...times],
    ],
    [
      'that is a delta',
      'crl extensions',
      (name) => [
        derInteger(1),
        algorithm,
        name,
        ...times,
        derElement(contextTag(0), derSequence(critical('2.5.29.27'))),
      ],
    ],
    [
      'of one distribution point',
      'crl extensions',
      (name) => [
        derInteger(1),
        algorithm,
        name,
        ...times,
        derElement(contextTag(0), derSequence(critical('2.5.29.28'))),
      ],
    ],
    [
      'with an entry of another issuer',
      'crl revoked certificate',
      (name) => [
        derInteger(1),
        algorithm,
        name,
        ...times,
        derSequence(derSequence(derInteger(5), times[0]!, derSequence(critical('2.5.29.29')))),
      ],
    ],
    [
      'with an entry without a date',
      'crl revocation date',
      (name) => [derInteger(1), algorithm, name, ...times, derSequence(derSequence(derInteger(5)))],
    ],
    [
      'with more behind it',
      'crl tbs',
      (name) => [derInteger(1), algorithm, name, ...times, derElement(TAG.null)],
    ],
  ])('%s', async (_, field, parts) => {
    const ca = await makeTestCa();
    const der = signDer(derSequence(...parts(ca.subjectDer)), ca.privateKey, 'ECDSA-SHA256');
    expect(outcome(() => parseCrl(der))).toMatchObject({ field });
  });

  test('whatever bytes it is made of, and nothing else is thrown', async () => {
    const ca = await makeTestCa();
    const good = await createCrl(
      specOf(ca, { revoked: [{ serial: '0102', revokedAt: TEST_NOW, reason: 1 }] }),
      keyOf(ca),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.nat(good.length),
        (changes, length) => {
          const bytes = Buffer.from(good.subarray(0, length));
          for (const [at, value] of changes) if (at < length) bytes[at] = value;
          try {
            parseCrl(bytes);
          } catch (caught) {
            expect(caught).toBeInstanceOf(AgentError);
            expect(caught).toMatchObject({ code: 'ERR_PARSE' });
          }
        },
      ),
      { numRuns: 10_000 },
    );
  });
});
