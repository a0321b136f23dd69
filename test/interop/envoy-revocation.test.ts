import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from '@jest/globals';
import { openAuthority } from '../../agent/authority/authority';
import { createCrlPublisher } from '../../agent/authority/crl';
import type { RootsOptions } from '../../agent/authority/roots/root-facts';
import { activateRoot, addRoot, retireRoot } from '../../agent/authority/roots/roots';
import { readSigner } from '../../agent/authority/signers';
import { openFileStore } from '../../agent/authority/store/file-store';
import type { CaStore } from '../../agent/authority/store/store';
import { directEngine } from '../../agent/identity/direct-engine';
import { writeCaDir } from '../support/ca-dir';
import { issuedEntry } from '../support/ca-store';
import { HOUR_MS, makeTestCa } from '../support/certs';
import { underLoad } from '../support/load';
import { type Mesh, SIDES, type SideName, withMesh } from '../support/mesh';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

/** A CA directory with a register, and a file with its lists for each agent, `CRL` in its directory. */
interface World {
  readonly dir: string;
  readonly caDir: string;
  readonly store: CaStore;
  readonly deps: ReturnType<typeof testDeps>;
  readonly roots: RootsOptions;
  /** Writes the lists of this moment to the files of agents, default both. The publisher looks at its directory no more than once a second. */
  publish(sides?: readonly SideName[]): Promise<void>;
}

const CRL = ['--crl', 'crl.pem'];

/** @param signer  What signs: a root that is made, or an intermediate that is plugged in. */
async function withWorld(
  signer: 'root' | 'intermediate',
  work: (world: World) => Promise<void>,
): Promise<void> {
  const dir = tempDir();
  const caDir = join(dir, 'ca');
  const deps = testDeps();
  const options = {
    dir: caDir,
    trustDomain: 'cluster.local',
    rootAlgorithm: 'ecdsa-p256',
    engine: directEngine,
  } as const;
  if (signer === 'intermediate') {
    const validity = { notBeforeAt: Date.now() - HOUR_MS, notAfterAt: Date.now() + 24 * HOUR_MS };
    const root = await makeTestCa(validity);
    writeCaDir(caDir, { signer: await makeTestCa({ ...validity, parent: root }), roots: [root] });
  }
  await (await openAuthority(options, deps)).close();
  const store = await openFileStore(caDir, deps);
  const crl = createCrlPublisher({ dir: caDir, store }, deps);
  const publish: World['publish'] = async (sides = SIDES) => {
    for (const side of sides) {
      const file = join(dir, side, 'crl.pem');
      mkdirSync(join(dir, side), { recursive: true });
      writeFileSync(`${file}.new`, (await crl.current()).pem);
      renameSync(`${file}.new`, file);
    }
  };
  try {
    await publish();
    await work({ dir, caDir, store, deps, roots: { ...options, store }, publish });
  } finally {
    await crl.close();
    await store.close();
  }
}

const workloadOf = async (mesh: Mesh, side: SideName) =>
  (await mesh.agent(side).status()).workloads[0]!;

/** Publishes until agents, default both, have lists of which `wanted` holds. */
async function listsReach(
  mesh: Mesh,
  world: World,
  wanted: (lists: { lists: number; revoked: number }) => boolean,
  sides: readonly SideName[] = SIDES,
): Promise<void> {
  await until('the new lists', async () => {
    await world.publish(sides);
    const each = await Promise.all(
      sides.map(async (side) => (await workloadOf(mesh, side)).revocation),
    );
    return each.every((lists) => lists !== undefined && wanted(lists));
  });
}

describe('real Envoys with revocation lists', () => {
  testWith('envoy').each([
    ['root', 'ROOTCA'],
    ['intermediate', 'ROOTCA'],
    ['root', 'ALL'],
  ] as const)(
    'H11 refuse a peer whose certificate was revoked, within seconds, and take the next one, which its agent asks for (signer: %s, roots: %s)',
    (signer, roots) =>
      withWorld(signer, (world) =>
        withMesh(
          {
            dir: world.dir,
            ttl: '1h',
            perSecond: 20,
            flags: CRL,
            secrets: { identity: 'default', roots },
          },
          async (mesh) => {
            const refusals = () =>
              mesh.envoys.server.sum(/^listener\.server\.ssl\.fail_verify_error$/);
            const succeeded = () => mesh.traffic.report().succeeded;
            await until('traffic', async () => succeeded() > 20);
            expect([await refusals(), mesh.traffic.report().failures.size]).toEqual([0, 0]);
            const { certificate, revocation } = await workloadOf(mesh, 'client');
            expect(revocation).toMatchObject({ lists: 1, revoked: 0 });
            // As `ca serve` would have entered it.
            const { serial } = certificate!;
            const issuerKeyId = Buffer.from(
              (await readSigner(world.caDir)).certificate.subjectKeyId!,
            ).toString('hex');
            await world.store.recordIssued(
              issuedEntry({ serial, issuerKeyId, notAfterAt: Date.now() + HOUR_MS }),
            );
            await world.store.revoke({ serial }, 'keyCompromise', Date.now());
            const revokedAt = Date.now();
            // The one that it is about does not know yet.
            await listsReach(mesh, world, ({ revoked }) => revoked === 1, ['server']);
            await until('the first refusal', async () => (await refusals()) > 0);
            expect(Date.now() - revokedAt).toBeLessThan(underLoad(10_000));
            // What is under way goes through; each new connection is refused, and every request makes one.
            const before = { sent: mesh.traffic.report().sent, succeeded: succeeded() };
            await until(
              'more requests',
              async () => mesh.traffic.report().sent >= before.sent + 40,
            );
            expect(succeeded() - before.succeeded).toBeLessThanOrEqual(8);
            const now = succeeded();
            // Once it does, it asks for another by itself.
            await until('traffic with the new certificate', async () => {
              await world.publish();
              return succeeded() >= now + 40;
            });
            expect((await workloadOf(mesh, 'client')).certificate!.serial).not.toBe(serial);
          },
        ),
      ),
    90_000,
  );

  testWith('envoy')(
    'H1 fail no request while the root is replaced in stages by one of the same name',
    () =>
      withWorld('root', (world) =>
        withMesh({ dir: world.dir, ttl: '1h', perSecond: 40, flags: CRL }, async (mesh) => {
          const requests = async (count: number) => {
            const { sent } = mesh.traffic.report();
            await until('requests', async () => mesh.traffic.report().sent >= sent + count);
          };
          await requests(40);
          await addRoot(world.roots, { algorithm: 'ecdsa-p256' }, world.deps);
          // Nobody signs before everybody has the new signer's list as well as its root.
          await listsReach(mesh, world, ({ lists }) => lists === 2);
          await requests(40);
          const before = mesh.rotations();
          await activateRoot(world.roots, { force: true }, world.deps);
          await until('certificates of the new signer', async () => mesh.rotations() >= before + 2);
          await requests(80);
          await retireRoot(world.roots, {}, world.deps);
          await listsReach(mesh, world, ({ lists }) => lists === 1);
          await requests(80);
          const { failures } = await mesh.traffic.stop();
          expect([...failures]).toEqual([]);
          expect(await mesh.troubles()).toEqual([]);
        }),
      ),
  );
});
