import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { directEngine } from '../../agent/identity/direct-engine';
import { openAuthority } from '../../ca-client/builtin/authority';
import { createCrlPublisher } from '../../ca-client/builtin/crl';
import { readSigner } from '../../ca-client/builtin/signers';
import { openFileStore } from '../../ca-client/builtin/store/file-store';
import { issuedEntry } from '../support/ca-store';
import { HOUR_MS } from '../support/certs';
import { withMesh } from '../support/mesh';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

testWith('envoy')(
  'H11 a real Envoy refuses a peer whose certificate was revoked, within seconds, and takes its next one',
  async () => {
    const dir = tempDir();
    const caDir = join(dir, 'ca');
    const deps = testDeps();
    const options = { dir: caDir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine } as const;
    await (await openAuthority(options, deps)).close();
    const store = await openFileStore(caDir, deps);
    const crl = createCrlPublisher({ dir: caDir, store }, deps);
    const crlFile = join(dir, 'crl.pem');
    const publish = async () => {
      writeFileSync(`${crlFile}.new`, await crl.current());
      renameSync(`${crlFile}.new`, crlFile);
    };
    await publish();
    try {
      await withMesh({ dir, ttl: '1h', perSecond: 20, flags: ['--crl', crlFile] }, async (mesh) => {
        const refusals = () => mesh.envoys.server.sum(/^listener\.server\.ssl\.fail_verify_error$/);
        const succeeded = () => mesh.traffic.report().succeeded;
        await until('traffic', async () => succeeded() > 20);
        expect([await refusals(), mesh.traffic.report().failures.size]).toEqual([0, 0]);

        const [workload] = (await mesh.agent('client').status()).workloads;
        expect(workload!.revocation).toMatchObject({ lists: 1, revoked: 0 });
        // As `ca serve` would have entered it.
        const { serial } = workload!.certificate!;
        const issuerKeyId = Buffer.from((await readSigner(caDir)).certificate.subjectKeyId!).toString('hex');
        await store.recordIssued(issuedEntry({ serial, issuerKeyId, notAfterAt: Date.now() + HOUR_MS }));
        await store.revoke({ serial }, 'keyCompromise', Date.now());
        const revokedAt = Date.now();
        // The publisher looks at its directory no more than once a second.
        await until('the new list', async () => {
          await publish();
          const lists = (await mesh.agent('server').status()).workloads[0]!.revocation;
          return lists?.revoked === 1;
        });
        await until('the first refusal', async () => (await refusals()) > 0);
        expect(Date.now() - revokedAt).toBeLessThan(10_000);
        // Connections that stand stay; each new one is refused, and the test's clients make a new one for each request.
        const before = { sent: mesh.traffic.report().sent, succeeded: succeeded() };
        await until('more requests', async () => mesh.traffic.report().sent >= before.sent + 40);
        expect(succeeded() - before.succeeded).toBeLessThanOrEqual(8);

        const rotated = await mesh.agent('client').command('rotate', '--wait');
        expect(rotated).toMatchObject({ code: 0 });
        const now = succeeded();
        await until('traffic with the new certificate', async () => succeeded() >= now + 40);
        expect((await mesh.envoys.client.certs())[0]!.chain[0]!.serial.replace(/^0+/, '')).not.toBe(serial.replace(/^0+/, ''));
      });
    } finally {
      crl.close();
      await store.close();
    }
  },
  90_000,
);
