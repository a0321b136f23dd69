import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type Daemon, runKeyturn } from '../support/daemon';
import { deployable, deployPath, kustomize, objectsIn } from '../support/deploy';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import { peerPath } from '../support/peer-path';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';

const NAMESPACE = 'keyturn';
const OVERLAYS = deployable().filter((folder) => folder.startsWith('overlays/'));

/** What comes from elsewhere. */
const BROUGHT = ['Secret keyturn-ca', 'ConfigMap istio-ca-root-cert'];

/** What each service account may do in the namespace beyond what any may. */
const RULES: Readonly<Record<string, readonly string[]>> = {
  'keyturn-ca': [
    '/configmaps create,delete,get,list,patch,watch',
    'authentication.k8s.io/tokenreviews create',
  ],
  'keyturn-webhook': [
    '/secrets[keyturn-webhook-root] get,patch,watch',
    'admissionregistration.k8s.io/mutatingwebhookconfigurations[keyturn-webhook] get,patch,watch',
  ],
  'keyturn-approver': [
    '/pods get',
    'certificates.k8s.io/certificatesigningrequests get,list,watch',
    'certificates.k8s.io/certificatesigningrequests/approval update',
    'certificates.k8s.io/signers[clusterissuers.cert-manager.io/mesh] approve',
  ],
};

