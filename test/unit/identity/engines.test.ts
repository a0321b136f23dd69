import { createPublicKey, X509Certificate } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { readDer } from '../../../agent/base/der';
import { isCa, parseCertificate, uriNames } from '../../../agent/identity/certificate';
import { isSelfSigned } from '../../../agent/identity/chain';
import {
  type CertificateEngine,
  type CertificateSpec,
  ENGINES,
} from '../../../agent/identity/engine';
import { KEY_ALGORITHMS, type KeyAlgorithm, type KeyPair } from '../../../agent/identity/keys';
import { loadEngine } from '../../../agent/identity/load-engine';
import { EMPTY_NAME, encodeName } from '../../../agent/identity/name';
import { keyIdentifier } from '../../../agent/identity/public-key';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import { describeCertificate } from '../../../agent/identity/x509';
import { HOUR_MS, issueLeaf, makeTestCa, TEST_ID, TEST_NOW } from '../../support/certs';

/** One key of each kind serves all tests: RSA keys take seconds to make. */
const keys = new Map<KeyAlgorithm, Promise<KeyPair>>();
async function keyOf(algorithm: KeyAlgorithm): Promise<KeyPair> {
  const engine = await loadEngine('direct');
  const made = keys.get(algorithm) ?? engine.generateKeyPair(algorithm);
  keys.set(algorithm, made);
  return made;
}

const id = parseSpiffeId(TEST_ID);
const issuerDer = encodeName([['O', 'cluster.local']]);

function spec(
  key: KeyPair,
  ca: KeyPair,
  profile: CertificateSpec['profile'],
  options: Partial<CertificateSpec> = {},
): CertificateSpec {
  return {
    serial: Buffer.from('4fffffffffffffffffffffffffffff01', 'hex'),
    issuerDer,
    subjectDer: profile.kind === 'leaf' ? EMPTY_NAME : issuerDer,
    notBeforeAt: TEST_NOW - 120_000,
    notAfterAt: TEST_NOW + 24 * HOUR_MS,
    spkiDer: key.spkiDer,
    authorityKeyId: keyIdentifier(ca.spkiDer),
    subjectKeyId: keyIdentifier(key.spkiDer),
    profile,
    ...options,
  };
}

/** What a workload's trust is made of. */
type Profile = Exclude<CertificateSpec['profile'], { readonly kind: 'server' }>;
const profiles: readonly Profile[] = [
  { kind: 'leaf', uri: TEST_ID, keyEncipherment: false },
  { kind: 'leaf', uri: TEST_ID, keyEncipherment: true },
  { kind: 'root', uri: undefined },
  { kind: 'root', uri: 'spiffe://cluster.local' },
  { kind: 'intermediate', pathLength: 0, uri: undefined },
  { kind: 'intermediate', pathLength: 3, uri: 'spiffe://cluster.local' },
];

describe.each(ENGINES)('engine %s', (name) => {
  const engine = (): Promise<CertificateEngine> => loadEngine(name);

  test('is what was asked for', async () => expect((await engine()).name).toBe(name));

  test.each(['ecdsa-p256', 'ecdsa-p384', 'rsa-2048', 'rsa-3072'] as const)(
    'makes a new %s key each time',
    async (algorithm) => {
      const [one, two] = [
        await (await engine()).generateKeyPair(algorithm),
        await (await engine()).generateKeyPair(algorithm),
      ];
      const { asymmetricKeyDetails: details } = one.privateKey.reveal();
      const curve = { 'ecdsa-p256': 'prime256v1', 'ecdsa-p384': 'secp384r1' }[algorithm as string];
      expect(details).toMatchObject(
        curve
          ? { namedCurve: curve }
          : { modulusLength: Number(algorithm.slice(4)), publicExponent: 65_537n },
      );
      expect(one.spkiDer).toEqual(
        createPublicKey(one.privateKey.reveal()).export({ type: 'spki', format: 'der' }),
      );
      expect(one.algorithm).toBe(algorithm);
      expect(Buffer.compare(one.spkiDer, two.spkiDer)).not.toBe(0);
    },
  );

  test.each(KEY_ALGORITHMS)('makes a CSR of %s that each engine reads alike', async (algorithm) => {
    const key = await keyOf(algorithm);
    const csr = await (await engine()).createCsr(key, id);
    for (const other of ENGINES) {
      expect(await (await loadEngine(other)).readCsr(csr)).toEqual({
        spkiDer: key.spkiDer,
        uris: [TEST_ID],
        otherNames: [],
        otherExtensions: [],
        subjectDer: Buffer.from('300b31093007060355040a1300', 'hex'),
        hasCommonName: false,
      });
    }
  });

  test.each(KEY_ALGORITHMS)(
    'makes certificates of %s that say what was specified',
    async (algorithm) => {
      const key = await keyOf(algorithm);
      for (const profile of profiles) {
        const der = await (await engine()).createCertificate(spec(key, key, profile), key);
        const read = parseCertificate(der);
        expect(read).toMatchObject({
          serial: '4fffffffffffffffffffffffffffff01',
          issuer: 'O=cluster.local',
          subject: profile.kind === 'leaf' ? '' : 'O=cluster.local',
          notBeforeAt: TEST_NOW - 120_000,
          notAfterAt: TEST_NOW + 24 * HOUR_MS,
          basicConstraints: {
            ca: profile.kind !== 'leaf',
            pathLength: profile.kind === 'intermediate' ? profile.pathLength : undefined,
          },
          keyUsage: {
            critical: true,
            usages:
              profile.kind !== 'leaf'
                ? ['keyCertSign', 'cRLSign']
                : profile.keyEncipherment
                  ? ['digitalSignature', 'keyEncipherment']
                  : ['digitalSignature'],
          },
          extendedKeyUsage:
            profile.kind === 'leaf' ? ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'] : undefined,
          unknownCritical: [],
          nameConstraints: undefined,
        });
        expect([isCa(read), uriNames(read)]).toEqual([
          profile.kind !== 'leaf',
          profile.uri === undefined ? [] : [profile.uri],
        ]);
        expect(read.subjectAltName?.critical).toBe(
          profile.uri === undefined ? undefined : profile.kind === 'leaf',
        );
        expect([read.authorityKeyId, read.subjectKeyId].map((each) => Buffer.from(each!))).toEqual(
          Array(2).fill(Buffer.from(keyIdentifier(key.spkiDer))),
        );
        if (profile.kind !== 'leaf') expect(isSelfSigned(read)).toBe(true);
        expect(new X509Certificate(der).verify(createPublicKey(key.privateKey.reveal()))).toBe(
          true,
        );
      }
    },
  );

  test('dates from 2050 on are GeneralizedTime, and serials keep their sign', async () => {
    const key = await keyOf('ecdsa-p256');
    const notAfterAt = Date.parse('2050-01-01T00:00:00Z');
    for (const serial of ['01', '80', 'ff'.repeat(19), `7f${'ff'.repeat(19)}`]) {
      const options = { notAfterAt, serial: Buffer.from(serial, 'hex') };
      const read = parseCertificate(
        await (await engine()).createCertificate(spec(key, key, profiles[0]!, options), key),
      );
      expect([read.serial, read.notAfterAt]).toEqual([serial, notAfterAt]);
    }
  });
});

