import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { contextTag, derElement, derSequence } from '../../agent/base/der';
import { writePem } from '../../agent/base/pem';
import { EXTENSION, encodeBasicConstraints, encodeExtension, encodeUriNames } from '../../agent/identity/extensions';
import { EMPTY_NAME, encodeName } from '../../agent/identity/name';
import { Approver } from '../../ca-client/kubernetes/approver';
import { CSR_PATH, conditionOf, type KubeCsr } from '../../ca-client/kubernetes/csr-object';
import type { KubeApi } from '../../ca-client/kubernetes/kube-api';
import { type CsrOptions, dnsName, ipName, makeCsr, makeKey } from '../support/certs';
import { type Kube, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

const SIGNER = 'clusterissuers.cert-manager.io/mesh';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const manifest = (name: string) => readFileSync(join(__dirname, '../../scripts/deploy', name), 'utf8');
const key = makeKey('ec', 'prime256v1');

describeWith('kube')('keyturn approver', () => {
  let kube: Kube;
  let approverApi: KubeApi;
  /** The service account `cart`, by a token that is bound to no pod. */
  let cart: KubeApi;
  const stops: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    kube = await startKube();
    await kube.namespace('shop', 'cart', 'till');
    await kube.apply(manifest('requester/cluster-roles.yaml'));
    await kube.apply(manifest('namespace/namespace.yaml'));
    await kube.apply(manifest('approver/rbac.yaml'));
    await kube.apply(`
  apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: { name: keyturn-requester }
  roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keyturn-requester }
  subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:authenticated' }]
  `);
    approverApi = await kube.as({ token: await kube.token('keyturn', 'keyturn-approver') });
    cart = await kube.as({ token: await kube.token('shop', 'cart') });
  }, 60_000);
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
  });
  afterAll(() => kube?.stop());

  function startApprover(policy: { requirePod?: boolean; signerName?: string } = {}) {
    const deps = testDeps();
    const stop = new AbortController();
    const options = {
      api: approverApi,
      signerName: SIGNER,
      trustDomain: 'cluster.local',
      minSeconds: 600,
      maxSeconds: 86_400,
      requirePod: false,
    };
    const running = new Approver({ ...options, ...policy }, deps).run(stop.signal);
    const end = async () => {
      stop.abort();
      await running;
    };
    stops.push(end);
    return { ...deps, end, decisions: () => deps.events.filter(({ event }) => /^request (approved|denied)$/.test(event)) };
  }

  interface Asked {
    readonly csr?: Partial<CsrOptions>;
    readonly spec?: object;
    readonly by?: KubeApi;
  }

  async function create({ csr = {}, spec = {}, by = cart }: Asked = {}): Promise<KubeCsr> {
    const request = writePem('CERTIFICATE REQUEST', makeCsr({ privateKey: key, extensions: [encodeUriNames([CART], true)], ...csr }));
    const body = {
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { generateName: 'test-' },
      spec: {
        request: request.toString('base64'),
        signerName: SIGNER,
        expirationSeconds: 3_600,
        usages: ['digital signature', 'server auth', 'client auth'],
        ...spec,
      },
    };
    return by.request<KubeCsr>('POST', CSR_PATH, { body });
  }

  /** `approved`, or the reason of the denial. */
  function verdictOf(csr: KubeCsr): Promise<string> {
    return until(`a verdict on ${csr.metadata.name}`, async () => {
      const latest = await kube.api.request<KubeCsr>('GET', `${CSR_PATH}/${csr.metadata.name}`);
      return conditionOf(latest, 'Approved') ? 'approved' : conditionOf(latest, 'Denied')?.message;
    });
  }

  const verdict = async (asked: Asked) => verdictOf(await create(asked));
  const san = (...names: Uint8Array[]) => encodeExtension(EXTENSION.subjectAltName, true, derSequence(...names));
  const uri = (text: string) => derElement(contextTag(6, 'primitive'), Buffer.from(text));

  describe('the approver, under the RBAC of its manifest', () => {
    test('approves what a service account asks for itself, and says so in one line', async () => {
      const approver = startApprover();
      const csr = await create();
      expect(await verdictOf(csr)).toBe('approved');
      await until('the line', async () => approver.decisions().length === 1);
      expect(approver.decisions()).toEqual([
        {
          level: 'info',
          event: 'request approved',
          facts: {
            request: csr.metadata.name,
            requester: 'system:serviceaccount:shop:cart',
            expirationSeconds: 3_600,
            id: CART,
            pod: undefined,
          },
        },
      ]);
    });

    test.each<[string, Asked]>([
      ['an empty subject', { csr: { subjectDer: EMPTY_NAME } }],
      ['a SAN that is not critical', { csr: { extensions: [encodeUriNames([CART], false)] } }],
      ['an RSA key and its usage', { csr: { privateKey: makeKey('rsa', 2048) }, spec: { usages: ['key encipherment', 'client auth'] } }],
      ['the longest time', { spec: { expirationSeconds: 86_400 } }],
    ])('approves a request with %s', async (_, asked) => {
      startApprover();
      expect(await verdict(asked)).toBe('approved');
    });

    test.each<[string, Asked, string]>([
      [
        "another's identity",
        { csr: { extensions: [encodeUriNames(['spiffe://cluster.local/ns/shop/sa/till'], true)] } },
        "san: must be the requester's own, spiffe://cluster.local/ns/shop/sa/cart, not spiffe://cluster.local/ns/shop/sa/till",
      ],
      [
        'another trust domain',
        { csr: { extensions: [encodeUriNames(['spiffe://other/ns/shop/sa/cart'], true)] } },
        "san: must be the requester's own",
      ],
      [
        'the same in capitals',
        { csr: { extensions: [encodeUriNames(['SPIFFE://cluster.local/ns/shop/sa/cart'], true)] } },
        "san: must be the requester's own",
      ],
      [
        'two URIs',
        { csr: { extensions: [encodeUriNames([CART, 'spiffe://cluster.local/ns/shop/sa/till'], true)] } },
        'san: must hold one URI, not 2',
      ],
      ['its URI twice', { csr: { extensions: [encodeUriNames([CART, CART], true)] } }, 'san: must hold one URI, not 2'],
      ['no name at all', { csr: { extensions: [] } }, 'san: must hold one URI, not 0'],
      [
        'a DNS name beside',
        { csr: { extensions: [san(uri(CART), dnsName('kubernetes.default.svc'))] } },
        'san: must hold one URI only, not dns names',
      ],
      ['an address beside', { csr: { extensions: [san(ipName(10, 0, 0, 1), uri(CART))] } }, 'san: must hold one URI only, not ip names'],
      ['a common name', { csr: { subjectDer: encodeName([['CN', 'admin']]) } }, 'subject: must be empty'],
      ['an organisation', { csr: { subjectDer: encodeName([['O', 'system:masters']]) } }, 'subject: must be empty'],
      [
        'a wish to be a CA',
        { csr: { extensions: [encodeUriNames([CART], true), encodeBasicConstraints(true)] } },
        'extension request: must ask for a subject alternative name only, not for 2.5.29.19',
      ],
      [
        'a weak key',
        { csr: { privateKey: makeKey('rsa', 1024) } },
        'request: must be readable: csr public key: must be RSA of at least 2048 bits',
      ],
      [
        'the usage of a CA',
        { spec: { usages: ['digital signature', 'cert sign'] } },
        'usages: must be among digital signature, key encipherment, server auth, client auth, not cert sign',
      ],
      ['code signing', { spec: { usages: ['code signing', 'client auth'] } }, 'usages: must be among'],
      ['more time than policy gives', { spec: { expirationSeconds: 86_401 } }, 'expirationSeconds: must be from 600 to 86400, not 86401'],
      ['no time', { spec: { expirationSeconds: undefined } }, 'expirationSeconds: must be given'],
    ])('denies a request with %s, and says why', async (_, asked, reason) => {
      const approver = startApprover();
      expect(await verdict(asked)).toContain(reason);
      await until('the line', async () => approver.decisions().length === 1);
      expect(approver.decisions()[0]).toMatchObject({ level: 'warn', event: 'request denied' });
    });

    test('denies who is no service account', async () => {
      startApprover();
      expect(await verdict({ by: kube.api })).toContain('requester: must be a service account');
    });

    test('leaves requests to other signers alone', async () => {
      const approver = startApprover();
      const other = await create({ spec: { signerName: 'test.keyturn.dev/other' } });
      expect(await verdict({})).toBe('approved');
      const latest = await kube.api.request<KubeCsr>('GET', `${CSR_PATH}/${other.metadata.name}`);
      expect(latest.status?.conditions).toBeUndefined();
      expect(approver.decisions()).toHaveLength(1);
    });
  });

  describe('the approver, asked with a token that is bound to a pod', () => {
    let serial = 0;
    async function podToken(serviceAccount = 'cart') {
      serial += 1;
      const name = `${serviceAccount}-${serial}`;
      const uid = await kube.pod('shop', name, serviceAccount);
      return { name, uid, api: await kube.as({ token: await kube.token('shop', serviceAccount, { pod: { name, uid } }) }) };
    }
    const podPath = (name: string) => `/api/v1/namespaces/shop/pods/${name}?gracePeriodSeconds=0`;

    test('approves while the pod is there', async () => {
      const approver = startApprover({ requirePod: true });
      const pod = await podToken();
      expect(await verdict({ by: pod.api })).toBe('approved');
      await until('the line', async () => approver.decisions().length === 1);
      expect(approver.decisions()[0]!.facts).toMatchObject({ pod: pod.name });
    });

    test('denies once the pod is gone', async () => {
      const pod = await podToken();
      const csr = await create({ by: pod.api });
      await kube.api.request('DELETE', podPath(pod.name));
      startApprover();
      expect(await verdictOf(csr)).toBe(`pod: must still exist, and ${pod.name} does not`);
    });

    test('denies where another pod has taken its name', async () => {
      const pod = await podToken();
      const csr = await create({ by: pod.api });
      await kube.api.request('DELETE', podPath(pod.name));
      await kube.pod('shop', pod.name, 'cart');
      startApprover();
      expect(await verdictOf(csr)).toBe(`pod: must be the one that the token is bound to, and another is named ${pod.name} now`);
    });

    test('denies a token that is bound to no pod, where policy asks for one', async () => {
      startApprover({ requirePod: true });
      expect(await verdict({})).toBe('requester: must use a token that is bound to a pod');
    });
  });

  describe('an approver that comes and goes', () => {
    test('decides what was asked while it was away', async () => {
      const first = startApprover();
      expect(await verdict({})).toBe('approved');
      await first.end();
      const waiting = await Promise.all([create(), create(), create({ csr: { extensions: [] } })]);
      const second = startApprover();
      expect(await Promise.all(waiting.map(verdictOf))).toEqual(['approved', 'approved', 'san: must hold one URI, not 0']);
      await until('the lines', async () => second.decisions().length >= 3);
      expect(second.decisions()).toHaveLength(3);
    });

    test('does no harm beside others: each of forty requests is decided once', async () => {
      const approvers = [startApprover(), startApprover(), startApprover()];
      const csrs = await Promise.all(Array.from({ length: 40 }, (_, index) => create(index % 4 === 0 ? { csr: { extensions: [] } } : {})));
      const verdicts = await Promise.all(csrs.map(verdictOf));
      expect(verdicts.filter((each) => each === 'approved')).toHaveLength(30);
      const latest = await Promise.all(csrs.map((csr) => kube.api.request<KubeCsr>('GET', `${CSR_PATH}/${csr.metadata.name}`)));
      expect(latest.every((csr) => csr.status?.conditions?.length === 1)).toBe(true);
      await Promise.all(approvers.map(({ end }) => end()));
      const decided = approvers.flatMap(({ decisions }) => decisions()).map(({ facts }) => facts.request);
      expect([...decided].sort()).toEqual(csrs.map((csr) => csr.metadata.name).sort());
    });

    test('that may not approve for this signer says so, tries again, and denies nobody', async () => {
      const approver = startApprover({ signerName: 'test.keyturn.dev/forbidden' });
      const csr = await create({ spec: { signerName: 'test.keyturn.dev/forbidden' } });
      const failures = () => approver.events.filter(({ event }) => event === 'request cannot be decided');
      await until('two tries', async () => failures().length >= 2);
      expect(failures()[0]!.facts.cause).toMatchObject({
        status: 403,
        message: expect.stringContaining('not permitted to approve requests'),
      });
      const latest = await kube.api.request<KubeCsr>('GET', `${CSR_PATH}/${csr.metadata.name}`);
      expect(latest.status?.conditions).toBeUndefined();
    });
  });
});
