import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { WorkloadStatus } from '../../agent/admin/agent-view';
import { parseCertificate } from '../../agent/identity/certificate';
import { isValidAt } from '../../agent/identity/valid-now';
import { writeCaDir } from '../support/ca-dir';
import { envoyVerdicts, type ProxyPem } from '../support/envoy-verdicts';
import { describeWith } from '../support/peers';
import {
  fieldWorlds,
  generatedWorlds,
  listsPem,
  madeSet,
  type ProxySetWorld,
} from '../support/proxy-sets';
import { getSecret } from '../support/sds-client';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';
import { identity, startWorkloads, type WorkloadsDaemon } from '../support/workload-list';

const COUNT = process.env.KEYTURN_TEST === 'full' ? 200 : 20;
const SEED = 11;

/** A CA directory and lists as the world has them; the leaf is the agent's to ask for. */
function linesOf(world: ProxySetWorld, name: string): string[] {
  const dir = tempDir();
  const { signer } = world;
  writeCaDir(join(dir, 'ca'), {
    signer,
    chain: (world.chainDer.length === 0 ? [signer.certificateDer] : world.chainDer).map(
      (certificateDer) => ({
        ...signer,
        certificateDer,
      }),
    ),
    roots: world.rootsDer.map((certificateDer) => ({ ...signer, certificateDer })),
  });
  const lines = [identity(name), `ca-dir: ${join(dir, 'ca')}`];
  if (!world.lists) return lines;
  writeFileSync(join(dir, 'crl.pem'), listsPem(world.lists(Buffer.of(1))));
  return [...lines, `crl: ${join(dir, 'crl.pem')}`];
}

/** What a proxy on its socket gets; undefined where it would wait. */
async function servedBy(world: WorkloadsDaemon, name: string): Promise<ProxyPem> {
  const [leaf, roots] = [
    await getSecret(world.socket(name)),
    await getSecret(world.socket(name), 'ROOTCA'),
  ];
  return {
    keyPem: leaf.keyPem!,
    chainPem: leaf.chainPem!,
    rootsPem: roots.rootsPem!,
    crlPem: roots.crlPem,
  };
}

/** What is valid now of a world, as it stands. */
async function validOf(world: ProxySetWorld): Promise<ProxyPem> {
  const valid = (ders: readonly Uint8Array[]) =>
    ders.filter((der) => isValidAt(parseCertificate(der), Date.now()));
  const rootsDer = valid(world.rootsDer);
  return (
    await madeSet({
      ...world,
      chainDer: valid(world.chainDer),
      rootsDer: rootsDer.length > 0 ? rootsDer : world.rootsDer,
    })
  ).pem;
}

describeWith('envoy')('an agent', () => {
  test(`field A1, A3, A8: serves what Envoy takes, and withholds nothing that Envoy would take, in the field's cases and ${COUNT} others`, async () => {
    const all = [...(await fieldWorlds()), ...(await generatedWorlds(COUNT, SEED))];
    const names = all.map((_, index) => `w${index}`);
    const daemon = startWorkloads(
      Object.fromEntries(all.map((world, index) => [`w${index}`, linesOf(world, `w${index}`)])),
    );
    const settled = (each: WorkloadStatus) =>
      each.selfCheck !== undefined || (each.state === 'current' && each.revocation?.lists !== 0);
    const { workloads } = await until('every workload', async () => {
      const status = await daemon.daemon.status().catch(() => undefined);
      const known =
        status && status.workloads.length + (status.refused?.length ?? 0) === all.length;
      const done = status?.workloads.every(
        (each) =>
          settled(each) || each.lastError !== undefined || each.revocation?.problem !== undefined,
      );
      return known && done && status;
    });
    expect(
      daemon.daemon.events.filter(({ event }) => event === 'self-check handshake could not run'),
    ).toEqual([]);
    const served = workloads
      .filter((each) => settled(each) && each.selfCheck === undefined)
      .map(({ name }) => name!);
    const withheld = workloads
      .filter((each) => each.selfCheck !== undefined)
      .map(({ name }) => name!);
    expect([served.length > COUNT / 4, withheld.length > 0]).toEqual([true, true]);
    const taken = await envoyVerdicts(
      tempDir(),
      await Promise.all(served.map((name) => servedBy(daemon, name))),
    );
    const nameOf = (name: string) => all[names.indexOf(name)]!.name;
    expect(served.filter((_, index) => !taken[index]).map(nameOf)).toEqual([]);
    const takenAnyway = await envoyVerdicts(
      tempDir(),
      await Promise.all(withheld.map((name) => validOf(all[names.indexOf(name)]!))),
    );
    const because = (name: string) =>
      `${nameOf(name)}: ${workloads.find((each) => each.name === name)!.selfCheck!.message}`;
    expect(withheld.filter((_, index) => takenAnyway[index]).map(because)).toEqual([]);
  }, 240_000);
});
