import { X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from '@jest/globals';
import { openAuthority } from '../../agent/authority/authority';
import { loadEngine } from '../../agent/identity/load-engine';
import { type Mesh, SIDES, type SideName, withMesh } from '../support/mesh';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

const FULL = process.env.KEYTURN_TEST === 'full';
const ROTATIONS = FULL ? 300 : 30;
const HANDSHAKES = FULL ? 20_000 : 2_000;
const KILLS = FULL ? 20 : 3;
const TTL = '4s';
const MINUTES = 60_000;

const testWithEnvoy = testWith('envoy');

describe('two real Envoys, certificates of 4 s, one connection per request, session resumption off', () => {
  testWithEnvoy(
    `${ROTATIONS} rotations and ${HANDSHAKES} handshakes with a root rotation in the middle fail no request`,
    () =>
      withMesh({ dir: tempDir(), ttl: TTL, perSecond: 80 }, async (mesh) => {
        await rotationsReach(mesh, ROTATIONS / 2);
        await rotateRoot(mesh);
        await rotationsReach(mesh, ROTATIONS);
        await until(
          'enough handshakes',
          async () => (await mesh.handshakes()) >= HANDSHAKES,
          10 * MINUTES,
          500,
        );
        await expectNoFailure(mesh);
      }),
    30 * MINUTES,
  );

  testWithEnvoy(
    `${KILLS} times SIGKILL and restart of the agent during traffic fail no request`,
    () =>
      withMesh({ dir: tempDir(), ttl: TTL, perSecond: 80 }, async (mesh) => {
        for (let kill = 0; kill < KILLS; kill += 1) {
          const side = SIDES[kill % SIDES.length]!;
          await mesh.killAndRestart(side);
          const { serial } = (await mesh.agent(side).status()).workloads[0]!.certificate!;
          await holdsOrPasses(mesh, side, serial);
          const { sent } = mesh.traffic.report();
          await until(
            'traffic between two kills',
            async () => mesh.traffic.report().sent >= sent + 50,
          );
          progress(`${kill + 1} of ${KILLS} restarts, ${mesh.traffic.report().sent} requests`);
        }
        // Life goes on afterwards: each agent renews at its usual time.
        const before = mesh.rotations();
        await rotationsReach(mesh, before + 4);
        await expectNoFailure(mesh);
      }),
    10 * MINUTES,
  );

  testWithEnvoy(
    'Envoy counts one accepted update for each certificate that the agent made',
    () =>
      withMesh({ dir: tempDir(), ttl: TTL, perSecond: 20 }, async (mesh) => {
        await rotationsReach(mesh, 6);
        for (const side of SIDES) {
          // Of two that come while Envoy has no time it gets the newer one alone, so the counts of two rotations are compared, until they agree.
          let from = await counts(mesh, side);
          await until(`equal counts on the ${side} side`, async () => {
            const now = await counts(mesh, side);
            if (!from || !now || now.made < from.made + 2) {
              from ??= now;
              return false;
            }
            const equal = now.accepted - from.accepted === now.made - from.made;
            from = now;
            return equal;
          });
          expect(await mesh.envoys[side].sum(/^sds\.ROOTCA\.update_success$/)).toBe(1);
        }
        await expectNoFailure(mesh);
      }),
    MINUTES,
  );
});

/** Read between two rotations: the agent's count before and after has to be the same for a comparison to mean anything. */
async function counts(
  mesh: Mesh,
  side: SideName,
): Promise<{ made: number; accepted: number } | undefined> {
  const renewals = async () => (await mesh.agent(side).status()).workloads[0]!.renewals;
  const made = await renewals();
  const accepted = await mesh.envoys[side].sum(/^sds\.default\.update_success$/);
  return made === (await renewals()) ? { made, accepted } : undefined;
}

async function expectNoFailure(at: Mesh): Promise<void> {
  const traffic = await at.traffic.stop();
  progress(
    `${at.rotations()} rotations, ${await at.handshakes()} handshakes, ${traffic.sent} requests`,
  );
  expect([...traffic.failures]).toEqual([]);
  expect(await at.troubles()).toEqual([]);
  expect(traffic.succeeded).toBe(traffic.sent);
  expect(await at.handshakes()).toBeGreaterThanOrEqual(traffic.sent);
}

async function rotationsReach(at: Mesh, wanted: number): Promise<void> {
  const begun = Date.now();
  let told = 0;
  await until(
    `${wanted} rotations`,
    async () => {
      const passed = Math.floor((Date.now() - begun) / 10_000);
      if (passed > told)
        progress(`${at.rotations()} of ${wanted} rotations, ${at.traffic.report().sent} requests`);
      told = passed;
      return at.rotations() >= wanted;
    },
    30 * MINUTES,
    200,
  );
}

/** Old and new root together; then the new signer; then the new root alone. Each step once both Envoys have what the last one needs. */
async function rotateRoot(at: Mesh): Promise<void> {
  const next = await makeAuthority();
  const oldRoot = readFileSync(join(at.caDir, 'root-cert.pem'));
  const newRoot = readFileSync(join(next, 'root-cert.pem'));
  replaceFile(at.caDir, 'root-cert.pem', Buffer.concat([oldRoot, newRoot]));
  await rootsBecome(at, [oldRoot, newRoot]);
  progress('both Envoys trust the old and the new root');
  for (const file of ['ca-key.pem', 'ca-cert.pem', 'cert-chain.pem'])
    replaceFile(at.caDir, file, readFileSync(join(next, file)));
  for (const side of SIDES) {
    const { serial } = await at
      .agent(side)
      .event('CA signer changed')
      .then(() => at.agent(side).event('certificate renewed', renewedFor('signer')));
    await holdsOrPasses(at, side, String(serial));
  }
  progress('both Envoys hold a certificate of the new signer');
  replaceFile(at.caDir, 'root-cert.pem', newRoot);
  await rootsBecome(at, [newRoot]);
  progress('both Envoys trust the new root alone');
}

const renewedFor = (word: string) => (event: { readonly [fact: string]: unknown }) =>
  String(event.reason).includes(word);

/** Another CA directory with a root of its own. */
async function makeAuthority(): Promise<string> {
  const dir = join(tempDir(), 'ca');
  const engine = await loadEngine('direct');
  await (
    await openAuthority(
      { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine },
      testDeps(),
    )
  ).close();
  return dir;
}

/** As an operator's tool does it: whole or not at all. */
function replaceFile(dir: string, name: string, bytes: Buffer): void {
  const temporary = join(dir, `${name}.new`);
  writeFileSync(temporary, bytes, { mode: 0o600 });
  renameSync(temporary, join(dir, name));
}

async function rootsBecome(at: Mesh, rootsPem: readonly Buffer[]): Promise<void> {
  const wanted = rootsPem.map((pem) => normalised(new X509Certificate(pem).serialNumber)).sort();
  for (const side of SIDES) {
    await until(`${wanted.length} roots in the ${side} Envoy`, async () => {
      const contexts = await at.envoys[side].certs();
      const held = contexts.map((context) =>
        context.roots.map((root) => normalised(root.serial)).sort(),
      );
      return held.length > 0 && held.every((serials) => String(serials) === String(wanted));
    });
  }
}

/** Waits until Envoy holds the certificate, or one that the agent made after it. */
async function holdsOrPasses(at: Mesh, side: 'client' | 'server', serial: string): Promise<void> {
  await until(`certificate ${serial} in the ${side} Envoy`, async () => {
    const made = at
      .agent(side)
      .events.filter((event) => event.scope === 'keeper' && event.serial !== undefined);
    const since = made
      .slice(made.findIndex((event) => event.serial === serial))
      .map((event) => normalised(String(event.serial)));
    const held = (await at.envoys[side].certs()).flatMap((context) => context.chain.slice(0, 1));
    return held.length > 0 && held.every((leaf) => since.includes(normalised(leaf.serial)));
  });
}

/** Serial numbers are written with and without leading zeros. */
function normalised(serial: string): string {
  return serial.toLowerCase().replace(/^0+/, '');
}

/** Shown at once: these tests take long enough for a person to wonder. */
function progress(text: string): void {
  process.stderr.write(`    ${text}\n`);
}
