import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { fetchText } from '../support/fetch-text';
import { type Kube, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const NAMESPACE = 'keyturn';

describeWith('kube')('replicas of keyturn ca serve with their state in Kubernetes', () => {
  let kube: Kube;
  let kubeconfig: string;

  beforeAll(async () => {
    kube = await startKube();
    for (const each of ['namespace/namespace.yaml', 'ca/rbac.yaml']) {
      await kube.apply(readFileSync(join(__dirname, '../../scripts/deploy', each), 'utf8'));
    }
    kubeconfig = kube.writeKubeconfig({ token: await kube.token(NAMESPACE, 'keyturn-ca') });
  });
  afterAll(() => kube?.stop());

  const state = () => [
    '--state',
    'kubernetes',
    '--namespace',
    NAMESPACE,
    '--kubeconfig',
    kubeconfig,
  ];

  /** A replica with its own copy of one intermediate, as a mounted Secret would be. */
  async function startReplica(caDir: string) {
    const dir = tempDir();
    cpSync(caDir, join(dir, 'ca'), { recursive: true });
    chmodSync(join(dir, 'ca'), 0o700);
    const ports = ['--listen', '127.0.0.1:0', '--admin-address', '127.0.0.1:0'];
    const daemon = testDaemon({
      dir,
      args: ['ca', 'serve', '--ca-dir', './ca', '--log-format', 'json', ...ports, ...state()],
    });
    const { address, admin } = await daemon.event('ca server started');
    return { daemon, dir, address: String(address), admin: String(admin) };
  }

  test('a token that a command made is good once, at either; what one issued the other revokes', async () => {
    const home = tempDir();
    const first = await startReplica(await madeCa(home));
    const second = await startReplica(join(home, 'ca'));
    const { code, stdout } = await second.daemon.command(
      'ca',
      'token',
      'create',
      '--spiffe-id',
      ID,
      '--ca-dir',
      './ca',
      ...state(),
    );
    expect(code).toBe(0);

    const ask = (replica: typeof first) => {
      const dir = tempDir();
      writeFileSync(join(dir, 'token'), stdout);
      const source = [
        '--ca',
        'istiod',
        '--ca-address',
        replica.address,
        '--ca-root',
        join(home, 'ca/root-cert.pem'),
        '--token',
        './token',
      ];
      return testDaemon({ dir, source });
    };
    const agents = [ask(first), ask(second)];
    const serial = await until('one certificate', async () => {
      const all = await Promise.all(agents.map((each) => each.status().catch(() => undefined)));
      const found = all.map((each) => each?.workloads[0]);
      if (!found.every((each) => each?.certificate || each?.lastError)) return undefined;
      expect(found.filter((each) => each?.certificate)).toHaveLength(1);
      return found.find((each) => each?.certificate)?.certificate?.serial;
    });

    const revoke = (...flags: readonly string[]) =>
      first.daemon.command(
        'ca',
        'revoke',
        String(serial),
        '--ca-dir',
        './ca',
        ...flags,
        ...state(),
      );
    expect(JSON.parse((await revoke('--output', 'json')).stdout)).toMatchObject({
      revoked: [{ serial, id: ID }],
    });
    for (const { admin } of [first, second]) {
      await until('the CRL of each to name it', async () => {
        const { body } = await fetchText(`http://${admin}/crl.pem`);
        const { stdout: text } = spawnSync('openssl', ['crl', '-noout', '-text'], {
          input: body,
          encoding: 'utf8',
        });
        return text.toLowerCase().includes(String(serial));
      });
    }
    expect(await revoke()).toMatchObject({ code: 0, stdout: 'revoked already\n' });
  });

  /** A CA directory without state. */
  async function madeCa(home: string): Promise<string> {
    const maker = testDaemon({ dir: home, args: ['ca', 'init', '--ca-dir', './ca'] });
    expect(await maker.finished).toMatchObject({ code: 0 });
    return join(home, 'ca');
  }
});
