import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { type Envoy, startEnvoy } from '../support/envoy';
import { type ServerSide, serverConfig } from '../support/envoy-config';
import { underLoad } from '../support/load';
import { SIDES, withMesh } from '../support/mesh';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

const testWithEnvoy = testWith('envoy');
const ID = 'spiffe://cluster.local/ns/shop/sa/cart';

describe('a real Envoy over SDS', () => {
  testWithEnvoy('takes certificates and roots over delta streams while requests flow', () =>
    withMesh({ dir: tempDir(), ttl: '4s', perSecond: 20, delta: true }, async (mesh) => {
      await until('four rotations', async () => mesh.rotations() >= 4);
      const kinds = SIDES.flatMap((side) => mesh.agent(side)).map(
        async (agent) => (await agent.status()).workloads[0]!.sds.streams,
      );
      for (const streams of await Promise.all(kinds))
        expect(new Set(streams.map((stream) => stream.kind))).toEqual(new Set(['delta']));
      const traffic = await mesh.traffic.stop();
      expect([...traffic.failures]).toEqual([]);
      expect(await mesh.troubles()).toEqual([]);
      for (const side of SIDES)
        expect(
          await mesh.envoys[side].sum(/^sds\.default\.update_success$/),
        ).toBeGreaterThanOrEqual(2);
    }),
  );

  testWithEnvoy(
    'gets its good names although another listener asks for one that nobody serves',
    async () => {
      const agent = startDaemon({ dir: tempDir() });
      const sds = { socket: agent.sdsSocket };
      await agent.ready();
      const lost: ServerSide = {
        sds,
        allow: undefined,
        secrets: { identity: 'nobody-serves-this', roots: 'ROOTCA' },
      };
      await withEnvoy(agent, { good: { sds, allow: ID }, lost }, async (envoy) => {
        await until('the certificate', async () =>
          (await envoy.certs()).some((context) => context.chain.length > 0),
        );
        const { serial } = (await agent.status()).workloads[0]!.certificate!;
        const chains = (await envoy.certs()).flatMap((context) => context.chain);
        expect(chains.map((leaf) => trimmed(leaf.serial))).toEqual([trimmed(serial)]);
        expect(await envoy.sum(/^sds\..*\.update_rejected$/)).toBe(0);
        const { unknownNames } = (await agent.status()).workloads[0]!.sds;
        expect(unknownNames.map((each) => each.name)).toEqual(['nobody-serves-this']);
      });
    },
  );

  testWithEnvoy(
    'takes certificate files of an allowed directory under file-cert and file-root names',
    async () => {
      const dir = tempDir();
      const agent = startDaemon({
        dir,
        flags: ['--output-certs', 'out', '--sds-file-dir', join(dir, 'mounted')],
      });
      const { serial } = (await agent.ready()).workloads[0]!.certificate!;
      await agent.event(/written|output/);
      const mounted = join(dir, 'mounted');
      mkdirSync(mounted);
      for (const file of ['key.pem', 'cert-chain.pem', 'root-cert.pem'])
        copyFileSync(join(dir, 'out', file), join(mounted, file));
      const secrets = {
        identity: `file-cert:${join(mounted, 'cert-chain.pem')}~${join(mounted, 'key.pem')}`,
        roots: `file-root:${join(mounted, 'root-cert.pem')}`,
      };
      await withEnvoy(
        agent,
        { files: { sds: { socket: agent.sdsSocket }, allow: ID, secrets } },
        async (envoy) => {
          await until('the certificate of the files', async () => (await envoy.certs()).length > 0);
          const [context] = await envoy.certs();
          expect(trimmed(context!.chain[0]!.serial)).toBe(trimmed(serial));
          expect(context!.roots).toHaveLength(1);
        },
      );
    },
  );

  testWithEnvoy(
    'that started before its agent has a certificate within two seconds of the agent',
    async () => {
      const dir = tempDir();
      const socket = join(dir, 'var/run/secrets/workload-spiffe-uds/socket');
      const envoy = await startEnvoy({
        dir,
        name: 'envoy',
        config: serverConfig({ server: { sds: { socket }, allow: ID } }),
      });
      try {
        await until(
          'failed attempts to connect',
          async () => (await envoy.sum(/^cluster\.sds-server\.upstream_cx_connect_fail$/)) >= 3,
        );
        const agent = startDaemon({ dir });
        try {
          await agent.ready();
          await until(
            'the certificate',
            async () => (await envoy.certs()).length > 0,
            underLoad(2_000),
          );
        } finally {
          await agent.stop();
        }
      } finally {
        await envoy.stop();
      }
    },
  );

  testWithEnvoy('acknowledges a rotation before rotate --wait returns', async () => {
    const agent = startDaemon({ dir: tempDir() });
    await agent.ready();
    await withEnvoy(
      agent,
      { server: { sds: { socket: agent.sdsSocket }, allow: ID } },
      async (envoy) => {
        await until('the first certificate', async () => (await envoy.certs()).length > 0);
        const done = await agent.command('rotate', '--wait', '--output', 'json');
        expect({ code: done.code, stderr: done.stderr }).toEqual({ code: 0, stderr: '' });
        const { serial, acknowledged } = (
          JSON.parse(done.stdout) as { workloads: { serial: string; acknowledged: number }[] }
        ).workloads[0]!;
        expect(acknowledged).toBe(1);
        // Acknowledged means applied: no waiting here.
        expect((await envoy.certs()).map((context) => trimmed(context.chain[0]!.serial))).toEqual([
          trimmed(serial),
        ]);
      },
    );
  });
});

/** Runs `work` over an Envoy with TLS listeners; it and the agent are gone afterwards. */
async function withEnvoy(
  agent: Daemon,
  sides: Readonly<Record<string, ServerSide>>,
  work: (envoy: Envoy) => Promise<void>,
): Promise<void> {
  try {
    const envoy = await startEnvoy({ dir: agent.dir, name: 'envoy', config: serverConfig(sides) });
    try {
      await work(envoy);
    } finally {
      await envoy.stop();
    }
  } finally {
    await agent.stop();
  }
}

function trimmed(serial: string): string {
  return serial.toLowerCase().replace(/^0+/, '');
}
