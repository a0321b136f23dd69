import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { certificatesPem } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import type { CertificateSpec } from '../../agent/identity/engine';
import type { KeyAlgorithm, KeyPair } from '../../agent/identity/keys';
import { EMPTY_NAME, encodeName } from '../../agent/identity/name';
import { keyIdentifier } from '../../agent/identity/public-key';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { HOUR_MS, randomSerial, TEST_ID, TEST_NOW } from '../support/certs';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';

const full = process.env.KEYTURN_TEST === 'full';
const most = {
  'ecdsa-p256': 1000,
  'ecdsa-p384': 1000,
  'rsa-2048': 200,
  'rsa-3072': 50,
  'rsa-4096': 20,
} as const;
const at = new Date(TEST_NOW).toISOString().replace('.000', '');

/** A root of one algorithm and leaves of the same, by the profile that the built-in CA issues. */
interface Issued {
  readonly rootDer: Uint8Array;
  readonly leavesDer: readonly Uint8Array[];
}

async function issue(algorithm: KeyAlgorithm, count: number): Promise<Issued> {
  const ca = await directEngine.generateKeyPair(algorithm);
  const issuerDer = encodeName([['O', 'cluster.local']]);
  const authorityKeyId = keyIdentifier(ca.spkiDer);
  const common = { issuerDer, authorityKeyId, notAfterAt: TEST_NOW + 24 * HOUR_MS };
  const rootDer = await directEngine.createCertificate(
    {
      ...common,
      serial: randomSerial(),
      subjectDer: issuerDer,
      spkiDer: ca.spkiDer,
      subjectKeyId: authorityKeyId,
      notBeforeAt: TEST_NOW - 600_000,
      profile: { kind: 'root', uri: 'spiffe://cluster.local' },
    },
    ca,
  );
  const leavesDer: Uint8Array[] = [];
  while (leavesDer.length < count) leavesDer.push(await issueLeaf(algorithm, ca, common));
  return { rootDer, leavesDer };
}

/** As a CA does it: a key, a request, its key read back out of it. */
async function issueLeaf(
  algorithm: KeyAlgorithm,
  ca: KeyPair,
  common: Pick<CertificateSpec, 'issuerDer' | 'authorityKeyId' | 'notAfterAt'>,
): Promise<Uint8Array> {
  const key = await directEngine.generateKeyPair(algorithm);
  const { spkiDer, uris } = await directEngine.readCsr(
    await directEngine.createCsr(key, parseSpiffeId(TEST_ID)),
  );
  return directEngine.createCertificate(
    {
      ...common,
      serial: randomSerial(),
      subjectDer: EMPTY_NAME,
      notBeforeAt: TEST_NOW - 120_000,
      spkiDer,
      subjectKeyId: keyIdentifier(spkiDer),
      profile: { kind: 'leaf', uri: uris[0]!, keyEncipherment: algorithm.startsWith('rsa') },
    },
    ca,
  );
}

const dir = mkdtempSync(join(tmpdir(), 'keyturn-certificates-'));
const issued = new Map<KeyAlgorithm, Issued>();
const rows = (Object.entries(most) as [KeyAlgorithm, number][]).map(
  ([algorithm, count]) => [algorithm, full ? count : Math.max(count / 10, 2)] as const,
);
const rootPath = (algorithm: KeyAlgorithm) => join(dir, `root-${algorithm}.pem`);

beforeAll(async () => {
  for (const [algorithm, count] of rows) {
    issued.set(algorithm, await issue(algorithm, count));
    writeFileSync(rootPath(algorithm), certificatesPem([issued.get(algorithm)!.rootDer]));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe.each(rows)('%s', (algorithm, count) => {
  test.each(['sslserver', 'sslclient'])(
    `openssl verify -x509_strict -purpose %s takes ${count} certificates`,
    (purpose) => {
      const paths = issued.get(algorithm)!.leavesDer.map((der, index) => {
        const path = join(dir, `leaf-${algorithm}-${index}.pem`);
        writeFileSync(path, certificatesPem([der]));
        return path;
      });
      const common = [
        'verify',
        '-x509_strict',
        '-purpose',
        purpose,
        '-attime',
        String(TEST_NOW / 1000),
        '-CAfile',
        rootPath(algorithm),
      ];
      const answer = execFileSync('openssl', [...common, ...paths], { encoding: 'utf8' });
      expect(answer.match(/: OK$/gm)).toHaveLength(count);
    },
  );

  testWith('goverify')(`Go takes ${count} certificates as a server's and as a client's`, () => {
    const input = certificatesPem(issued.get(algorithm)!.leavesDer);
    const answer = execFileSync(peerPath('goverify')!, [rootPath(algorithm), at], {
      input,
      encoding: 'utf8',
    });
    expect(answer).toBe(`passed ${count}\n`);
  });
});

// One process for all: Python takes seconds to load it.
testWith('pkilint')(
  'pkilint finds nothing in any of them but URIs that it takes for web addresses',
  () => {
    const all = [...issued.values()].flatMap(({ rootDer, leavesDer }) => [rootDer, ...leavesDer]);
    const script = join(__dirname, 'lint_certificates.py');
    const run = spawnSync(peerPath('pkilint')!, [script], {
      input: certificatesPem(all),
      encoding: 'utf8',
      maxBuffer: 2 ** 26,
    });
    expect(run.stderr).toBe('');
    expect(run.stdout.split('\n')).toEqual([
      `finding ERROR pkix.invalid_uri_syntax ${all.length}`,
      // Not a fault but a fact: it names the method of each key identifier, and none other than this one.
      `finding INFO pkix.subject_key_identifier_rfc7093_method_1_identified ${all.length}`,
      `linted ${all.length}`,
      '',
    ]);
  },
);
