import 'reflect-metadata';
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as x509 from '@peculiar/x509';
import { openAuthority } from '../../agent/authority/authority';
import { type CrlPublisher, createCrlPublisher } from '../../agent/authority/crl';
import { activateRoot, addRoot } from '../../agent/authority/roots/roots';
import { openFileStore } from '../../agent/authority/store/file-store';
import type { CaStore } from '../../agent/authority/store/store';
import { readPem, writePem } from '../../agent/base/pem';
import { certificatesPem, parseCertificate } from '../../agent/identity/certificate';
import { isSelfSigned } from '../../agent/identity/chain';
import { isCrlOf } from '../../agent/identity/crl';
import { directEngine } from '../../agent/identity/direct-engine';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { HOUR_MS, makeTestCa, TEST_ID } from '../support/certs';
import { parseCrl } from '../support/parse-crl';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';
import { serialsOf } from '../support/revoked-serials';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';

const ID = parseSpiffeId(TEST_ID);

describe.each(['ecdsa-p256', 'ecdsa-p384', 'rsa-2048'] as const)(
  'the lists of an authority (%s)',
  (algorithm) => {
    const dir = tempDir();
    const path = (name: string) => join(dir, name);
    const leaves: { file: string; der: Uint8Array }[] = [];
    let store: CaStore;
    let crl: CrlPublisher;

    /** Two signers of one name: what each signed, one of each revoked. */
    beforeAll(async () => {
      const deps = testDeps();
      const options = {
        dir,
        trustDomain: 'cluster.local',
        rootAlgorithm: algorithm,
        engine: directEngine,
      };
      for (const round of [0, 1]) {
        const authority = await openAuthority(options, deps);
        store ??= await openFileStore(dir, deps);
        for (const fate of ['good', 'revoked']) {
          const key = await directEngine.generateKeyPair('ecdsa-p256');
          const leaf = await authority.issue(
            await authority.readCsr(await directEngine.createCsr(key, ID)),
            ID,
            3_600,
          );
          const { serial, notAfterAt, issuerKeyId, rootKeySha256 } = leaf;
          await store.recordIssued({
            serial,
            id: TEST_ID,
            keySha256: '',
            issuedAt: Date.now(),
            notAfterAt,
            issuerKeyId,
            rootKeySha256,
          });
          if (fate === 'revoked') await store.revoke({ serial }, 'keyCompromise', Date.now());
          const file = path(`${fate}-${round}.pem`);
          writeFileSync(file, certificatesPem(leaf.certificatesDer));
          leaves.push({ file, der: leaf.certificatesDer[0]! });
        }
        await authority.close();
        if (round === 1) break;
        await addRoot({ ...options, store }, { algorithm }, deps);
        await activateRoot({ ...options, store }, { force: true }, deps);
      }
      crl = createCrlPublisher({ dir, store }, deps);
      writeFileSync(path('crl.pem'), (await crl.current()).pem);
      // OpenSSL reads one list of a file, Go and Envoy all.
      const blocks = readPem((await crl.current()).pem, 'crl');
      const certificates = blocks
        .filter(({ label }) => label === 'CERTIFICATE')
        .map(({ der }) => parseCertificate(der));
      for (const [index, { label, der }] of blocks
        .filter((each) => each.label === 'X509 CRL')
        .entries()) {
        writeFileSync(path(`crl-${index}.pem`), writePem(label, der));
        const signer = certificates.find(
          (each) => isSelfSigned(each) && isCrlOf(parseCrl(der), each),
        );
        writeFileSync(path(`signer-${index}.pem`), certificatesPem([signer!.der]));
      }
    });
    afterAll(async () => {
      await crl.close();
      await store.close();
    });

    test.each([0, 1])('openssl crl -verify takes the list of signer %d', (index) => {
      // It takes the first certificate of the issuer's name, and both roots have the same.
      const args = [
        'crl',
        '-verify',
        '-noout',
        '-CAfile',
        path(`signer-${index}.pem`),
        '-in',
        path(`crl-${index}.pem`),
      ];
      const run = spawnSync('openssl', args, { encoding: 'utf8' });
      expect(run.stderr).toContain('verify OK');
    });

    test('openssl verify -crl_check refuses what is revoked and nothing else', () => {
      const lists = [0, 1].flatMap((index) => ['-CRLfile', path(`crl-${index}.pem`)]);
      const verdict = ({ file }: { file: string }) =>
        spawnSync(
          'openssl',
          [
            'verify',
            '-x509_strict',
            '-crl_check',
            ...lists,
            '-CAfile',
            path('root-cert.pem'),
            file,
          ],
          {
            encoding: 'utf8',
          },
        );
      for (const leaf of leaves) {
        const { stdout, stderr } = verdict(leaf);
        if (leaf.file.includes('good')) expect(stdout).toContain(': OK');
        else expect(stderr).toContain('certificate revoked');
      }
    });

    testWith('goverify')('Go takes the lists and finds what is revoked', () => {
      const at = `${new Date().toISOString().slice(0, 19)}Z`;
      const args = [path('root-cert.pem'), at, path('crl.pem')];
      const answer = execFileSync(peerPath('goverify')!, args, {
        input: certificatesPem(leaves.map(({ der }) => der)),
        encoding: 'utf8',
      });
      expect(answer).toBe('refused revoked for reason 1\nrefused revoked for reason 1\npassed 2\n');
    });

    test('@peculiar/x509 reads and verifies the lists', async () => {
      const signers = readPem((await crl.current()).pem, 'crl').filter(
        ({ label }) => label === 'CERTIFICATE',
      );
      const serials = leaves.map(({ der }) => parseCertificate(der).serial);
      const found: string[] = [];
      for (const { label, der } of readPem((await crl.current()).pem, 'crl')) {
        if (label !== 'X509 CRL') continue;
        const list = new x509.X509Crl(der);
        found.push(...list.entries.map(({ serialNumber }) => serialNumber));
        // The signer, and the same key as the signer before has certified it.
        const own = signers
          .map((each) => parseCertificate(each.der))
          .filter((each) => isCrlOf(parseCrl(der), each));
        expect(
          new Set(own.map(({ publicKey }) => Buffer.from(publicKey.spkiDer).toString('hex'))).size,
        ).toBe(1);
        expect(own.filter((each) => isSelfSigned(each))).toHaveLength(1);
        expect(
          await Promise.all(
            signers.map((each) => list.verify({ publicKey: new x509.X509Certificate(each.der) })),
          ),
        ).toContain(true);
        expect([list.version, list.nextUpdate!.getTime() - list.thisUpdate.getTime()]).toEqual([
          1,
          24 * HOUR_MS + 120_000,
        ]);
      }
      expect(found.sort()).toEqual([serials[1], serials[3]].sort());
    });
  },
);

