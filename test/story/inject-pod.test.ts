import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { expect } from '@jest/globals';
import { parse } from 'yaml';
import { keyturn } from '../support/command-line';
import { startEnvoy } from '../support/envoy';
import { fetchText } from '../support/fetch-text';
import { freePort } from '../support/free-port';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const POD =
  'apiVersion: v1\nkind: Pod\nmetadata: {name: cart}\nspec:\n  containers:\n  - {name: app, image: b}\n';
const SDS_DIR = '/var/run/secrets/workload-spiffe-uds';

testWith('envoy')(
  'the containers of an injected pod, run as they are told with its files in place, speak mutual TLS by the identity of the pod',
  async () => {
    // The pod's root, as its mounts make it; our working directory stands for `/`.
    const root = tempDir();
    const place = (path: string, text: string) => {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    };
    const ca = testDaemon({
      dir: tempDir(),
      args: [
        'ca',
        'serve',
        '--listen',
        '127.0.0.1:0',
        '--admin-address',
        '127.0.0.1:0',
        '--ca-dir',
        './ca',
        '--log-format',
        'json',
      ],
    });
    const { address } = await ca.event('ca server started');
    const id = 'spiffe://cluster.local/ns/shop/sa/cart';
    place(
      '/var/run/secrets/tokens/istio-token',
      (await ca.command('ca', 'token', 'create', '--ca-dir', './ca', '--spiffe-id', id)).stdout,
    );
    place(
      '/var/run/secrets/istio/root-cert.pem',
      (await ca.command('ca', 'bundle', '--ca-dir', './ca')).stdout,
    );

    const app = createServer((request, response) =>
      response.end(String(request.headers['x-forwarded-client-cert'])),
    );
    await new Promise<void>((done) => app.listen(0, '127.0.0.1', done));
    const [health, mtls, out, admin] = await Promise.all([
      freePort(),
      freePort(),
      freePort(),
      freePort(),
    ]);
    const loopback = (port: number) => `127.0.0.1:${port}`;
    const flags = [
      ...[
        '--ca-address',
        String(address),
        '--log-format',
        'json',
        '--admin-address',
        `0.0.0.0:${health}`,
        '--envoy',
        'envoy:1',
      ],
      ...[
        '--listen',
        loopback(mtls),
        '--app',
        loopback((app.address() as AddressInfo).port),
        '--admin',
        loopback(admin),
      ],
      ...['--peer', loopback(mtls), '--peer-listen', loopback(out), '--peer-id', id],
    ];
    const { stdout } = await keyturn(['inject', '-f', '-', ...flags], { cwd: root, stdin: POD });
    const [agent, envoy] = parse(stdout).spec.initContainers;

    // No kubelet asks from outside here, so loopback will do.
    const args = agent.args.map((each: string) => each.replace('0.0.0.0', '127.0.0.1'));
    const daemon = testDaemon({
      dir: root,
      args,
      env: { POD_NAMESPACE: 'shop', SERVICE_ACCOUNT: 'cart' },
    });
    const { path, port } = agent.startupProbe.httpGet;
    await until(
      'the startup probe',
      async () =>
        (await fetchText(`http://127.0.0.1:${port}${path}`).catch(() => undefined))?.status === 200,
    );

    const config = envoy.args[envoy.args.indexOf('--config-yaml') + 1].replaceAll(
      SDS_DIR,
      join(root, SDS_DIR),
    );
    const proxy = await startEnvoy({ dir: tempDir(), name: 'envoy', config: JSON.parse(config) });
    try {
      await proxy.started();
      const answer = await fetchText(`http://${loopback(out)}/`);
      expect({ status: answer.status, body: answer.body }).toMatchObject({
        status: 200,
        body: expect.stringContaining(`URI=${id}`),
      });
    } finally {
      await proxy.stop();
      app.close();
    }
    await daemon.stop();
    await ca.stop();
  },
);