describeWith(
  'kube',
  'kustomize',
  'servicemonitor',
)('the manifests of scripts/deploy', () => {
  let kube: Kube;
  beforeAll(async () => {
    kube = await startKube();
    const definitions = peerPath('servicemonitor')!;
    for (const file of readdirSync(definitions))
      await kube.apply(readFileSync(join(definitions, file), 'utf8'));
    for (const each of ['namespace/namespace.yaml', 'agent/namespace.yaml'])
      await kube.apply(readFileSync(deployPath(each), 'utf8'));
  });
  afterAll(() => kube?.stop());

  test.each(deployable())(
    '%s: the API server takes all of it, asked first and then for real, and again',
    async (folder) => {
      const manifests = kustomize(folder);
      for (const options of [{ dryRun: true }, {}, {}]) await kube.apply(manifests, options);
    },
  );

  test.each(deployable().filter((folder) => folder.startsWith('overlays/')))(
    '%s with the component monitoring is taken',
    async (folder) => {
      const dir = tempDir();
      const [resource, component] = [folder, 'components/monitoring'].map((each) =>
        relative(dir, deployPath(each)),
      );
      writeFileSync(
        join(dir, 'kustomization.yaml'),
        `resources: [${resource}]\ncomponents: [${component}]\n`,
      );
      const manifests = kustomize(dir);
      expect(objectsIn(manifests).map(({ kind }) => kind)).toContain('ServiceMonitor');
      await kube.apply(manifests, { dryRun: true });
      await kube.apply(manifests);
    },
  );

  /** Asks whether a pod of a template may be made where the standard `restricted` is enforced. */
  const admit = ({ metadata, spec }: KubeObject) =>
    kube.api.request<KubeObject>('POST', `/api/v1/namespaces/${NAMESPACE}/pods?dryRun=All`, {
      // Whatever its account is called: that is not what the standard is about.
      body: {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { ...metadata, name: 'pod' },
        spec: { ...spec, serviceAccountName: 'default' },
      },
    });

  describe.each(templates())('the pods of $kind $name', ({ template }) => {
    test('are admitted under the Pod Security Standard restricted', async () => {
      await admit(template);
      const loose = structuredClone(template);
      loose.spec.containers[0].securityContext.allowPrivilegeEscalation = true;
      await expect(admit(loose)).rejects.toMatchObject({
        status: 403,
        message: expect.stringContaining('PodSecurity "restricted'),
      });
    });

    test('take nothing of the node, and a bounded part of its memory', () => {
      const { containers, initContainers = [], volumes = [], hostNetwork } = template.spec;
      expect(hostNetwork).toBeUndefined();
      expect(volumes.filter(({ hostPath }: KubeObject) => hostPath)).toEqual([]);
      for (const each of [...containers, ...initContainers]) {
        expect(each.resources).toMatchObject({
          requests: { cpu: expect.anything() },
          limits: { memory: expect.anything() },
        });
      }
    });
  });

  test.each(Object.entries(RULES))(
    'the service account %s may do what it needs and nothing more',
    async (account, rules) => {
      const plain = await rulesOf(kube, 'nobody-in-particular');
      const may = (await rulesOf(kube, account)).filter((rule) => !plain.includes(rule));
      expect(may).toEqual([...rules].sort());
    },
  );

  /** The command line of a manifest, as its service account, on loopback; what follows wins. */
  async function startAs(account: string, name: string, ...flags: readonly string[]) {
    const { template } = templates().find((each) => each.name === name)!;
    const kubeconfig = kube.writeKubeconfig({ token: await kube.token(NAMESPACE, account) });
    return testDaemon({
      dir: tempDir(),
      args: [...template.spec.containers[0].args, '--kubeconfig', kubeconfig, ...flags],
    });
  }

  const troubles = (daemon: Daemon) =>
    daemon.events.filter(({ level }) => level === 'warn' || level === 'error');

  test("the authority's manifest certifies the agent's by its service account token, with the rights that it brings", async () => {
    await kube.namespace('shop', 'cart');
    await kube.namespace(NAMESPACE, 'default');
    const home = tempDir();
    expect(await runKeyturn(['ca', 'init', '--ca-dir', './ca'], { dir: home })).toMatchObject({
      code: 0,
    });
    const ports = ['--listen', '127.0.0.1:0', '--admin-address', '127.0.0.1:0'];
    const ca = await startAs(
      'keyturn-ca',
      'keyturn-ca',
      '--ca-dir',
      join(home, 'ca'),
      '--namespace',
      NAMESPACE,
      ...ports,
    );
    const { address } = await ca.event('ca server started');
    const dir = tempDir();
    writeFileSync(
      join(dir, 'token'),
      await kube.token('shop', 'cart', { audiences: ['istio-ca'] }),
    );
    const { template } = templates().find(({ kind }) => kind === 'DaemonSet')!;
    const asked: string[] = template.spec.initContainers[0].args;
    const source = asked
      .slice(1)
      .map((flag) => flag.replace(/^--ca-address=.*/, `--ca-address=${address}`));
    const agent = testDaemon({
      dir,
      source: [...source, '--token', 'token', '--ca-root', join(home, 'ca/root-cert.pem')],
    });
    expect((await agent.ready()).workloads[0]).toMatchObject({
      id: 'spiffe://cluster.local/ns/shop/sa/cart',
    });
    expect(await agent.command('rotate')).toMatchObject({ code: 0 });
    expect(troubles(ca)).toEqual([]);
  });

  test("the approver's manifest approves a pod's own identity, with the rights that it brings", async () => {
    await kube.namespace('shop', 'till');
    await kube.apply(kustomize('overlays/signer'));
    await kube.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: 'keyturn-requester:shop' }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keyturn-requester }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:shop' }]
`);
    const approver = await startAs(
      'keyturn-approver',
      'keyturn-approver',
      '--admin-address',
      '127.0.0.1:0',
    );
    const uid = await kube.pod('shop', 'till-1', 'till');
    const dir = tempDir();
    const kubeconfig = kube.writeKubeconfig({
      token: await kube.token('shop', 'till', { pod: { name: 'till-1', uid } }),
    });
    writeFileSync(join(dir, 'roots.pem'), readFileSync(kube.caFile));
    const source = [
      '--ca',
      'kubernetes-csr',
      '--signer-name',
      'clusterissuers.cert-manager.io/mesh',
      '--kubeconfig',
      kubeconfig,
    ];
    const identity = ['--namespace', 'shop', '--service-account', 'till'];
    testDaemon({
      dir,
      source: [...source, '--trust-bundle', 'roots.pem', '--ttl', '1h'],
      identity,
    });
    expect(await approver.event('request approved')).toMatchObject({
      id: 'spiffe://cluster.local/ns/shop/sa/till',
      pod: 'till-1',
    });
    expect(troubles(approver)).toEqual([]);
    const { readinessProbe, livenessProbe } = containerOf('keyturn-approver');
    for (const { httpGet } of [readinessProbe, livenessProbe])
      expect(await approver.http(httpGet.path)).toMatchObject({ status: 200 });
  });

  test.each(['keyturn-ca', 'keyturn-webhook', 'keyturn-approver'])(
    'the probes, the service and the metrics of %s are of one port',
    (name) => {
      const { args, ports, readinessProbe, livenessProbe } = containerOf(name);
      const [port] = ports.filter((each: KubeObject) => each.name === 'http-admin');
      expect(args).toContain(`--admin-address=0.0.0.0:${port.containerPort}`);
      expect([readinessProbe, livenessProbe].map(({ httpGet }) => httpGet.port)).toEqual([
        'http-admin',
        'http-admin',
      ]);
      const objects = deployable().flatMap((folder) => objectsIn(kustomize(folder)));
      const named = (kind: string) =>
        objects.find((each) => each.kind === kind && each.metadata.name === name)!.spec;
      expect(named('Service').ports).toContainEqual({
        name: 'http-admin',
        port: port.containerPort,
        targetPort: 'http-admin',
      });
      const open = named('NetworkPolicy').ingress.flatMap((each: KubeObject) => each.ports);
      expect(open).toContainEqual({ protocol: 'TCP', port: port.containerPort });
    },
  );

  test("the agent's Envoy is configured as keyturn bootstrap says", async () => {
    const command = /prints: keyturn (.*)$/m.exec(
      readFileSync(deployPath('agent/kustomization.yaml'), 'utf8'),
    )![1]!;
    const { stdout } = await runKeyturn(command.split(' '), { dir: tempDir() });
    expect(readFileSync(deployPath('agent/envoy.yaml'), 'utf8')).toBe(stdout);
  });

  test('every object that a manifest names is there, or is said to be brought along', () => {
    for (const folder of [...OVERLAYS, 'agent']) {
      const objects = objectsIn(kustomize(folder));
      const names = new Set(objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`));
      const wanted = objects.flatMap(namedBy);
      expect(wanted.length).toBeGreaterThan(2);
      expect(wanted.filter((each) => !names.has(each) && !BROUGHT.includes(each))).toEqual([]);
    }
  });
});