test('a list that OpenSSL made is read', async () => {
  const ca = await makeTestCa({ name: 'openssl' });
  const dir = tempDir();
  const path = (name: string) => join(dir, name);
  writeFileSync(path('ca.pem'), certificatesPem([ca.certificateDer]));
  writeFileSync(path('key.pem'), ca.privateKey.export({ type: 'pkcs8', format: 'pem' }));
  writeFileSync(
    path('index.txt'),
    'R\t300101000000Z\t251231000000Z,keyCompromise\t0A0B0C\tunknown\t/CN=x\n',
  );
  writeFileSync(path('number'), '1000\n');
  const database = `database=${path('index.txt')}\ncrlnumber=${path('number')}`;
  writeFileSync(
    path('ca.cnf'),
    `[ca]\ndefault_ca=d\n[d]\n${database}\ndefault_md=sha256\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n`,
  );
  const run = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
  run(
    'ca',
    '-config',
    'ca.cnf',
    '-gencrl',
    '-crldays',
    '7',
    '-keyfile',
    'key.pem',
    '-cert',
    'ca.pem',
    '-out',
    'crl.pem',
  );
  const crl = parseCrl(run('crl', '-in', 'crl.pem', '-outform', 'DER'));
  expect(serialsOf(crl)).toEqual(['0a0b0c']);
  expect(crl.number).toBe('1000');
  expect(isCrlOf(crl, parseCertificate(ca.certificateDer))).toBe(true);
});
