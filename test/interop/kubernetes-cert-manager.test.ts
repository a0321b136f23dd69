import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { Approver } from '../../agent/approver/approver';
import { firstValue } from '../../agent/base/watched';
import type { CertSource, CertState } from '../../agent/identity/cert-state';
import { certificatesPem, parseCertificate } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import type { KeyAlgorithm } from '../../agent/identity/keys';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import type { Svid } from '../../agent/identity/svid';
import { createKubeApi } from '../../agent/kube/kube-api';
import { loadKubeConfig } from '../../agent/kube/kube-config';
import { createKeeper } from '../../agent/lifecycle/keeper';
import { createKubernetesCa } from '../../ca-client/kubernetes/kubernetes-ca';
import { type CertManager, startCertManager } from '../support/cert-manager';
import type { TestCa } from '../support/certs';
import { type Kube, startKube } from '../support/kube';
import { makeSignerCa } from '../support/kube-signer';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

const SIGNER = 'clusterissuers.cert-manager.io/mesh';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const manifest = (name: string) =>
  readFileSync(join(__dirname, '../../scripts/deploy', name), 'utf8');

describeWith('kube', 'certmanager')(
  'an identity that cert-manager signs over the Kubernetes CSR API',
  () => {
    let kube: Kube;
    let certManager: CertManager;
    let ca: TestCa;
    let tokenFile: string;
    let pods = 0;
    const stops: (() => Promise<unknown>)[] = [];

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
---
apiVersion: certificates.k8s.io/v1beta1
kind: ClusterTrustBundle
metadata: { name: 'clusterissuers.cert-manager.io:mesh:roots' }
spec:
  signerName: ${SIGNER}
  trustBundle: ${JSON.stringify(certificatesPem(ca.bundle.rootsDer).toString())}
`);
    });
    afterEach(async () => {
      for (const stop of stops.splice(0).reverse()) await stop();
    });
    afterAll(async () => {
      await certManager?.stop();
      await kube?.stop();
    });

    async function startApprover() {
      const api = await kube.as({ token: await kube.token('keyturn', 'keyturn-approver') });
      const stop = new AbortController();
      const deps = testDeps();
      const policy = {
        trustDomain: 'cluster.local',
        minSeconds: 600,
        maxSeconds: 86_400,
        requirePod: true,
        allowedAnnotations: [],
        allowedLabels: [],
      };
      const running = new Approver({ api, signerName: SIGNER, ...policy }, deps).run(stop.signal);
      stops.push(async () => {
        stop.abort();
        await running;
      });
      return deps;
    }

    /** A pod of `cart` with its token mounted, and in it an agent that wants to be `id`. */
    async function startAgent(
      id = CART,
      keyAlgorithm: KeyAlgorithm = 'ecdsa-p256',
    ): Promise<{ agent: CertSource; pod: string }> {
      pods += 1;
      const name = `cart-${pods}`;
      const pod = { name, uid: await kube.pod('shop', name, 'cart') };
      tokenFile = join(tempDir(), 'token');
      writeFileSync(tokenFile, await kube.token('shop', 'cart', { pod }));
      const deps = testDeps();
      const api = createKubeApi(
        await loadKubeConfig({ kubeconfig: kube.writeKubeconfig({ tokenFile }), env: {} }, deps),
        deps,
      );
      const client = await createKubernetesCa(
        { api, signerName: SIGNER, usages: 'by-key', trustBundle: undefined, namespace: 'shop' },
        deps,
      );
      const rotation = { ratio: 0.5, jitterRatio: 0.05 };
      const options = {
        ca: client,
        id: parseSpiffeId(id),
        engine: directEngine,
        keyAlgorithm,
        ttlMs: 600_000,
        rotation,
        warmStart: undefined,
      };
      const agent = createKeeper(options, deps);
      stops.push(async () => {
        await agent.close();
        await client.close();
        await api.close();
      });
      return { agent, pod: name };
    }

    /** What it serves, as soon as there is something. */
    async function certificateOf(agent: CertSource): Promise<Svid> {
      const served = (state: CertState) => ('svid' in state ? state.svid : undefined);
      return served(
        await firstValue(
          agent.state,
          (state) => served(state) !== undefined,
          AbortSignal.timeout(20_000),
        ),
      )!;
    }

    test.each(['ecdsa-p256', 'rsa-2048'] as const)(
      'is obtained and rotated, with a key of %s',
      async (algorithm) => {
        await startApprover();
        const { agent } = await startAgent(CART, algorithm);
        const serials = new Set([(await certificateOf(agent)).serial]);
        for (let rotation = 0; rotation < 3; rotation += 1)
          serials.add((await agent.renewNow('test')).serial);
        expect(serials.size).toBe(4);
        const svid = await certificateOf(agent);
        expect(svid).toMatchObject({
          id: parseSpiffeId(CART),
          source: 'kubernetes-csr',
          bundle: ca.bundle,
          warnings: [],
        });
        expect(svid.chainDer.map((der) => parseCertificate(der).subject)).toEqual([
          expect.any(String),
          'O=cluster.local, CN=mesh signer',
        ]);
        expect(Math.abs(svid.notAfterAt - svid.receivedAt - 600_000)).toBeLessThan(10_000);
        const usages = parseCertificate(svid.chainDer[0]!).keyUsage?.usages;
        expect(usages).toEqual(
          algorithm === 'rsa-2048' ? ['digitalSignature', 'keyEncipherment'] : ['digitalSignature'],
        );
      },
    );

    test("is denied where it is another's, and the agent says in whose words", async () => {
      const approver = await startApprover();
      const { agent } = await startAgent('spiffe://cluster.local/ns/shop/sa/till');
      const state = await firstValue(
        agent.state,
        ({ kind }) => kind === 'unavailable',
        AbortSignal.timeout(20_000),
      );
      expect(state).toMatchObject({
        kind: 'unavailable',
        error: {
          code: 'ERR_CA_REJECTED',
          retry: 'slow',
          message: expect.stringContaining(
            "denied: KeyturnPolicy: san: must be the requester's own",
          ),
        },
      });
      await until('the line', async () =>
        approver.events.some(({ level, event }) => level === 'warn' && event === 'request denied'),
      );
    });

    test('stays in service when its renewal is denied, because the pod is gone', async () => {
      await startApprover();
      const { agent, pod } = await startAgent();
      const { serial } = await certificateOf(agent);
      await kube.api.request('DELETE', `/api/v1/namespaces/shop/pods/${pod}?gracePeriodSeconds=0`);
      // The API server itself keeps the token good for ten seconds.
      await expect(agent.renewNow('test')).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_(CA_REJECTED|TOKEN)$/),
        message: expect.stringMatching(
          new RegExp(`pod: must still exist, and ${pod} does not|401`),
        ),
      });
      expect((await certificateOf(agent)).serial).toBe(serial);
    });

    test('comes as soon as there is an approver', async () => {
      const { agent } = await startAgent();
      await new Promise((done) => setTimeout(done, 1_000));
      expect(agent.state.value.kind).toBe('starting');
      await startApprover();
      await certificateOf(agent);
    });

    // The API signs for ten minutes at least: the one renewal that comes by itself, in its own time, is for the full length.
    if (process.env.KEYTURN_TEST === 'full') {
      test('is renewed half-way through its ten minutes, before which nothing is asked', async () => {
        await startApprover();
        const { agent } = await startAgent();
        const first = await certificateOf(agent);
        const isNext = (state: CertState) => 'svid' in state && state.svid.serial !== first.serial;
        await firstValue(agent.state, isNext, AbortSignal.timeout(400_000));
        const next = await certificateOf(agent);
        const afterMs = next.receivedAt - first.receivedAt;
        expect(afterMs).toBeGreaterThan(260_000);
        expect(afterMs).toBeLessThan(310_000);
        expect(next.notAfterAt).toBeGreaterThan(first.notAfterAt);
      }, 420_000);
    }

    test('survives a token that has gone bad: the next one is taken at once', async () => {
      await startApprover();
      const { agent } = await startAgent();
      const { serial } = await certificateOf(agent);
      const token = readFileSync(tokenFile, 'utf8');
      writeFileSync(tokenFile, `${token.slice(0, -8)}AAAAAAAA`);
      await new Promise((done) => setTimeout(done, 10_100));
      await expect(agent.renewNow('test')).rejects.toMatchObject({
        code: 'ERR_TOKEN',
        message: expect.stringContaining('401'),
      });
      expect((await certificateOf(agent)).serial).toBe(serial);
      writeFileSync(tokenFile, token);
      expect((await agent.renewNow('test')).serial).not.toBe(serial);
    });
  },
);
