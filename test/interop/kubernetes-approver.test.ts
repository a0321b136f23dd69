import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { acknowledge } from '../../agent/approver/approval';
import { Approver, type ApproverOptions } from '../../agent/approver/approver';
import { contextTag, derElement, derOid, derSequence, TAG } from '../../agent/base/der';
import { AgentError } from '../../agent/base/errors';
import { writePem } from '../../agent/base/pem';
import { certificatesPem } from '../../agent/identity/certificate';
import {
  EXTENSION,
  encodeBasicConstraints,
  encodeExtension,
  encodeUriNames,
  PURPOSE,
} from '../../agent/identity/extensions';
import { EMPTY_NAME, encodeName } from '../../agent/identity/name';
import type { KubeApi } from '../../agent/kube/kube-api';
import {
  CSR_PATH,
  conditionOf,
  csrPath,
  type KubeCsr,
} from '../../ca-client/kubernetes/csr-object';
import {
  type CsrOptions,
  dnsName,
  ipName,
  issueLeaf,
  type LeafOptions,
  makeCsr,
  makeKey,
  spkiOf,
  type TestCa,
} from '../support/certs';
import { type Kube, startKube } from '../support/kube';
import { makeSignerCa } from '../support/kube-signer';
import { describeWith } from '../support/peers';
import { testDeps } from '../support/test-deps';
import { until } from '../support/until';

const SIGNER = 'clusterissuers.cert-manager.io/mesh';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const TILL = 'spiffe://cluster.local/ns/shop/sa/till';
const manifest = (name: string) =>
  readFileSync(join(__dirname, '../../scripts/deploy', name), 'utf8');
const key = makeKey('ec', 'prime256v1');

interface RbacRule {
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

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

  function startApprover(policy: Partial<ApproverOptions> = {}) {
    const deps = testDeps();
    const stop = new AbortController();
    const options = {
      api: approverApi,
      signerName: SIGNER,
      trustDomain: 'cluster.local',
      minSeconds: 600,
      maxSeconds: 86_400,
      requirePod: false,
      allowedAnnotations: [],
      allowedLabels: [],
    };
    const approver = new Approver({ ...options, ...policy }, deps);
    const running = approver.run(stop.signal);
    const end = async () => {
      stop.abort();
      await running;
    };
    stops.push(end);
    return {
      ...deps,
      approver,
      end,
      decisions: () => deps.events.filter(({ event }) => /^request (approved|denied)$/.test(event)),
    };
  }

  interface Asked {
    readonly metadata?: object;
    readonly csr?: Partial<CsrOptions>;
    readonly spec?: object;
    readonly by?: KubeApi;
  }

