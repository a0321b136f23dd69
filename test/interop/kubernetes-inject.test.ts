import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { injectPod } from '../../agent/inject/inject-pod';
import type { InjectOptions } from '../../agent/inject/options';
import { keyturn } from '../support/command-line';
import { ENVOY_BESIDE, injectOptions } from '../support/inject';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

/** A container of the `restricted` standard, so that what is refused is ours. */
const APP = `
      - name: app
        image: example.org/app:1
        securityContext:
          runAsNonRoot: true
          runAsUser: 1000
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
          seccompProfile: {type: RuntimeDefault}`;
const template = (labels: string, more = '') => `
    metadata: {labels: ${labels}}
    spec:
      serviceAccountName: cart${more}
      containers:${APP}`;
const SELECTED = 'selector: {matchLabels: {app: x}}';
const workload = (apiVersion: string, kind: string, spec: string) =>
  `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: ${kind.toLowerCase()}, namespace: shop}\nspec:\n${spec}`;
const indented = (text: string) => text.replace(/\n/g, '\n    ');

const MANIFEST = [
  workload('apps/v1', 'Deployment', `  ${SELECTED}\n  template:${template('{app: x}')}`),
  workload(
    'apps/v1',
    'StatefulSet',
    `  serviceName: x\n  ${SELECTED}\n  template:${template('{app: x}')}`,
  ),
  workload('apps/v1', 'DaemonSet', `  ${SELECTED}\n  template:${template('{app: x}')}`),
  workload('apps/v1', 'ReplicaSet', `  ${SELECTED}\n  template:${template('{app: x}')}`),
  workload('batch/v1', 'Job', `  template:${template('{job: x}', '\n      restartPolicy: Never')}`),
  workload(
    'batch/v1',
    'CronJob',
    `  schedule: "0 0 * * *"\n  jobTemplate:\n    spec:\n      template:${indented(template('{job: x}', '\n      restartPolicy: OnFailure'))}`,
  ),
  `apiVersion: v1\nkind: Pod\nmetadata: {name: pod, namespace: shop}\nspec:\n      serviceAccountName: cart\n      containers:${APP}`,
  'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: shop}\ndata: {a: b}',
].join('\n---\n');

const PLURALS: Readonly<Record<string, string>> = {
  Deployment: 'apis/apps/v1/namespaces/shop/deployments',
  StatefulSet: 'apis/apps/v1/namespaces/shop/statefulsets',
  DaemonSet: 'apis/apps/v1/namespaces/shop/daemonsets',
  ReplicaSet: 'apis/apps/v1/namespaces/shop/replicasets',
  Job: 'apis/batch/v1/namespaces/shop/jobs',
  CronJob: 'apis/batch/v1/namespaces/shop/cronjobs',
  Pod: 'api/v1/namespaces/shop/pods',
  ConfigMap: 'api/v1/namespaces/shop/configmaps',
};

/** What makes pods of this object, or the pod itself. */
const podOf = (object: KubeObject) =>
  object.spec.jobTemplate?.spec.template ?? object.spec.template ?? object;

