import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { certificatesPem } from '../../agent/identity/certificate';
import { type CertificateWatch, watchCertificates } from '../support/certificate-watch';
import type { TestCa } from '../support/certs';
import { type Daemon, startDaemon } from '../support/daemon';
import { type Kube, startKube } from '../support/kube';
import { makeSignerCa, startTestSigner, type TestSigner } from '../support/kube-signer';
import { underLoad } from '../support/load';
import { describeWith } from '../support/peers';
import { API_AUDIENCE, tokenUntil } from '../support/service-account-token';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

/** What the signer issues, whatever is asked. */
const LIFE_MS = 20_000;
/** Where the API server is away: it takes four seconds to come back, and on a busy machine twice that. */
const LONGER_LIFE_MS = 30_000;
const SIGNER = 'test.keyturn.dev/mesh';

describeWith('kube')('an agent with certificates of 20 s from a Kubernetes signer', () => {
  let kubeDir: string;
  let kube: Kube;
  let signer: TestSigner;
  let ca: TestCa;
  const running: { stop(): Promise<unknown> }[] = [];
  const watches: CertificateWatch[] = [];

  beforeAll(async () => {
    kubeDir = tempDir();
    kube = await startKube({ dir: kubeDir });
    await kube.namespace('shop', 'cart');
    await kube.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: requester }
rules: [{ apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests], verbs: [create, get, watch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: requester }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: requester }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:shop' }]
`);
    ca = await makeSignerCa();
    await sign(ca);
    await publish(ca);
  });
  afterEach(async () => {
    for (const watch of watches.splice(0)) watch.close();
    for (const each of running.splice(0).reverse()) await each.stop();
  });
  afterAll(async () => {
    await signer?.stop();
    await kube?.stop();
  });

  /** Has the requests of the signer answered by `authority` from now on. */
  async function sign(authority: TestCa, lifeMs = LIFE_MS): Promise<void> {
    await signer?.stop();
    signer = await startTestSigner(kube.api, SIGNER, authority);
    signer.behave = async (request) => {
      await request.approve();
      await request.issue(request.chainPem(authority, lifeMs / 1_000));
    };
  }

  const publish = (...authorities: TestCa[]) =>
    kube.apply(
      JSON.stringify({
        apiVersion: 'certificates.k8s.io/v1beta1',
        kind: 'ClusterTrustBundle',
        metadata: { name: `${SIGNER.replace('/', ':')}:roots` },
        spec: {
          signerName: SIGNER,
          trustBundle: certificatesPem(
            authorities.flatMap(({ bundle }) => bundle.rootsDer),
          ).toString(),
        },
      }),
    );

  /** An agent in a pod of its own, with a token in a file. */
  async function start(options: { dir?: string; token?: string; flags?: readonly string[] } = {}) {
    const { dir = tempDir(), flags = [] } = options;
    const tokenFile = join(dir, 'token');
    writeFileSync(tokenFile, options.token ?? (await kube.token('shop', 'cart')));
    const source = [
      '--ca',
      'kubernetes-csr',
      '--signer-name',
      SIGNER,
      '--kubeconfig',
      kube.writeKubeconfig({ tokenFile }),
    ];
    const agent: Daemon = startDaemon({ dir, source, flags: ['--ttl', '10m', ...flags] });
    const proxy = watchCertificates(agent.sdsSocket);
    running.push(agent);
    watches.push(proxy);
    return { agent, proxy, tokenFile, dir };
  }
  const first = (proxy: CertificateWatch) => until('a certificate', async () => proxy.seen[0]);

  test('bridges an API server that is away for 40 % of the life of a certificate', async () => {
    await sign(ca, LONGER_LIFE_MS);
    const { proxy } = await start();
    await first(proxy);
    // Away from just before the renewal on.
    await pause(0.4 * LONGER_LIFE_MS);
    const before = proxy.seen.length;
    const awayAt = Date.now();
    const port = Number(new URL(kube.url).port);
    await signer.stop();
    await kube.stop();
    await pause(awayAt + 0.4 * LONGER_LIFE_MS - Date.now() - 4_000);
    expect(proxy.seen).toHaveLength(before);
    kube = await startKube({ dir: kubeDir, port });
    await sign(ca);
    await proxy.next({ count: 2, ms: 2 * LONGER_LIFE_MS });
    expect(proxy.gaps()).toEqual([]);
  });

  test('bridges a signer that does not answer for 40 % of the life of a certificate', async () => {
    const { proxy } = await start();
    await first(proxy);
    await pause(0.4 * LIFE_MS);
    await signer.stop();
    await pause(0.4 * LIFE_MS);
    await sign(ca);
    await proxy.next({ count: 2, ms: 2 * LIFE_MS });
    expect(proxy.gaps()).toEqual([]);
  });

  test('tells of a token that has expired, and takes the next one at once', async () => {
    const expired = await tokenUntil(kube, 'shop', 'cart', Date.now() - 120_000, API_AUDIENCE);
    const { agent, proxy, tokenFile } = await start({ token: expired });
    await agent.event('no certificate yet, retrying', ({ code }) => code === 'ERR_TOKEN');
    const status = await until('the status', () => agent.status().catch(() => undefined));
    expect(status.reasons.join()).toMatch(/401/);
    // The file is watched from two seconds after the start on.
    await pause(3_000);
    const replacedAt = Date.now();
    writeFileSync(tokenFile, await kube.token('shop', 'cart'));
    expect((await first(proxy)).at - replacedAt).toBeLessThan(underLoad(10_000));
  });

  test('follows a change of roots, in stages, without a moment in which peers would not believe each other', async () => {
    const next = await makeSignerCa('next');
    const { proxy } = await start();
    expect((await first(proxy)).leaf.issuer).toBe('O=cluster.local, CN=mesh signer');
    await publish(ca, next);
    await until('both roots', async () => (await proxy.roots()).length === 2);
    await sign(next);
    await proxy.next({
      where: ({ leaf }) => leaf.issuer === 'O=cluster.local, CN=next signer',
      ms: 2 * LIFE_MS,
    });
    await publish(next);
    await until(
      'one root',
      async () =>
        (await proxy.roots()).map(({ subject }) => subject).join() ===
        'O=cluster.local, CN=next root',
    );
    await proxy.next({ ms: 2 * LIFE_MS });
    expect(proxy.gaps()).toEqual([]);
    await sign(ca);
    await publish(ca);
  });

  test('that restarts while the API server is away serves what it has kept', async () => {
    const { agent, proxy, dir } = await start({ flags: ['--state-dir', 'state'] });
    const { leaf } = await first(proxy);
    const port = Number(new URL(kube.url).port);
    await signer.stop();
    await kube.stop();
    await agent.stop();
    const again = await start({ dir, token: 'of no use now', flags: ['--state-dir', 'state'] });
    expect((await first(again.proxy)).leaf.serial).toBe(leaf.serial);
    kube = await startKube({ dir: kubeDir, port });
    await sign(ca);
  });
});

const pause = (ms: number) => new Promise((done) => setTimeout(done, Math.max(ms, 0)));