/** The API server's own word on what an account may do, one line a rule, in order. */
async function rulesOf(kube: Kube, account: string): Promise<string[]> {
  await kube.namespace(NAMESPACE, account);
  const api = await kube.as({ token: await kube.token(NAMESPACE, account) });
  const body = {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectRulesReview',
    spec: { namespace: NAMESPACE },
  };
  const { status } = await api.request<KubeObject>(
    'POST',
    '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews',
    { body },
  );
  return [...status.resourceRules, ...status.nonResourceRules]
    .map(
      ({
        verbs,
        apiGroups = [],
        resources = [],
        resourceNames = [],
        nonResourceURLs = [],
      }: KubeObject) => {
        const names = resourceNames.length === 0 ? '' : `[${resourceNames}]`;
        return `${apiGroups}/${resources}${nonResourceURLs}${names} ${[...verbs].sort()}`;
      },
    )
    .sort();
}

/** Whatever in a manifest makes pods. */
function templates(): { kind: string; name: string; template: KubeObject }[] {
  if (peerPath('kustomize') === undefined)
    return [{ kind: 'no', name: 'kustomize', template: undefined }];
  const found = deployable().flatMap((folder) => objectsIn(kustomize(folder)));
  const made = found.filter(({ spec }) => spec?.template?.spec?.containers);
  return [
    ...new Map(
      made.map(({ kind, metadata: { name }, spec: { template } }) => [
        name,
        { kind, name, template },
      ]),
    ).values(),
  ];
}

const containerOf = (name: string): KubeObject =>
  templates().find((each) => each.name === name)!.template.spec.containers[0];

/** `Kind name` of what an object refers to. */
function namedBy({ kind, spec, roleRef, subjects = [] }: KubeObject): string[] {
  const pod = spec?.template?.spec;
  return [
    ...(roleRef ? [`${roleRef.kind} ${roleRef.name}`] : []),
    ...subjects
      .filter((each: KubeObject) => each.kind === 'ServiceAccount')
      .map((each: KubeObject) => `ServiceAccount ${each.name}`),
    ...(pod?.serviceAccountName ? [`ServiceAccount ${pod.serviceAccountName}`] : []),
    ...(pod?.volumes ?? []).flatMap(({ secret, configMap }: KubeObject) => [
      ...(secret ? [`Secret ${secret.secretName}`] : []),
      ...(configMap ? [`ConfigMap ${configMap.name}`] : []),
    ]),
    ...(kind === 'StatefulSet' ? [`Service ${spec.serviceName}`] : []),
  ];
}