describeWith('kube')('an injected manifest', () => {
  let kube: Kube;

  beforeAll(async () => {
    kube = await startKube();
    for (const name of ['shop', 'lax']) await kube.namespace(name, 'cart');
    await kube.apply(
      '{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}}',
    );
  });
  afterAll(() => kube?.stop());

  async function injected(...flags: string[]): Promise<KubeObject[]> {
    const { code, stdout, stderr } = await keyturn(['inject', '-f', '-', ...flags], {
      cwd: tempDir(),
      stdin: MANIFEST,
    });
    if (code !== 0) throw new Error(stderr);
    return parseAllDocuments(stdout).map((document) => document.toJS());
  }

  /** By server-side apply, with every field known. */
  function apply(object: KubeObject, query = ''): Promise<KubeObject> {
    const path = `/${PLURALS[object.kind]}/${object.metadata.name}?fieldManager=test&force=true&fieldValidation=Strict${query}`;
    return kube.api.request('PATCH', path, {
      body: object,
      contentType: 'application/apply-patch+yaml',
    });
  }

  function create(pod: KubeObject, namespace = 'shop'): Promise<KubeObject> {
    const body = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...pod.metadata, name: undefined, namespace, generateName: 'made-' },
      spec: pod.spec,
    };
    return kube.api.request('POST', `/api/v1/namespaces/${namespace}/pods?fieldValidation=Strict`, {
      body,
    });
  }

  test('of every kind is taken by the API server, dry and for real, and its pods are as they were meant', async () => {
    const objects = await injected();
    for (const object of objects) {
      await apply(object, '&dryRun=All');
      const stored = await apply(object);
      if (object.kind === 'ConfigMap') continue;
      const { metadata, spec } = podOf(stored);
      expect(metadata.annotations).toEqual({ 'keyturn.dev/injected': 'true' });
      expect(spec.initContainers[0]).toMatchObject({ name: 'keyturn', restartPolicy: 'Always' });
      expect(spec.volumes.map(({ name }: KubeObject) => name)).toEqual(
        expect.arrayContaining(['keyturn-socket', 'keyturn-run', 'keyturn-token', 'keyturn-root']),
      );
    }
  });

  test.each<[string, string[], Partial<InjectOptions>]>([
    ['a native sidecar', [], {}],
    ['an Envoy beside it', ['--envoy', 'envoyproxy/envoy:v1.36.0'], { envoy: ENVOY_BESIDE }],
    ['an Envoy that was there', ['--join', 'app'], { envoy: { kind: 'join', container: 'app' } }],
    [
      'a signer of the Kubernetes API',
      ['--ca', 'kubernetes-csr', '--signer-name', 'example.org/mesh', '--root-configmap', 'roots'],
      { cas: ['kubernetes-csr'], rootConfigMap: 'roots' },
    ],
  ])('makes pods that Pod Security restricted accepts: %s', async (_, flags, choice) => {
    for (const object of await injected(...flags)) {
      if (object.kind === 'ConfigMap') continue;
      const stored = await create(podOf(object));
      const [agent] = stored.spec.initContainers;
      expect(agent).toMatchObject({
        name: 'keyturn',
        restartPolicy: 'Always',
        startupProbe: { httpGet: { path: '/healthz/ready' } },
      });
      // What the server has filled in is not taken out again.
      const { image, args } = agent;
      const settings = Object.fromEntries(
        args.slice(1).map((arg: string) => arg.slice(2).split(/=(.*)/s, 2)),
      );
      const options = injectOptions({ image, settings, ...choice });
      const again = injectPod(stored, options);
      const changes =
        again.kind === 'injected'
          ? again.changes.filter(({ path }) => !path.includes('args') && !path.includes('image'))
          : again;
      expect(changes).toEqual([]);
    }
  });

  test('makes such pods with a plain container too, where they do not end', async () => {
    const lasting = (await injected()).filter(({ kind }) => kind === 'Deployment');
    const { stdout } = await keyturn(['inject', '-f', '-', '--plain'], {
      cwd: tempDir(),
      stdin: JSON.stringify(lasting[0]),
    });
    const stored = await create(podOf(JSON.parse(stdout)));
    expect(stored.spec.containers.map(({ name }: KubeObject) => name)).toEqual(['app', 'keyturn']);
    expect(stored.spec.initContainers).toBeUndefined();
  });

  test('would be refused there for one of the fields that ours set', async () => {
    const pod = podOf((await injected()).find(({ kind }) => kind === 'Deployment'));
    pod.spec.initContainers[0].securityContext.allowPrivilegeEscalation = true;
    await expect(create(pod)).rejects.toThrow(/restricted/);
    await create(pod, 'lax');
  });
});
