import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { certificatesPem } from '../../agent/identity/certificate';
import { type CertManager, startCertManager } from '../support/cert-manager';
import type { TestCa } from '../support/certs';
import { type Kube, startKube } from '../support/kube';
import { makeSignerCa } from '../support/kube-signer';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const SIGNER = 'clusterissuers.cert-manager.io/mesh';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const TEST_MS = 60_000;
const manifest = (name: string) => readFileSync(join(__dirname, '../../scripts/deploy', name), 'utf8');

describeWith('kube', 'certmanager')('keyturn approver beside keyturn run --ca kubernetes-csr, as commands', () => {
  let kube: Kube;
  let certManager: CertManager;
  let ca: TestCa;
  let uid: string;

  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart', 'till');
    certManager = await startCertManager(kube);
    ca = await makeSignerCa();
    await certManager.clusterIssuer('mesh', ca);
    for (const each of ['requester/cluster-roles.yaml', 'namespace/namespace.yaml', 'approver/rbac.yaml']) await kube.apply(manifest(each));
    await kube.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: 'keyturn-requester:shop' }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keyturn-requester }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:shop' }]
`);
    uid = await kube.pod('shop', 'cart-1', 'cart');
  }, 90_000);
  afterAll(async () => {
    await certManager?.stop();
    await kube?.stop();
  });

  /** An approver of its own service account. */
  async function startApprover(...flags: readonly string[]) {
    const kubeconfig = kube.writeKubeconfig({ token: await kube.token('keyturn', 'keyturn-approver') });
    const args = ['approver', '--signer-name', SIGNER, '--kubeconfig', kubeconfig, '--log-format', 'json'];
    const admin = ['--admin-address', '127.0.0.1:0'];
    const approver = testDaemon({ dir: tempDir(), args: [...args, ...admin, ...flags] });
    await approver.event('approver started');
    return approver;
  }

  /** An agent with a token of `cart` that is bound to its pod. */
  async function startAgent(...identity: readonly string[]) {
    const dir = tempDir();
    const kubeconfig = kube.writeKubeconfig({ token: await kube.token('shop', 'cart', { pod: { name: 'cart-1', uid } }) });
    const root = join(dir, 'roots.pem');
    const source = ['--ca', 'kubernetes-csr', '--signer-name', SIGNER, '--kubeconfig', kubeconfig, '--trust-bundle', root, '--ttl', '1h'];
    writeFileSync(root, certificatesPem(ca.bundle.rootsDer));
    return testDaemon({ dir, source, ...(identity.length > 0 && { identity }) });
  }

  test(
    'a service account gets its own identity, again and again',
    async () => {
      const approver = await startApprover('--require-pod');
      const agent = await startAgent();
      const first = (await agent.ready()).workloads[0]!;
      expect(first).toMatchObject({ id: CART, source: 'kubernetes-csr', certificate: { signedBy: 'kubernetes-csr' } });
      expect(await agent.command('rotate')).toMatchObject({ code: 0 });
      expect((await agent.status()).workloads[0]).toMatchObject({ renewals: 2, state: 'current' });
      expect(await approver.http('/healthz/ready')).toMatchObject({ status: 200 });
      const { body } = await approver.http('/metrics');
      expect(body).toMatch(/^keyturn_approver_decisions_total\{decision="approved",reason="none"\} 2$/m);
      expect(body).toMatch(/^keyturn_approver_watching 1$/m);
      expect(body).toMatch(/^keyturn_approver_undecided_requests 0$/m);
      expect(body).not.toContain('keyturn_approver_failures_total{');
      expect(await approver.stop()).toMatchObject({ code: 0, stdout: '' });
      expect(await agent.stop()).toMatchObject({ code: 0 });
    },
    TEST_MS,
  );

  test(
    'without the right to follow requests it lives, is not ready and names the right',
    async () => {
      const kubeconfig = kube.writeKubeconfig({ token: await kube.token('shop', 'till') });
      const flags = ['--signer-name', SIGNER, '--kubeconfig', kubeconfig, '--admin-address', '127.0.0.1:0', '--log-format', 'json'];
      const approver = testDaemon({ dir: tempDir(), args: ['approver', ...flags] });
      await approver.event('requests cannot be followed');
      const { status, body } = await approver.http('/healthz/ready');
      expect({ status, body }).toEqual({ status: 503, body: expect.stringMatching(/cannot list resource "certificatesigningrequests"/) });
      expect(await approver.http('/healthz/live')).toMatchObject({ status: 200 });
    },
    TEST_MS,
  );

  test(
    'the identity of another is denied, and status says why',
    async () => {
      const approver = await startApprover();
      const agent = await startAgent('--namespace', 'shop', '--service-account', 'till');
      const workload = await until('the denial', async () => {
        const [found] = (await agent.status().catch(() => undefined))?.workloads ?? [];
        return found?.lastError && found;
      });
      expect(workload).toMatchObject({
        state: 'unavailable',
        lastError: { code: 'ERR_CA_REJECTED', message: expect.stringMatching(/denied.*cart/i) },
      });
      const { body } = await approver.http('/metrics');
      expect(body).toMatch(/^keyturn_approver_decisions_total\{decision="denied",reason="san"\} [1-9]/m);
    },
    TEST_MS,
  );
});
