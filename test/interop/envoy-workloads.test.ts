import { expect } from '@jest/globals';
import { startEnvoy } from '../support/envoy';
import { clientConfig, serverConfig } from '../support/envoy-config';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { startTraffic } from '../support/traffic';
import { until } from '../support/until';
import { identity, idOf, startWorkloads } from '../support/workload-list';

testWith('envoy')(
  'two Envoys speak mutual TLS by two workloads of one process, through rotations and while a third comes and goes',
  async () => {
    const world = startWorkloads({
      client: [identity('client'), 'ttl: 4s'],
      server: [identity('server'), 'ttl: 4s'],
    });
    await world.daemon.ready();
    const sds = (name: string) => ({ socket: world.socket(name) });
    const dir = tempDir();
    const server = await startEnvoy({
      dir,
      name: 'envoy-server',
      config: serverConfig({ server: { sds: sds('server'), allow: idOf('client') } }),
    });
    const config = clientConfig({
      sds: sds('client'),
      port: await server.port('server'),
      server: idOf('server'),
    });
    const client = await startEnvoy({ dir, name: 'envoy-client', config });
    try {
      await Promise.all([client.started(), server.started()]);
      const traffic = startTraffic({
        port: await client.port('app'),
        perSecond: 20,
        concurrency: 4,
      });
      world.put('third', identity('third'));
      await world.becomes('third', 'in service', ({ state }) => state === 'current');
      const renewals = async (name: string) => (await world.status(name))!.renewals;
      await until(
        'three rotations of both',
        async () => (await renewals('client')) >= 4 && (await renewals('server')) >= 4,
      );
      world.remove('third');
      // A change that leaves the socket alone is not seen by its Envoy.
      world.put('server', identity('server'), 'ttl: 3s');
      await world.daemon.event('workload changed', ({ workload }) => workload === 'server');
      await until('another rotation', async () => (await renewals('server')) >= 1);
      const { succeeded, failures } = await traffic.stop();
      expect({ failures: [...failures], enough: succeeded > 50 }).toEqual({
        failures: [],
        enough: true,
      });
    } finally {
      await client.stop();
      await server.stop();
    }
  },
);
