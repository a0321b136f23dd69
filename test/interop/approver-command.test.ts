import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { writePem } from '../../agent/base/pem';
import { certificatesPem, parseCertificates } from '../../agent/identity/certificate';
import { encodeUriNames } from '../../agent/identity/extensions';
import {
  CSR_PATH,
  conditionOf,
  csrPath,
  type KubeCsr,
} from '../../ca-client/kubernetes/csr-object';
import { type CertManager, startCertManager } from '../support/cert-manager';
import { makeCsr, makeKey, type TestCa } from '../support/certs';
import { type Kube, startKube } from '../support/kube';
import { makeSignerCa } from '../support/kube-signer';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const SIGNER = 'clusterissuers.cert-manager.io/mesh';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const manifest = (name: string) =>
  readFileSync(join(__dirname, '../../scripts/deploy', name), 'utf8');

describeWith('kube', 'certmanager')(
  'keyturn approver beside keyturn run --ca kubernetes-csr, as commands',
  () => {
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
      for (const each of [
        'requester/cluster-roles.yaml',
        'namespace/namespace.yaml',
        'approver/rbac.yaml',
      ])
        await kube.apply(manifest(each));
      await kube.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: 'keyturn-requester:shop' }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keyturn-requester }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:shop' }]
`);
      uid = await kube.pod('shop', 'cart-1', 'cart');
    });
    afterAll(async () => {
      await certManager?.stop();
      await kube?.stop();
    });

    /** An approver of its own service account. */
    async function startApprover(...flags: readonly string[]) {
      const kubeconfig = kube.writeKubeconfig({
        token: await kube.token('keyturn', 'keyturn-approver'),
      });
      const args = [
        'approver',
        '--signer-name',
        SIGNER,
        '--kubeconfig',
        kubeconfig,
        '--log-format',
        'json',
      ];
      const admin = ['--admin-address', '127.0.0.1:0'];
      const approver = testDaemon({ dir: tempDir(), args: [...args, ...admin, ...flags] });
      await approver.event('approver started');
      return approver;
    }

    /** An agent with a token of `cart` that is bound to its pod. */
    async function startAgent(...identity: readonly string[]) {
      const dir = tempDir();
      const kubeconfig = kube.writeKubeconfig({
        token: await kube.token('shop', 'cart', { pod: { name: 'cart-1', uid } }),
      });
      const root = join(dir, 'roots.pem');
      const source = [
        '--ca',
        'kubernetes-csr',
        '--signer-name',
        SIGNER,
        '--kubeconfig',
        kubeconfig,
        '--trust-bundle',
        root,
        '--ttl',
        '1h',
      ];
      writeFileSync(root, certificatesPem(ca.bundle.rootsDer));
      return testDaemon({ dir, source, ...(identity.length > 0 && { identity }) });
    }

    test('a service account gets its own identity, again and again', async () => {
      const approver = await startApprover('--require-pod');
      const agent = await startAgent();
      const first = (await agent.ready()).workloads[0]!;
      expect(first).toMatchObject({
        id: CART,
        source: 'kubernetes-csr',
        certificate: { signedBy: 'kubernetes-csr' },
      });
      expect(await agent.command('rotate')).toMatchObject({ code: 0 });
      expect((await agent.status()).workloads[0]).toMatchObject({
        renewals: 2,
        state: 'current',
      });
      expect(await approver.http('/healthz/ready')).toMatchObject({ status: 200 });
      const { body } = await approver.http('/metrics');
      expect(body).toMatch(
        /^keyturn_approver_decisions_total\{decision="approved",reason="none"\} 2$/m,
      );
      expect(body).toMatch(/^keyturn_approver_watching 1$/m);
      expect(body).toMatch(/^keyturn_approver_undecided_requests 0$/m);
      expect(body).not.toContain('keyturn_approver_failures_total{');
      expect(await approver.stop()).toMatchObject({ code: 0, stdout: '' });
      expect(await agent.stop()).toMatchObject({ code: 0 });
    });

    test('without the right to follow requests it lives, is not ready and names the right', async () => {
      const kubeconfig = kube.writeKubeconfig({ token: await kube.token('shop', 'till') });
      const flags = [
        '--signer-name',
        SIGNER,
        '--kubeconfig',
        kubeconfig,
        '--admin-address',
        '127.0.0.1:0',
        '--log-format',
        'json',
      ];
      const approver = testDaemon({ dir: tempDir(), args: ['approver', ...flags] });
      await approver.event('watch of requests failed');
      const { status, body } = await approver.http('/healthz/ready');
      expect({ status, body }).toEqual({
        status: 503,
        body: expect.stringMatching(/cannot list resource "certificatesigningrequests"/),
      });
      expect(await approver.http('/healthz/live')).toMatchObject({ status: 200 });
    });

    describe('field E1: the annotations by which cert-manager makes a CA of ten years', () => {
      const annotations = {
        'experimental.cert-manager.io/request-is-ca': 'true',
        'experimental.cert-manager.io/request-duration': '87600h',
      };

      /** As the pod of `cart` may, under the shipped requester role. */
      async function ask(usages: readonly string[]): Promise<string> {
        const api = await kube.as({
          token: await kube.token('shop', 'cart', { pod: { name: 'cart-1', uid } }),
        });
        const csr = makeCsr({
          privateKey: makeKey('ec', 'prime256v1'),
          extensions: [encodeUriNames([CART], true)],
        });
        const request = writePem('CERTIFICATE REQUEST', csr).toString('base64');
        const spec = { request, signerName: SIGNER, expirationSeconds: 3_600, usages };
        const body = {
          apiVersion: 'certificates.k8s.io/v1',
          kind: 'CertificateSigningRequest',
          spec,
        };
        const metadata = { generateName: 'asks-for-a-ca-', annotations };
        return (await api.request<KubeCsr>('POST', CSR_PATH, { body: { ...body, metadata } }))
          .metadata.name;
      }
      const answer = (name: string, has: (csr: KubeCsr) => unknown) =>
        until(`an answer to ${name}`, async () => {
          const csr = await kube.api.request<KubeCsr>('GET', csrPath(name));
          return has(csr) ? csr : undefined;
        });

      test('are denied, and nothing is signed', async () => {
        const approver = await startApprover('--require-pod');
        for (const usages of [
          ['client auth', 'server auth'],
          ['digital signature', 'client auth', 'server auth'],
        ]) {
          const csr = await answer(await ask(usages), (each) => conditionOf(each, 'Denied'));
          expect(conditionOf(csr, 'Denied')!.message).toMatch(
            /^annotations: must be among those of --allow-annotation, not experimental/,
          );
          expect(csr.status?.certificate).toBeUndefined();
        }
        expect((await approver.http('/metrics')).body).toMatch(
          /decisions_total\{decision="denied",reason="annotations"\} 2$/m,
        );
      });

      test('where an operator allows them, the CA is found, and the approver is not ready until that is acknowledged', async () => {
        const approver = await startApprover('--allow-annotation', ...Object.keys(annotations));
        const name = await ask(['digital signature', 'client auth', 'server auth']);
        const { status } = await answer(name, (each) => each.status?.certificate);
        const [leaf] = parseCertificates(
          Buffer.from(status!.certificate!, 'base64'),
          'certificate',
        );
        expect(leaf!.basicConstraints?.ca).toBe(true);
        await approver.event('certificate violates policy');
        const unready = await approver.http('/healthz/ready');
        expect(unready).toMatchObject({
          status: 503,
          body: expect.stringContaining(`request ${name}: the certificate is a CA`),
        });
        const { body } = await approver.http('/metrics');
        expect(body).toMatch(/^keyturn_approver_violations_total\{kind="ca"\} 1$/m);
        expect(body).toMatch(/^keyturn_approver_open_violations 1$/m);
        const acknowledge = [
          'approver',
          'acknowledge',
          name,
          '--kubeconfig',
          kube.kubeconfig,
          '--reason',
          'issuer replaced',
        ];
        expect(await approver.command(...acknowledge)).toMatchObject({
          code: 0,
          stdout: `${name}: acknowledged\n`,
        });
        await until(
          'readiness',
          async () => (await approver.http('/healthz/ready')).status === 200,
        );
        await approver.event('violation acknowledged');
      });
    });

    test('the identity of another is denied, and status says why', async () => {
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
      expect(body).toMatch(
        /^keyturn_approver_decisions_total\{decision="denied",reason="san"\} [1-9]/m,
      );
    });
  },
);
