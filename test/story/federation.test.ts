import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { X509BundlesResponse } from '../../sds/proto/generated/workload';
import { runKeyturn } from '../support/daemon';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';
import { createWorkloadClient } from '../support/workload-client';

/** The authority of another trust domain, which publishes its bundle. */
async function serveOther(dir: string) {
  const listen = ['--listen', '127.0.0.1:0', '--admin-address', '127.0.0.1:0'];
  const daemon = testDaemon({
    dir,
    args: [
      'ca',
      'serve',
      ...listen,
      '--trust-domain',
      'other.example',
      '--ca-dir',
      './ca',
      '--log-format',
      'json',
    ],
  });
  return { daemon, admin: String((await daemon.event('ca server started')).admin) };
}

test('an agent believes another trust domain by the bundle that its authority publishes, also after a restart while that is away', async () => {
  const { daemon: other, admin } = await serveOther(tempDir());
  const dir = tempDir();
  const flags = [
    '--state-dir',
    './state',
    '--federated-bundle',
    `other.example=http://${admin}/bundle.json`,
  ];
  const first = testDaemon({ dir, flags });
  await first.ready();
  await first.event('federated bundle in use');
  expect((await first.command('status')).stdout).toMatch(/federated +other\.example: 1 root$/m);
  const all = JSON.parse((await first.command('secret', 'get', 'ALL', '--output', 'json')).stdout);
  expect(JSON.stringify(all).match(/"serial"/g)).toHaveLength(2);
  await first.stop();
  await other.stop();

  const second = testDaemon({ dir, flags });
  await second.ready();
  await second.event('federated bundle in use');
  await until(
    'the complaint',
    async () => (await second.status()).workloads[0]!.federated?.[0]?.problem !== undefined,
  );
  const client = createWorkloadClient(second.sdsSocket);
  const stream = client.stream('FetchX509Bundles', (bytes) => X509BundlesResponse.decode(bytes));
  expect([...(await stream.next()).bundles.keys()].sort()).toEqual([
    'spiffe://cluster.local',
    'spiffe://other.example',
  ]);
  expect((await second.command('status')).stdout).toMatch(/Workload API +1 stream$/m);
  client.close();
  // Roots of others never get among our own.
  const own = readFileSync(join(dir, 'var/lib/keyturn/ca/root-cert.pem'), 'utf8');
  expect((await second.command('secret', 'get', 'ROOTCA', '--pem')).stdout).toBe(own);
});

test('a bundle that comes from another machine without TLS stops the start, and says why', async () => {
  const flags = [
    'run',
    '--ca',
    'builtin',
    '--federated-bundle',
    'other.example=http://192.0.2.1/bundle.json',
  ];
  const { code, stderr } = await runKeyturn(flags, { dir: tempDir() });
  expect(code).toBe(78);
  expect(stderr).toContain('--federated-bundle other.example: must be a file or an https URL');
});
