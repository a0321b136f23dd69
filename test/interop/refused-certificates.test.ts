import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { derInteger, derTime } from '../../agent/base/der';
import { certificatesPem } from '../../agent/identity/certificate';
import { encodeExtension, encodePurposes, PURPOSE } from '../../agent/identity/extensions';
import { generateKeyPair, type KeyPair } from '../../agent/identity/keys';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { acceptIssuedChain } from '../../agent/identity/svid';
import { createTrustBundle } from '../../agent/identity/trust-bundle';
import {
  HOUR_MS,
  issueLeaf,
  type LeafOptions,
  makeKey,
  makeTestCa,
  TEST_ID,
  TEST_NOW,
  type TestCaOptions,
  uriConstraints,
} from '../support/certs';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';

const dir = mkdtempSync(join(tmpdir(), 'keyturn-refused-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let key: KeyPair;
beforeAll(async () => {
  key = await generateKeyPair('ecdsa-p256');
});

/** Verdicts: whether each takes the leaf under the root. */
interface Verdicts {
  readonly ours: boolean;
  readonly go: boolean;
  readonly openssl: boolean;
}

const all = { ours: true, go: true, openssl: true };
const none = { ours: false, go: false, openssl: false };
/** Where we are stricter: each has its reason in the docstring of the gate or of the chain. */
const onlyOthers = { ours: false, go: true, openssl: true };

// Nothing that Go or OpenSSL refuses passes our gate: no row has `ours: true` beside a `false`.
testWith('goverify').each<[string, TestCaOptions, Partial<LeafOptions>, Verdicts]>([
  ['a right certificate', {}, {}, all],
  [
    'a notAfter of the year 9999',
    {},
    { notAfter: derTime(Date.parse('9999-12-31T23:59:59Z')) },
    all,
  ],
  ['no key usage', {}, { keyUsage: undefined }, all],
  ['no extended key usage', {}, { purposes: undefined }, all],
  [
    'an unknown extension',
    {},
    { extraExtensions: [encodeExtension('1.2.3.4', false, derInteger(1))] },
    all,
  ],
  [
    'a permitted trust domain',
    { extraExtensions: [uriConstraints(['cluster.local'], [])] },
    {},
    all,
  ],
  [
    'a wrong authority key identifier',
    {},
    { authorityKeyId: Buffer.alloc(20) },
    { ...none, go: true },
  ],
  ['an expired leaf', {}, { notAfterAt: TEST_NOW - HOUR_MS }, none],
  ['a leaf of the future', {}, { notBeforeAt: TEST_NOW + HOUR_MS }, none],
  ['an expired root', { notAfterAt: TEST_NOW - HOUR_MS }, {}, none],
  ['a root of the future', { notBeforeAt: TEST_NOW + HOUR_MS }, {}, none],
  ['another signer under the right name', {}, { signer: makeKey('ec', 'P-256') }, none],
  [
    'an unknown critical extension',
    {},
    { extraExtensions: [encodeExtension('1.2.3.4', true, derInteger(1))] },
    none,
  ],
  ['serverAuth only', {}, { purposes: [PURPOSE.serverAuth] }, none],
  ['clientAuth only', {}, { purposes: [PURPOSE.clientAuth] }, none],
  [
    'an excluded trust domain',
    { extraExtensions: [uriConstraints([], ['cluster.local'])] },
    {},
    none,
  ],
  [
    'another trust domain permitted',
    { extraExtensions: [uriConstraints(['other'], [])] },
    {},
    none,
  ],
  ['a negative serial', {}, { serial: Buffer.of(0xff) }, onlyOthers],
  ['SHA-1', {}, { signature: 'ECDSA-SHA1' }, { ...none, openssl: true }],
  [
    'a root for servers only',
    { extraExtensions: [encodePurposes([PURPOSE.serverAuth])] },
    {},
    none,
  ],
  ['a root that may not sign certificates', { keyUsage: ['cRLSign'] }, {}, none],
  ['a root without CA:TRUE', { isCa: false }, {}, { ...none, openssl: true }],
  ['a root of RSA 1024', { privateKey: makeKey('rsa', 1024) }, {}, onlyOthers],
  ['a leaf that is a CA', {}, { isCa: true }, onlyOthers],
  [
    'key usage keyEncipherment alone',
    {},
    { keyUsage: ['keyEncipherment'] },
    { ...onlyOthers, openssl: false },
  ],
  ['a serial of 21 octets', {}, { serial: Buffer.alloc(21, 1) }, onlyOthers],
  [
    'a fraction in a time',
    {},
    { notAfter: Buffer.concat([Buffer.of(0x18, 17), Buffer.from('20260201000000.5Z')]) },
    { ...none },
  ],
  ['another identity', {}, { uris: ['spiffe://cluster.local/ns/shop/sa/other'] }, onlyOthers],
  ['two identities', {}, { uris: [TEST_ID, TEST_ID] }, { ...none, openssl: true }],
])('%s', async (_, caOptions, leafOptions, want) => {
  const ca = await makeTestCa(caOptions);
  const leafDer = issueLeaf(ca, { key, ...leafOptions });
  expect({ ours: ours(leafDer, ca.certificateDer), ...others(leafDer, ca.certificateDer) }).toEqual(
    want,
  );
});

function ours(leafDer: Uint8Array, rootDer: Uint8Array): boolean {
  try {
    acceptIssuedChain(
      { id: parseSpiffeId(TEST_ID), key, source: 'test' },
      [leafDer],
      createTrustBundle([rootDer]),
      TEST_NOW,
    );
    return true;
  } catch {
    return false;
  }
}

function others(leafDer: Uint8Array, rootDer: Uint8Array): { go: boolean; openssl: boolean } {
  const [root, leaf] = [join(dir, 'root.pem'), join(dir, 'leaf.pem')];
  writeFileSync(root, certificatesPem([rootDer]));
  writeFileSync(leaf, certificatesPem([leafDer]));
  const go = spawnSync(peerPath('goverify')!, [root, new Date(TEST_NOW).toISOString()], {
    input: certificatesPem([leafDer]),
    encoding: 'utf8',
  });
  const openssl = ['sslserver', 'sslclient'].map(
    (purpose) =>
      spawnSync('openssl', [
        'verify',
        '-purpose',
        purpose,
        '-attime',
        String(TEST_NOW / 1000),
        '-CAfile',
        root,
        leaf,
      ]).status,
  );
  return { go: go.stdout === 'passed 1\n', openssl: openssl.every((status) => status === 0) };
}
