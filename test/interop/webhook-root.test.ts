import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { createMetrics } from '../../agent/admin/metrics';
import { parseRootBundle } from '../../agent/identity/certificate';
import { startWebhookService, type WebhookService } from '../../agent/services/webhook-service';
import { SINCE } from '../../agent/webhook/root-secret';
import { deployPath } from '../support/deploy';
import { fetchText } from '../support/fetch-text';
import { type Kube, type KubeObject, startKube } from '../support/kube';
import { describeWith } from '../support/peers';
import { type LogEvent, testDeps } from '../support/test-deps';
import { until } from '../support/until';

const NAMESPACE = 'keyturn';
const SECRET = `/api/v1/namespaces/${NAMESPACE}/secrets/keyturn-webhook-root`;
const CONFIGURATION =
  '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/keyturn-webhook';
const LONG_AGO = '2000-01-01T00:00:00Z';

describeWith('kube')('the root of the webhook', () => {
  let kube: Kube;
  let kubeconfig: string;
  const running: WebhookService[] = [];

  beforeAll(async () => {
    kube = await startKube();
    for (const each of ['namespace/namespace.yaml', 'webhook/rbac.yaml', 'webhook/root.yaml'])
      await kube.apply(readFileSync(deployPath(each), 'utf8'));
    for (const name of ['shop', 'bank']) await kube.namespace(name, 'cart');
    await kube.api.request('PATCH', '/api/v1/namespaces/shop', {
      body: { metadata: { labels: { 'keyturn.dev/inject': 'true' } } },
    });
    kubeconfig = kube.writeKubeconfig({ token: await kube.token(NAMESPACE, 'keyturn-webhook') });
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((each) => each.close()));
  });
  afterAll(() => kube?.stop());

  /** A replica in this process, with the rights of the manifest. It labels pods, so that a test sees whether it was asked. */
  async function startReplica(name: string) {
    const deps = { ...testDeps(), metrics: createMetrics() };
    const service = await startWebhookService(
      {
        listen: '127.0.0.1:0',
        adminAddress: '127.0.0.1:0',
        serverNames: undefined,
        namespace: NAMESPACE,
        secret: 'keyturn-webhook-root',
        configuration: 'keyturn-webhook',
        kubeconfig,
        inject: () => ({
          kind: 'injected',
          after: {},
          changes: [{ kind: 'add', path: ['metadata', 'labels', 'by'], value: name }],
          notes: [],
        }),
      },
      {},
      deps,
    );
    running.push(service);
    const ready = async () =>
      (await fetchText(`http://${service.adminAddress}/healthz/ready`)).body.trim();
    return {
      ...service,
      ready,
      events: (deps as unknown as { events: LogEvent[] }).events,
      becomesReady: () => until('the webhook', async () => (await ready()) === 'ready'),
    };
  }

  /** The configuration of the manifest, with each of its two webhooks at a replica: there is no network of services here. */
  async function configure(...replicas: readonly WebhookService[]) {
    const [configuration] = parseAllDocuments(
      readFileSync(deployPath('webhook/configuration.yaml'), 'utf8'),
    );
    const object = configuration!.toJS();
    object.webhooks.forEach((webhook: KubeObject, index: number) => {
      webhook.clientConfig = {
        url: `https://${replicas[index % replicas.length]!.address}/inject`,
      };
    });
    await kube.apply(JSON.stringify(object));
  }

  let pods = 0;
  /** Makes a pod that is injected for its namespace, then one that is for its own label. Resolves to who was asked. */
  async function makePods(): Promise<(string | undefined)[]> {
    const asked: (string | undefined)[] = [];
    for (const [namespace, labels] of [
      ['shop', {}],
      ['bank', { 'keyturn.dev/inject': 'true' }],
    ] as const) {
      pods += 1;
      const metadata = { name: `pod-${pods}`, labels: { app: 'x', ...labels } };
      const body = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata,
        spec: { serviceAccountName: 'cart', containers: [{ name: 'main', image: 'none' }] },
      };
      const made = await kube.api.request<KubeObject>(
        'POST',
        `/api/v1/namespaces/${namespace}/pods`,
        { body },
      );
      asked.push(made.metadata.labels.by);
    }
    return asked;
  }

  const secret = () => kube.api.request<KubeObject>('GET', SECRET);
  const rootsTold = async () => {
    const { webhooks } = await kube.api.request<KubeObject>('GET', CONFIGURATION);
    const bundles: string[] = webhooks.map(({ clientConfig }: KubeObject) => clientConfig.caBundle);
    expect(new Set(bundles).size).toBe(1);
    return parseRootBundle(Buffer.from(bundles[0]!, 'base64'), 'caBundle').bundle.rootsDer.length;
  };

  test('replicas that start at once share one; it is exchanged under a stream of pods, and each of them is injected', async () => {
    const replicas = await Promise.all([startReplica('a'), startReplica('b')]);
    await configure(...replicas);
    for (const each of replicas) await each.becomesReady();
    expect(await rootsTold()).toBe(1);
    expect(await makePods()).toEqual(['a', 'b']);

    let over = false;
    let made = 0;
    const stream = (async () => {
      while (!over) {
        expect(await makePods()).toEqual(['a', 'b']);
        made += 2;
      }
    })();
    const first = (await secret()).data['ca-cert.pem'];
    for (const [signers, roots] of [
      [0, 2],
      [1, 2],
      [1, 1],
    ] as const) {
      const before = (await secret()).metadata.annotations[SINCE];
      await kube.api.request('PATCH', SECRET, {
        body: { metadata: { annotations: { [SINCE]: LONG_AGO } } },
      });
      await until(
        'the next stage',
        async () => ![LONG_AGO, before].includes((await secret()).metadata.annotations[SINCE]),
      );
      expect((await secret()).data['ca-cert.pem'] === first).toBe(signers === 0);
      if (roots === 2)
        await until('the API server to be told', async () => (await rootsTold()) === 2);
      // Both replicas show what is signed by the new root for a while.
      const from = made;
      await until('pods of that stage', async () => made > from + 20);
    }
    over = true;
    await stream;
    expect(made).toBeGreaterThan(60);
    const troubles = replicas.flatMap(({ events }) =>
      events.filter(({ level }) => level === 'warn' || level === 'error'),
    );
    expect(troubles).toEqual([]);
  });

  test('a root that is replaced at one stroke costs no pod either: the API server knows the new one before it is shown', async () => {
    const replicas = await Promise.all([startReplica('a'), startReplica('b')]);
    await configure(...replicas);
    for (const each of replicas) await each.becomesReady();
    const before = await secret();
    const data = Object.fromEntries(Object.keys(before.data).map((key) => [key, null]));
    await kube.api.request('PATCH', SECRET, { body: { data } });
    const changed = replicas.map(
      ({ events }) =>
        () =>
          events.some(({ event }) => event === 'webhook root changed'),
    );
    let made = 0;
    for (
      const end = Date.now() + 20_000;
      !changed.every((each) => each()) && Date.now() < end;
      made += 2
    ) {
      expect(await makePods()).toEqual(['a', 'b']);
    }
    expect((await secret()).data['ca-cert.pem']).not.toBe(before.data['ca-cert.pem']);
    expect(made).toBeGreaterThan(20);
    for (let again = 0; again < 20; again += 1) expect(await makePods()).toEqual(['a', 'b']);
    // A replica that comes later has no reason to keep the old one.
    await startReplica('c');
    await until('the old root to be forgotten', async () => (await rootsTold()) === 1);
    expect(await makePods()).toEqual(['a', 'b']);
  });

  test('whoever takes the roots out of the configuration finds them there again', async () => {
    const replica = await startReplica('a');
    await configure(replica);
    await replica.becomesReady();
    await kube.api.request('PATCH', CONFIGURATION, {
      body: [{ op: 'remove', path: '/webhooks/1/clientConfig/caBundle' }],
      contentType: 'application/json-patch+json',
    });
    await until('both to be told', async () => (await rootsTold().catch(() => 0)) === 1);
    expect(await makePods()).toEqual(['a', 'a']);
  });

  test('until configuration and Secret are there, it says what is missing; then it is ready by itself', async () => {
    await kube.api.request('DELETE', CONFIGURATION);
    await kube.api.request('DELETE', SECRET);
    const replica = await startReplica('a');
    await until(
      'a word of the Secret',
      async () =>
        (await replica.ready()) === 'read Secret keyturn/keyturn-webhook-root: it is not there',
    );
    await kube.apply(readFileSync(deployPath('webhook/root.yaml'), 'utf8'));
    await until('a word of the configuration', async () =>
      (await replica.ready()).startsWith(
        'read MutatingWebhookConfiguration keyturn-webhook: it is not there',
      ),
    );
    await configure(replica);
    await replica.becomesReady();
    expect(await makePods()).toEqual(['a', 'a']);
  });

  test('a Secret that somebody damaged is told of by its key, and what was in use stays in use', async () => {
    const replica = await startReplica('a');
    await configure(replica);
    await replica.becomesReady();
    const good = (await secret()).data;
    await kube.api.request('PATCH', SECRET, {
      body: { data: { 'ca-key.pem': Buffer.from('x').toString('base64') } },
    });
    await until('a word of the key', async () =>
      (await replica.ready()).startsWith('read Secret keyturn/keyturn-webhook-root: ca-key.pem: '),
    );
    expect(await makePods()).toEqual(['a', 'a']);
    await kube.api.request('PATCH', SECRET, {
      body: { data: { 'ca-key.pem': good['ca-key.pem'] } },
    });
    await replica.becomesReady();
  });
});