describe('@peculiar/x509 judges every byte of the direct engine', () => {
  test.each(KEY_ALGORITHMS)(
    'a CSR of %s has the same bytes to sign as its own',
    async (algorithm) => {
      const key = await keyOf(algorithm);
      const ours = await (await loadEngine('direct')).createCsr(key, id);
      const theirs = await (await loadEngine('webcrypto')).createCsr(key, id);
      expect(signedPart(ours)).toEqual(signedPart(theirs));
      // RSA PKCS#1 v1.5 is deterministic, so there the whole of it.
      if (algorithm.startsWith('rsa')) expect(Buffer.from(ours)).toEqual(Buffer.from(theirs));
      const parsed = new x509.Pkcs10CertificateRequest(new Uint8Array(ours));
      expect(await parsed.verify()).toBe(true);
      expect(parsed.subject).toBe('O=');
      expect(parsed.extensions.map(({ type, critical }) => [type, critical])).toEqual([
        ['2.5.29.17', true],
      ]);
      expect(Buffer.from(parsed.rawData)).toEqual(Buffer.from(ours));
    },
  );

  test.each(KEY_ALGORITHMS)(
    'certificates of %s have the same bytes to sign as its own',
    async (algorithm) => {
      const key = await keyOf(algorithm);
      for (const profile of profiles) {
        for (const notAfterAt of [TEST_NOW + HOUR_MS, Date.parse('2055-06-01T00:00:00Z')]) {
          const wanted = spec(key, key, profile, { notAfterAt });
          const ours = await (await loadEngine('direct')).createCertificate(wanted, key);
          const theirs = await (await loadEngine('webcrypto')).createCertificate(wanted, key);
          expect(signedPart(ours)).toEqual(signedPart(theirs));
          const parsed = new x509.X509Certificate(new Uint8Array(ours));
          expect(
            await parsed.verify({
              publicKey: new x509.PublicKey(new Uint8Array(key.spkiDer)),
              signatureOnly: true,
            }),
          ).toBe(true);
          expect([parsed.notBefore.getTime(), parsed.notAfter.getTime()]).toEqual([
            wanted.notBeforeAt,
            notAfterAt,
          ]);
        }
      }
    },
  );
});

/** What the signature is over: the first element inside. */
function signedPart(der: Uint8Array): Buffer {
  return readDer(der, 'signed', (outer) =>
    outer.sequence('', (inner) =>
      [inner.any(''), inner.any(''), inner.any('')].map((each) => Buffer.from(each.der)),
    ),
  )[0]!;
}

describe('describeCertificate', () => {
  test('says what people want to know', async () => {
    const key = await keyOf('ecdsa-p256');
    const text = describeCertificate(issueLeaf(await makeTestCa(), { key }));
    for (const each of [
      TEST_ID,
      'O=cluster.local',
      'P-256',
      'TLS WWW server authentication',
      'Not After',
    ])
      expect(text).toContain(each);
  });

  test('lets no escape sequence of a name through to the terminal', async () => {
    const der = issueLeaf(await makeTestCa(), {
      key: await keyOf('ecdsa-p256'),
      subjectDer: encodeName([['CN', '\u001b[2J\u202e']]),
    });
    expect(describeCertificate(der)).not.toMatch(/[^\P{C}\n]/u);
  });

  test('refuses what is no certificate', () => {
    expect(() => describeCertificate(Buffer.from('3000', 'hex'))).toThrow(
      expect.objectContaining({ code: 'ERR_PARSE' }),
    );
  });
});
