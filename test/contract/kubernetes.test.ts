import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { systemClock, withDeadline } from '../../agent/base/clock';
import { certificatesPem } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { acceptIssuedChain } from '../../agent/identity/svid';
import { createKubeApi, type KubeApi } from '../../agent/kube/kube-api';
import { loadKubeConfig } from '../../agent/kube/kube-config';
import type { CaClient } from '../../ca-client/ca-client';
import { CSR_PATH, type CsrUsages } from '../../ca-client/kubernetes/csr-object';
import { createKubernetesCa } from '../../ca-client/kubernetes/kubernetes-ca';
import { TEST_ID } from '../support/certs';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import {
  type CsrInHand,
  makeSignerCa,
  startTestSigner,
  type TestSigner,
} from '../support/kube-signer';
import { underLoad } from '../support/load';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { type LogEvent, testDeps } from '../support/test-deps';
import { until } from '../support/until';
import { describeCaClient } from './ca-client';

const SIGNER = 'test.keyturn.dev/mesh';
const id = parseSpiffeId(TEST_ID);
const manifests = (name: string) =>
  readFileSync(join(__dirname, '../../scripts/deploy', name), 'utf8');

describeWith('kube')('a Kubernetes signer behind a real kube-apiserver', () => {
  let kube: Kube;
  let signer: TestSigner;
  /** The API as the agent's service account has it. */
  let agentApi: KubeApi;

  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart');
    await kube.apply(manifests('requester/cluster-roles.yaml'));
    await kube.apply(binding('keyturn-requester'));
    agentApi = await kube.as({ token: await kube.token('shop', 'cart') });
    signer = await startTestSigner(kube.api, SIGNER);
    await publish(await rootOf(signer));
  });
  afterAll(async () => {
    await signer?.stop();
    await kube?.stop();
  });

  const binding = (role: string) => `
  apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: { name: ${role} }
  roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ${role} }
  subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:shop' }]
  `;
  const rootOf = async ({ ca }: TestSigner) => certificatesPem(ca.bundle.rootsDer).toString();
  const publish = (rootPem: string) =>
    kube.apply(
      JSON.stringify({
        apiVersion: 'certificates.k8s.io/v1beta1',
        kind: 'ClusterTrustBundle',
        metadata: { name: `${SIGNER.replace('/', ':')}:roots` },
        spec: { signerName: SIGNER, trustBundle: rootPem },
      }),
    );

  /** Nobody answers there. */
  async function apiAt(server: string): Promise<KubeApi> {
    const kubeconfig = join(tempDir(), 'kubeconfig');
    const named = (key: string, value: object) => [{ name: 'x', [key]: value }];
    const file = {
      'current-context': 'x',
      clusters: named('cluster', { server }),
      users: named('user', { token: 'x' }),
    };
    writeFileSync(
      kubeconfig,
      JSON.stringify({ ...file, contexts: named('context', { cluster: 'x', user: 'x' }) }),
    );
    const deps = testDeps();
    return createKubeApi(await loadKubeConfig({ kubeconfig, env: {} }, deps), deps);
  }

  const byDefault = async (request: Parameters<TestSigner['behave']>[0]) => {
    if (request.uris.length !== 1 || request.uris[0] !== TEST_ID)
      return request.deny('NotYours', 'that identity is not yours');
    await request.approve();
    await request.issue();
  };

  async function makeCa(options: { usages?: CsrUsages; api?: KubeApi } = {}) {
    const deps = testDeps();
    const { usages = 'by-key', api = agentApi } = options;
    return {
      ca: await createKubernetesCa(
        { api, signerName: SIGNER, usages, trustBundle: undefined, namespace: 'shop' },
        deps,
      ),
      deps,
    };
  }

  describeCaClient('kubernetes-csr', async () => {
    signer.behave = byDefault;
    return { ca: (await makeCa()).ca, id, now: Date.now, close: async () => undefined };
  });

  describe('C27 a Kubernetes signer', () => {
    let ca: CaClient;
    let deps: ReturnType<typeof testDeps>;
    beforeAll(async () => {
      ({ ca, deps } = await makeCa());
    });
    afterAll(() => ca?.close());
    afterEach(() => {
      signer.behave = byDefault;
    });

    async function ask(
      options: { ttlSeconds?: number; client?: CaClient; deadlineMs?: number; rsa?: boolean } = {},
    ) {
      const { ttlSeconds = 3_600, client = ca, deadlineMs = 15_000, rsa = false } = options;
      const key = await directEngine.generateKeyPair(rsa ? 'rsa-2048' : 'ecdsa-p256');
      const csrDer = await directEngine.createCsr(key, id);
      const sign = (signal: AbortSignal) => client.sign({ id, csrDer, ttlSeconds }, signal);
      const { certificatesDer } = await withDeadline(
        systemClock,
        deadlineMs,
        'sign',
        undefined,
        sign,
      );
      return acceptIssuedChain(
        { id, key, source: client.name },
        certificatesDer,
        client.trust.value!,
        Date.now(),
      );
    }
    const failure = (promise: Promise<unknown>) =>
      promise.then(
        () => undefined,
        (caught: unknown) => caught,
      );

    test('that denies is believed at once, with its reason', async () => {
      signer.behave = (request) => request.deny('NoSuchWorkload', 'cart is not on the list');
      const startedAt = Date.now();
      expect(await failure(ask())).toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'slow',
        message: expect.stringMatching(
          /^sign keyturn-\w+ by test\.keyturn\.dev\/mesh: denied: NoSuchWorkload: cart is not on the list$/,
        ),
      });
      expect(Date.now() - startedAt).toBeLessThan(underLoad(3_000));
    });

    test('that fails after the approval is believed at once, with its reason', async () => {
      signer.behave = async (request) => {
        await request.approve();
        await request.fail('SignerValidationFailure', 'the issuer is not ready');
      };
      expect(await failure(ask())).toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'slow',
        message: expect.stringContaining(
          'failed: SignerValidationFailure: the issuer is not ready',
        ),
      });
    });

    test('that signs before anybody approved is taken at its word, for the gate judges it anyway', async () => {
      signer.behave = (request) => request.issue();
      await expect(ask()).resolves.toMatchObject({ id, warnings: [] });
    });

    test.each([
      ['nobody approves', async () => undefined, 'request was neither approved nor signed in time'],
      [
        'nobody signs',
        (request: CsrInHand) => request.approve(),
        'request was approved but not signed in time',
      ],
    ])(
      'whose requests %s is waited for as long as the caller wishes, and the log says what is missing',
      async (_, behave, event) => {
        signer.behave = behave;
        deps.events.length = 0;
        expect(await failure(ask({ deadlineMs: 700 }))).toMatchObject({ code: 'ERR_TIMEOUT' });
        const warnings = () => deps.events.filter(({ level }) => level === 'warn');
        await until('a warning', async () => warnings().length > 0);
        expect(warnings()).toEqual([
          {
            level: 'warn',
            event,
            facts: expect.objectContaining({
              signer: SIGNER,
              id: TEST_ID,
              hint: expect.any(String),
            }),
          },
        ]);
      },
    );

    test('whose request is deleted says so, and the next attempt is a new request', async () => {
      signer.behave = (request) => request.remove();
      expect(await failure(ask())).toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'soon',
        message: expect.stringContaining('was deleted before it was answered'),
      });
      signer.behave = byDefault;
      await expect(ask()).resolves.toBeDefined();
      const [before, after] = signer.seen.slice(-2);
      expect(before!.metadata.name).not.toBe(after!.metadata.name);
    });

    test('C28 that answers with the chain of another signer is refused by the gate', async () => {
      const hijacker = await makeSignerCa('hijacker');
      signer.behave = async (request) => {
        await request.approve();
        await request.issue(request.chainPem(hijacker));
      };
      expect(await failure(ask())).toMatchObject({
        code: 'ERR_CA_RESPONSE',
        field: 'chain',
        retry: 'slow',
      });
    });

    test('that answers with a certificate for another key is refused by the gate', async () => {
      let first: Buffer | undefined;
      signer.behave = async (request) => {
        first ??= request.chainPem();
        await request.approve();
        await request.issue(first);
      };
      await ask();
      expect(await failure(ask())).toMatchObject({
        code: 'ERR_CA_RESPONSE',
        rule: 'must be for the key of the request',
      });
    });

    test('that puts text around the blocks is understood', async () => {
      signer.behave = async (request) => {
        await request.approve();
        await request.issue(
          Buffer.concat([
            Buffer.from('subject=\r\n'),
            request.chainPem(),
            Buffer.from('\n# the end'),
          ]),
        );
      };
      await expect(ask()).resolves.toMatchObject({ warnings: [] });
    });

    test('is asked for ten minutes at least, as the API would say less clearly', async () => {
      const before = signer.seen.length;
      expect(await failure(ask({ ttlSeconds: 599 }))).toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'slow',
        field: 'ttl',
        rule: 'must be at least 600 s, not 599 s',
        hint: expect.stringContaining('ten minutes'),
      });
      await ask({ ttlSeconds: 600 });
      expect(signer.seen.length).toBe(before + 1);
      expect(signer.seen.at(-1)!.spec.expirationSeconds).toBe(600);
    });

    test('is asked for the usages that fit the key, or for those of Istio where it insists', async () => {
      const four = ['digital signature', 'key encipherment', 'server auth', 'client auth'];
      const three = four.filter((usage) => usage !== 'key encipherment');
      await ask();
      expect(signer.seen.at(-1)!.spec.usages).toEqual(three);
      await ask({ rsa: true });
      expect(signer.seen.at(-1)!.spec.usages).toEqual(four);
      const like = await makeCa({ usages: 'istio' });
      await ask({ client: like.ca });
      expect(signer.seen.at(-1)!.spec.usages).toEqual(four);
      await like.ca.close();
    });

    test('is asked under a name that nobody else has, by the service account itself', async () => {
      await ask();
      const csr = signer.seen.at(-1)!;
      expect(csr.metadata.name).toMatch(/^keyturn-[0-9a-f]{32}$/);
      expect(csr.spec.username).toBe('system:serviceaccount:shop:cart');
    });

    test('leaves no request behind where it may delete, and asks no more where it may not', async () => {
      // Without the right: the agent's service account creates, gets and watches.
      const bound = await makeCa();
      const isTold = ({ event }: LogEvent) => event.startsWith('requests not deleted, Kubernetes');
      await ask({ client: bound.ca });
      const { name } = signer.seen.at(-1)!.metadata;
      await until('the refusal', async () => bound.deps.events.some(isTold));
      expect(await kube.api.request<KubeObject>('GET', `${CSR_PATH}/${name}`)).toMatchObject({
        metadata: { name },
      });
      await ask({ client: bound.ca });
      await bound.ca.close();
      expect(bound.deps.events.filter(isTold)).toHaveLength(1);
      await kube.apply(binding('keyturn-requester-delete'));
      const free = await makeCa();
      await until('the right to delete', async () => {
        await ask({ client: free.ca });
        await free.ca.close();
        const path = `${CSR_PATH}/${signer.seen.at(-1)!.metadata.name}`;
        return failure(kube.api.request('GET', path)).then(
          (error) => (error as { status?: number } | undefined)?.status === 404,
        );
      });
    });

    test('is not asked by an account that may not, and the error says what to grant', async () => {
      await kube.namespace('bare', 'nobody');
      const bare = await makeCa({
        api: await kube.as({ token: await kube.token('bare', 'nobody') }),
      });
      expect(await failure(ask({ client: bare.ca }))).toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'slow',
        status: 403,
        message: expect.stringContaining('cannot create resource "certificatesigningrequests"'),
        hint: expect.stringContaining('RBAC'),
      });
      await bare.ca.close();
    });
  });

  describe('the trust anchors of a Kubernetes signer', () => {
    test('change at once with its ClusterTrustBundle', async () => {
      const { ca } = await makeCa();
      const versions: (string | undefined)[] = [];
      ca.trust.subscribe((bundle) => versions.push(bundle?.version));
      const next = await makeSignerCa('next');
      const both = Buffer.concat([
        Buffer.from(await rootOf(signer)),
        certificatesPem(next.bundle.rootsDer),
      ]).toString();
      const startedAt = Date.now();
      await publish(both);
      await until('both roots', async () => ca.trust.value?.rootsDer.length === 2);
      expect(Date.now() - startedAt).toBeLessThan(underLoad(2_000));
      await publish(await rootOf(signer));
      await until('one root', async () => ca.trust.value?.rootsDer.length === 1);
      expect(versions).toHaveLength(3);
      expect(ca.problem()).toBeUndefined();
      await ca.close();
    });

    test('come from the ConfigMap of the namespace where there is no bundle, as soon as there is one', async () => {
      await kube.apply(`
  apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: { name: keyturn-trust, namespace: shop }
  roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keyturn-trust }
  subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:shop' }]
  `);
      const deps = testDeps();
      const other = {
        api: agentApi,
        signerName: 'test.keyturn.dev/other',
        usages: 'by-key',
        trustBundle: undefined,
        namespace: 'shop',
      } as const;
      const ca = await createKubernetesCa(other, deps);
      const told: string[] = [];
      ca.onChange((what) => told.push(what));
      expect(ca.trust.value).toBeUndefined();
      expect(ca.problem()).toMatchObject({
        code: 'ERR_CA_UNAVAILABLE',
        hint: expect.stringContaining('istio-ca-root-cert'),
      });
      const csrDer = await directEngine.createCsr(
        await directEngine.generateKeyPair('ecdsa-p256'),
        id,
      );
      await expect(
        ca.sign({ id, csrDer, ttlSeconds: 600 }, AbortSignal.timeout(5_000)),
      ).rejects.toMatchObject({
        code: 'ERR_CA_UNAVAILABLE',
        retry: 'soon',
        message: 'sign by test.keyturn.dev/other: no trust anchors yet',
      });
      const configMap = (pem: string) => ({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'istio-ca-root-cert', namespace: 'shop' },
        data: { 'root-cert.pem': pem },
      });
      await kube.apply(JSON.stringify(configMap(await rootOf(signer))));
      await until('the roots', async () => ca.trust.value?.rootsDer.length === 1);
      expect(told).toEqual(['credential']);
      expect(ca.problem()).toBeUndefined();
      await kube.apply(JSON.stringify(configMap('no roots')));
      await until('the complaint', async () => ca.problem());
      expect(ca.trust.value?.rootsDer).toHaveLength(1);
      await ca.close();
    });

    test('are kept over a restart while the cluster does not answer, and replaced as soon as it does', async () => {
      const stateDir = join(tempDir(), 'state');
      const options = {
        signerName: SIGNER,
        usages: 'by-key',
        trustBundle: undefined,
        namespace: 'shop',
        stateDir,
      } as const;
      const before = await createKubernetesCa({ api: agentApi, ...options }, testDeps());
      expect(before.trust.value?.rootsDer).toHaveLength(1);
      await before.close();
      const away = await createKubernetesCa(
        { api: await apiAt('https://127.0.0.1:1'), ...options },
        testDeps(),
      );
      expect(away.trust.value).toEqual(before.trust.value);
      expect(away.problem()).toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
      await away.close();
      const next = await makeSignerCa('next');
      await publish(certificatesPem(next.bundle.rootsDer).toString());
      const back = await createKubernetesCa({ api: agentApi, ...options }, testDeps());
      await until('the new root', async () => back.trust.value?.version === next.bundle.version);
      await back.close();
      await publish(await rootOf(signer));
    });

    test('come from a file where one is named, whatever the cluster publishes', async () => {
      const root = await makeSignerCa('file');
      const trustBundle = join(tempDir(), 'roots.pem');
      writeFileSync(trustBundle, certificatesPem(root.bundle.rootsDer));
      const ca = await createKubernetesCa(
        { api: agentApi, signerName: SIGNER, usages: 'by-key', trustBundle, namespace: 'shop' },
        testDeps(),
      );
      expect(ca.trust.value).toEqual(root.bundle);
      await ca.close();
    });
  });
});