  async function create({
    metadata = {},
    csr = {},
    spec = {},
    by = cart,
  }: Asked = {}): Promise<KubeCsr> {
    const request = writePem(
      'CERTIFICATE REQUEST',
      makeCsr({ privateKey: key, extensions: [encodeUriNames([CART], true)], ...csr }),
    );
    const body = {
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { generateName: 'test-', ...metadata },
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
      const latest = await kube.api.request<KubeCsr>('GET', csrPath(csr.metadata.name));
      return conditionOf(latest, 'Approved') ? 'approved' : conditionOf(latest, 'Denied')?.message;
    });
  }

  const verdict = async (asked: Asked) => verdictOf(await create(asked));
  const extensionList = (oid: string, id: string) =>
    derSequence(derOid(oid), derElement(TAG.set, derSequence(encodeUriNames([id], true))));
  const san = (...names: Uint8Array[]) =>
    encodeExtension(EXTENSION.subjectAltName, true, derSequence(...names));
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
      [
        'an RSA key and its usage',
        {
          csr: { privateKey: makeKey('rsa', 2048) },
          spec: { usages: ['digital signature', 'key encipherment', 'client auth'] },
        },
      ],
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
        {
          csr: {
            extensions: [encodeUriNames([CART, 'spiffe://cluster.local/ns/shop/sa/till'], true)],
          },
        },
        'san: must hold one URI, not 2',
      ],
      [
        'its URI twice',
        { csr: { extensions: [encodeUriNames([CART, CART], true)] } },
        'san: must hold one URI, not 2',
      ],
      ['no name at all', { csr: { extensions: [] } }, 'san: must hold one URI, not 0'],
      [
        'a DNS name beside',
        { csr: { extensions: [san(uri(CART), dnsName('kubernetes.default.svc'))] } },
        'san: must hold one URI only, not dns names',
      ],
      [
        'an address beside',
        { csr: { extensions: [san(ipName(10, 0, 0, 1), uri(CART))] } },
        'san: must hold one URI only, not ip names',
      ],
      [
        'a common name',
        { csr: { subjectDer: encodeName([['CN', 'admin']]) } },
        'subject: must be empty',
      ],
      [
        'an organisation',
        { csr: { subjectDer: encodeName([['O', 'system:masters']]) } },
        'subject: must be empty',
      ],
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
      [
        'code signing',
        { spec: { usages: ['code signing', 'client auth'] } },
        'usages: must be among',
      ],
      [
        'more time than policy gives',
        { spec: { expirationSeconds: 86_401 } },
        'expirationSeconds: must be from 600 to 86400, not 86401',
      ],
      ['no time', { spec: { expirationSeconds: undefined } }, 'expirationSeconds: must be given'],
      [
        'an annotation that makes a CA (field E1)',
        { metadata: { annotations: { 'experimental.cert-manager.io/request-is-ca': 'true' } } },
        'annotations: must be among those of --allow-annotation, not experimental.cert-manager.io/request-is-ca',
      ],
      [
        'a label (field E1)',
        { metadata: { labels: { signer: 'ca' } } },
        'labels: must be among those of --allow-label, not signer',
      ],
      [
        'a finalizer (field E1)',
        { metadata: { finalizers: ['example.org/x'] } },
        'metadata: must hold annotations and labels only',
      ],
      [
        'usages without digital signature (field E1)',
        { spec: { usages: ['client auth', 'server auth'] } },
        'usages: must include digital signature',
      ],
      [
        "Microsoft's list of extensions for another beside its own (field E13)",
        {
          csr: {
            attributes: [
              extensionList('1.2.840.113549.1.9.14', CART),
              extensionList('1.3.6.1.4.1.311.2.1.14', TILL),
            ],
          },
        },
        'request: must be readable: csr attributes: must be extensionRequest or challengePassword, not 1.3.6.1.4.1.311.2.1.14',
      ],
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

  describe('field E1: what becomes of an approved request', () => {
    let ca: TestCa;
    beforeAll(async () => {
      ca = await makeSignerCa();
    });

    const read = (name: string) => kube.api.request<KubeCsr>('GET', csrPath(name));
    const change = (name: string, metadata: object) =>
      kube.api.request('PATCH', csrPath(name), { body: { metadata } });
    const issue = (name: string, ...certificatesDer: Uint8Array[]) =>
      kube.api.request('PATCH', `${csrPath(name)}/status`, {
        body: { status: { certificate: certificatesPem(certificatesDer).toString('base64') } },
      });
    const leaf = (options: Partial<LeafOptions> = {}) =>
      issueLeaf(ca, {
        key: { spkiDer: spkiOf(key) },
        uris: [CART],
        notBeforeAt: Date.now() - 300_000,
        notAfterAt: Date.now() + 3_600_000,
        ...options,
      });

    type Started = ReturnType<typeof startApprover>;
    const violations = ({ events }: Started) =>
      events.filter(({ facts }) => facts.violation !== undefined);
    const violation = (approver: Started) =>
      until('a violation', async () => violations(approver)[0]);
    const isReady = (approver: Started) =>
      until('readiness', async () => approver.approver.problem() === undefined);

    async function approved(approver: Started): Promise<string> {
      const csr = await create();
      expect(await verdictOf(csr)).toBe('approved');
      await isReady(approver);
      return csr.metadata.name;
    }

    test('the shipped requester role has neither update nor patch, and the API server refuses them', async () => {
      const rules = parseAllDocuments(manifest('requester/cluster-roles.yaml')).flatMap(
        (each) => each.toJS().rules as RbacRule[],
      );
      const verbs = rules.filter(({ resources }) =>
        resources.some((each) => each.startsWith('certificatesigningrequests')),
      );
      expect(verbs.flatMap((each) => each.verbs)).toEqual(['create', 'get', 'watch', 'delete']);
      const name = await approved(startApprover());
      const annotations = { 'experimental.cert-manager.io/request-is-ca': 'true' };
      await expect(
        cart.request('PATCH', csrPath(name), { body: { metadata: { annotations } } }),
      ).rejects.toMatchObject({ status: 403 });
      const body = {
        ...(await read(name)),
        metadata: { ...(await read(name)).metadata, annotations },
      };
      await expect(cart.request('PUT', csrPath(name), { body })).rejects.toMatchObject({
        status: 403,
      });
    });

    test.each<[string, object]>([
      ['an annotation', { annotations: { 'experimental.cert-manager.io/request-is-ca': 'true' } }],
      ['a label', { labels: { signer: 'x' } }],
    ])(
      '%s that comes before the certificate is critical, until acknowledged, and is found again after a restart',
      async (_, metadata) => {
        const first = startApprover();
        const name = await approved(first);
        await change(name, metadata);
        expect(await violation(first)).toMatchObject({
          level: 'error',
          event: 'approved request changed before issuance',
          facts: {
            request: name,
            requester: 'system:serviceaccount:shop:cart',
            violation: 'metadata',
          },
        });
        await first.end();
        const second = startApprover();
        await violation(second);
        expect(second.approver.problem()?.message).toContain(
          `request ${name}: annotations or labels were changed`,
        );
        expect(await acknowledge(kube.api, name, 'seen')).toBe('acknowledged');
        await isReady(second);
        expect(await acknowledge(kube.api, name, 'seen')).toBe('already');
      },
    );

    test('allowed annotations are compared with what was approved, also after a restart', async () => {
      const allowed = { allowedAnnotations: ['example.org/a'] };
      const first = startApprover(allowed);
      const csr = await create({ metadata: { annotations: { 'example.org/a': '1' } } });
      expect(await verdictOf(csr)).toBe('approved');
      await first.end();
      const second = startApprover(allowed);
      await isReady(second);
      await change(csr.metadata.name, { annotations: { 'example.org/a': '2' } });
      await violation(second);
      await change(csr.metadata.name, { annotations: { 'example.org/a': '1' } });
      await acknowledge(kube.api, csr.metadata.name, 'seen');
      await isReady(second);
    });

    test('the certificate that was asked for, or a shorter one, with its chain, is no violation', async () => {
      const approver = startApprover();
      const [plain, short] = [await approved(approver), await approved(approver)];
      await issue(plain, leaf(), ...ca.intermediatesDer);
      await issue(
        short,
        leaf({ notAfterAt: Date.now() + 700_000, keyUsage: undefined, purposes: undefined }),
      );
      await change(short, { annotations: { late: 'after the certificate' } });
      // Behind them in the one watch: when this is seen, they have been.
      const last = await approved(approver);
      await issue(last, leaf({ isCa: true }));
      await violation(approver);
      expect(violations(approver).map(({ facts }) => facts.request)).toEqual([last]);
      await acknowledge(kube.api, last, 'test');
    });

    test.each<[string, string, string, () => Uint8Array[]]>([
      ['a CA', 'ca', 'is a CA', () => [leaf({ isCa: true, keyUsage: undefined })]],
      [
        'keyCertSign',
        'ca',
        'has key usage keyCertSign',
        () => [leaf({ keyUsage: ['digitalSignature', 'keyCertSign'] })],
      ],
      [
        'another identity',
        'identity',
        `is for ${TILL}, and the requester is ${CART}`,
        () => [leaf({ uris: [TILL] })],
      ],
      [
        'a name more',
        'identity',
        'and the requester is',
        () => [leaf({ otherNames: [dnsName('kubernetes.default.svc')] })],
      ],
      ['no name', 'identity', 'is for no name', () => [leaf({ uris: [] })]],
      [
        'another key',
        'key',
        'for another key',
        () => [leaf({ key: { spkiDer: spkiOf(makeKey('ec', 'prime256v1')) } })],
      ],
      [
        'a CA for its key behind it',
        'key',
        'a CA certificate of the chain',
        () => [leaf(), leaf({ isCa: true, uris: [] })],
      ],
      [
        'twice the time',
        'lifetime',
        '3600 s were approved',
        () => [leaf({ notAfterAt: Date.now() + 7_200_000 })],
      ],
      [
        'a time of its own',
        'lifetime',
        '3600 s were approved',
        () => [leaf({ notBeforeAt: Date.now() + 86_400_000, notAfterAt: Date.now() + 90_000_000 })],
      ],
      [
        'any purpose',
        'usage',
        'other than server and client',
        () => [leaf({ purposes: [PURPOSE.any] })],
      ],
    ])(
      'a certificate with %s is an error until acknowledged, whether or not its request is deleted',
      async (_, kind, detail, chain) => {
        const approver = startApprover();
        const name = await approved(approver);
        await issue(name, ...chain());
        expect(await violation(approver)).toMatchObject({
          level: 'error',
          event: 'certificate violates policy',
          facts: { request: name, violation: kind, detail: expect.stringContaining(detail) },
        });
        expect(approver.approver.problem()?.message).toContain(name);
        expect(approver.approver.violations).toBe(1);
        await kube.api.request('DELETE', csrPath(name));
        // Behind the deletion in the one watch.
        expect(await verdict({})).toBe('approved');
        expect(approver.approver.problem()?.message).toContain(name);
        await expect(acknowledge(kube.api, name, 'too late')).rejects.toMatchObject({
          hint: expect.stringContaining('restart'),
        });
      },
    );

    test('an acknowledgement is of what there was: neither a later change nor the certificate is covered by it', async () => {
      const approver = startApprover();
      const name = await approved(approver);
      await change(name, { labels: { a: '1' } });
      await violation(approver);
      await acknowledge(kube.api, name, 'first');
      await isReady(approver);
      await change(name, { labels: { a: '2' } });
      await until('a second one', async () => violations(approver).length === 2);
      await acknowledge(kube.api, name, 'second');
      await isReady(approver);
      await issue(name, leaf({ isCa: true }));
      await until('a third one', async () => violations(approver).length === 3);
      expect(violations(approver).map(({ facts }) => facts.violation)).toEqual([
        'metadata',
        'metadata',
        'ca',
      ]);
      expect(await acknowledge(kube.api, name, 'third')).toBe('acknowledged');
      await isReady(approver);
    });

    test('the command that readiness asks for is safe to type, whatever the request is named', async () => {
      const approver = startApprover();
      const name = "x'; reboot; '$(reboot)";
      expect(await verdictOf(await create({ metadata: { name, generateName: undefined } }))).toBe(
        'approved',
      );
      await issue(name, leaf({ isCa: true }));
      await violation(approver);
      const { hint = '' } = approver.approver.problem() ?? {};
      expect(hint).toMatch(/ -- '/);
      const word = execFileSync('sh', ['-c', `printf %s ${hint.slice(hint.indexOf(' -- ') + 4)}`], {
        encoding: 'utf8',
      });
      expect(word).toBe(name);
      await kube.api.request('DELETE', csrPath(name));
    });

    test('a requester that may change its request acknowledges nothing', async () => {
      const approver = startApprover();
      const name = await approved(approver);
      await issue(name, leaf({ isCa: true }));
      await violation(approver);
      await expect(acknowledge(cart, name, 'nothing happened')).rejects.toMatchObject({
        status: 403,
      });
      await change(name, { annotations: { Acknowledged: 'True' } });
      expect(await verdict({})).toBe('approved');
      expect(approver.approver.problem()?.message).toContain(name);
      await acknowledge(kube.api, name, 'test');
      await isReady(approver);
    });
  });

  describe('the approver, asked with a token that is bound to a pod', () => {
    let serial = 0;
    async function podToken(serviceAccount = 'cart') {
      serial += 1;
      const name = `${serviceAccount}-${serial}`;
      const uid = await kube.pod('shop', name, serviceAccount);
      return {
        name,
        uid,
        api: await kube.as({
          token: await kube.token('shop', serviceAccount, { pod: { name, uid } }),
        }),
      };
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
      expect(await verdictOf(csr)).toBe(
        `pod: must be the one that the token is bound to, and another is named ${pod.name} now`,
      );
    });

    test('denies a token that is bound to no pod, where policy asks for one', async () => {
      startApprover({ requirePod: true });
      expect(await verdict({})).toBe('requester: must use a token that is bound to a pod');
    });
  });

  describe('requests that are made to be in the way', () => {
    const remove = (names: readonly string[]) =>
      Promise.all(names.map((name) => kube.api.request('DELETE', csrPath(name))));

    test('field E3: names that are no plain path segments are decided as others are', async () => {
      const approver = startApprover();
      const odd = [
        '..\\..\\..\\..\\api\\v1\\secrets#1',
        '..\\',
        'a?watch=true',
        'a b',
        'a;b=c,d',
        'a&b',
        '...',
        'ä\u{1f600}',
        '"<\n>"',
      ];
      const csrs = await Promise.all(
        odd.map((name) => create({ metadata: { name, generateName: undefined } })),
      );
      expect(await Promise.all(csrs.map(verdictOf))).toEqual(odd.map(() => 'approved'));
      expect(await verdict({})).toBe('approved');
      await until('the lines', async () => approver.decisions().length > odd.length);
      expect(approver.events.filter(({ event }) => event === 'request evaluation failed')).toEqual(
        [],
      );
      await remove(odd);
    });

    test('field E3: what cannot be decided waits by itself, is reported, and is forgotten when it is deleted', async () => {
      const isStuck = (path: string) => path.includes('/stuck-') && path.endsWith('/approval');
      const refused = () =>
        Promise.reject(
          new AgentError('ERR_CA_REJECTED', 'PUT: 403 not for you', { retry: 'slow' }),
        );
      const request: KubeApi['request'] = (method, path, options) =>
        isStuck(path) ? refused() : approverApi.request(method, path, options);
      const { approver, events } = startApprover({ api: { ...approverApi, request } });
      const names = Array.from({ length: 12 }, (_, index) => `stuck-${index}`);
      await Promise.all(
        names.map((name) => create({ metadata: { name, generateName: undefined } })),
      );
      await until(
        'a failure of each',
        async () =>
          events.filter(({ event }) => event === 'request evaluation failed').length >= 12,
      );
      expect(await verdict({})).toBe('approved');
      await until('the reason', async () => approver.stuck === 12);
      expect(await verdict({})).toBe('approved');
      expect(approver.problem()?.message).toMatch(
        /^request stuck-\d+ cannot be decided, nor can 11 more: PUT: 403 not for you$/,
      );
      await remove(names);
      await until('nothing left', async () => approver.undecided === 0);
      expect(approver.problem()).toBeUndefined();
    });

    test('field E3: what was deleted while the watch was away is forgotten with the next list', async () => {
      let fails = true;
      const gone = new AgentError('ERR_CA_UNAVAILABLE', 'away', { retry: 'soon' });
      const request: KubeApi['request'] = (method, path, options) =>
        fails && path.endsWith('/approval')
          ? Promise.reject(gone)
          : approverApi.request(method, path, options);
      // The first watch sees nothing and ends with the deletion.
      let endWatch = () => {};
      const ended = new Promise<void>((done) => {
        endWatch = done;
      });
      const watch: KubeApi['watch'] = async (path, onEvent, signal, onOpen) => {
        if (!fails) return approverApi.watch(path, onEvent, signal, onOpen);
        onOpen?.();
        signal.addEventListener('abort', endWatch, { once: true });
        await ended;
      };
      const csr = await create();
      const { approver } = startApprover({ api: { ...approverApi, request, watch } });
      await until('a request in mind', async () => approver.undecided === 1);
      await remove([csr.metadata.name]);
      fails = false;
      endWatch();
      await until('nothing left', async () => approver.undecided === 0 && approver.watching);
    });

    test('field E3b: a list that no one answer could hold is read in smaller pages', async () => {
      // Each is 1.5 MiB of JSON, which spells `<` with six characters: 22 of them are more than the 16 MiB of an answer.
      const note = '<'.repeat(255_000);
      const names = Array.from({ length: 22 }, (_, index) => `big-${index}`);
      for (const name of names)
        await create({ metadata: { name, generateName: undefined, annotations: { note } } });
      const sizes: number[] = [];
      const request: KubeApi['request'] = (method, path, options = {}) =>
        approverApi.request(method, path, {
          ...options,
          onBytes: (bytes) => {
            if (path.includes('limit=')) sizes.push(bytes);
            options.onBytes?.(bytes);
          },
        });
      const { approver } = startApprover({ api: { ...approverApi, request } });
      expect(await verdict({})).toBe('approved');
      await until('decisions', async () => approver.undecided === 0);
      expect(approver.problem()).toBeUndefined();
      expect(Math.max(...sizes)).toBeLessThan(4 * 1024 * 1024);
      await remove(names);
    });
  });

  describe('an approver that comes and goes', () => {
    test('decides what was asked while it was away', async () => {
      const first = startApprover();
      expect(await verdict({})).toBe('approved');
      await first.end();
      const waiting = await Promise.all([create(), create(), create({ csr: { extensions: [] } })]);
      const second = startApprover();
      expect(await Promise.all(waiting.map(verdictOf))).toEqual([
        'approved',
        'approved',
        'san: must hold one URI, not 0',
      ]);
      await until('the lines', async () => second.decisions().length >= 3);
      expect(second.decisions()).toHaveLength(3);
    });

    test('does no harm beside others: each of forty requests is decided once', async () => {
      const approvers = [startApprover(), startApprover(), startApprover()];
      const csrs = await Promise.all(
        Array.from({ length: 40 }, (_, index) =>
          create(index % 4 === 0 ? { csr: { extensions: [] } } : {}),
        ),
      );
      const verdicts = await Promise.all(csrs.map(verdictOf));
      expect(verdicts.filter((each) => each === 'approved')).toHaveLength(30);
      const latest = await Promise.all(
        csrs.map((csr) => kube.api.request<KubeCsr>('GET', csrPath(csr.metadata.name))),
      );
      expect(latest.every((csr) => csr.status?.conditions?.length === 1)).toBe(true);
      await Promise.all(approvers.map(({ end }) => end()));
      const decided = approvers
        .flatMap(({ decisions }) => decisions())
        .map(({ facts }) => facts.request);
      expect([...decided].sort()).toEqual(csrs.map((csr) => csr.metadata.name).sort());
    });

    test('that may not approve for this signer says so, tries again, and denies nobody', async () => {
      const approver = startApprover({ signerName: 'test.keyturn.dev/forbidden' });
      const csr = await create({ spec: { signerName: 'test.keyturn.dev/forbidden' } });
      const failures = () =>
        approver.events.filter(({ event }) => event === 'request evaluation failed');
      await until('two tries', async () => failures().length >= 2);
      expect(failures()[0]!.facts.cause).toMatchObject({
        status: 403,
        message: expect.stringContaining('not permitted to approve requests'),
      });
      const latest = await kube.api.request<KubeCsr>('GET', csrPath(csr.metadata.name));
      expect(latest.status?.conditions).toBeUndefined();
    });
  });
});
