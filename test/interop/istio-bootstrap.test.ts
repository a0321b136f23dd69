import { afterEach, expect } from '@jest/globals';
import type { Daemon } from '../support/daemon';
import { type Envoy, startEnvoy } from '../support/envoy';
import { istioConfig } from '../support/istio-bootstrap';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

let envoy: Envoy | undefined;
afterEach(() => envoy?.stop());

testWith('envoy', 'istio-files').each<[string, Record<string, string>]>([
  ['socket', {}],
  ['keyturn', { WORKLOAD_IDENTITY_SOCKET_FILE: 'keyturn' }],
])(
  "an Envoy with Istio's bootstrap waits for the socket named %s, and has from it the certificate, each rotation and those of a restarted agent",
  async (name, env) => {
    const dir = tempDir();
    envoy = await startEnvoy({
      dir: tempDir(),
      name: 'envoy',
      cwd: dir,
      config: istioConfig(name),
    });
    expect(await envoy.certs()).toEqual([]);
    const first = testDaemon({ dir, env });
    await holds(envoy, first);
    expect(await first.command('rotate', '--wait')).toMatchObject({ code: 0 });
    await holds(envoy, first);
    await first.kill('SIGKILL');
    await holds(envoy, testDaemon({ dir, env }));
    await envoy.started();
    expect(await envoy.sum(/^sds\..*\.update_rejected$/)).toBe(0);
  },
);

async function holds({ certs }: Envoy, daemon: Daemon): Promise<void> {
  const { certificate } = (await daemon.ready()).workloads[0]!;
  await until(`${certificate!.serial} in Envoy`, async () => {
    const [context] = await certs();
    return context?.chain[0]?.serial === certificate!.serial && context.roots.length === 1;
  });
}
