import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { parseRootBundle } from '../../../agent/identity/certificate';
import { directEngine } from '../../../agent/identity/direct-engine';
import type { KubeApi } from '../../../agent/kube/kube-api';
import { kubeError } from '../../../agent/kube/kube-error';
import { RootReconciler } from '../../../agent/webhook/root-reconciler';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const DAY_MS = 24 * 3_600_000;

/** The two objects that a webhook may see, with versions as an API server counts them. */
class FakeCluster {
  secret = {
    metadata: { resourceVersion: '1', annotations: {} as Record<string, string> },
    data: {} as Record<string, string>,
  };
  configuration = {
    metadata: { resourceVersion: '1' },
    webhooks: [{ clientConfig: {} as { caBundle?: string } }],
  };
  away = false;
  /** Called before each change: somebody else may be faster. */
  meanwhile: () => void = () => undefined;
  changes = 0;

  readonly api: KubeApi = {
    server: 'https://kube',
    namespace: 'keyturn',
    credentialFiles: [],
    request: async <T>(method: string, path: string, { body }: { body?: unknown } = {}) => {
      if (this.away) throw kubeError(`${method} ${path}`, 503, {}, undefined);
      const object = path.includes('/secrets/') ? this.secret : this.configuration;
      if (method === 'PATCH') this.#change(object, body);
      return structuredClone(object) as T;
    },
    watch: (_path, _onEvent, signal) =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
    close: async () => undefined,
  };

  roots(): number {
    const { caBundle } = this.configuration.webhooks[0]!.clientConfig;
    return caBundle === undefined
      ? 0
      : parseRootBundle(Buffer.from(caBundle, 'base64'), 'x').bundle.rootsDer.length;
  }

  // biome-ignore lint/suspicious/noExplicitAny: as an API server takes it
  #change(object: FakeCluster['secret'] | FakeCluster['configuration'], body: any): void {
    this.meanwhile();
    const version = Array.isArray(body) ? body[0].value : body.metadata.resourceVersion;
    if (version !== object.metadata.resourceVersion)
      throw kubeError('PATCH', 409, { reason: 'Conflict' }, undefined);
    this.changes += 1;
    object.metadata.resourceVersion = String(Number(version) + 1);
    if (object === this.configuration) {
      this.configuration.webhooks[0]!.clientConfig.caBundle = body[1].value;
      return;
    }
    Object.assign(this.secret.metadata.annotations, body.metadata.annotations);
    for (const [key, value] of Object.entries<string | null>(body.data)) {
      if (value === null) delete this.secret.data[key];
      else this.secret.data[key] = value;
    }
  }
}

let cluster: FakeCluster;
let clock: TestClock;
let stop: AbortController;
let running: Promise<void>[];
beforeEach(() => {
  cluster = new FakeCluster();
  clock = new TestClock();
  stop = new AbortController();
  running = [];
});
afterEach(async () => {
  stop.abort();
  await Promise.all(running);
});

function startKeeper(): RootReconciler {
  const options = {
    api: cluster.api,
    engine: directEngine,
    namespace: 'keyturn',
    secret: 's',
    configuration: 'c',
    onAuthority: async () => undefined,
  };
  const keeper = new RootReconciler(options, testDeps({ clock }));
  running.push(keeper.run(stop.signal));
  return keeper;
}

const pass = (ms: number) => clock.advanceTo(clock.now() + ms);
/** Keys are made in threads, which no clock of ours waits for. */
const becomes = (what: string, look: () => boolean) => until(what, async () => look(), 5_000, 5);

test('in a year it has changed its root once, and nobody had to do anything', async () => {
  const keeper = startKeeper();
  await becomes('ready', () => keeper.problem() === undefined);
  const first = keeper.issuer()!.version;
  expect(cluster.roots()).toBe(1);
  await pass(183 * DAY_MS);
  await becomes('announced', () => cluster.roots() === 2);
  expect(keeper.issuer()!.version).toBe(first);
  await pass(DAY_MS + 3_600_000);
  await becomes('activated', () => keeper.issuer()!.version !== first);
  expect(cluster.roots()).toBe(2);
  await pass(2 * DAY_MS + 3_600_000);
  await becomes('retired', () => cluster.roots() === 1);
  expect(Object.keys(cluster.secret.data).sort()).toEqual([
    'ca-cert.pem',
    'ca-key.pem',
    'root-cert.pem',
  ]);
});

test('a replica that lost the race uses the root of the one that won', async () => {
  const [one, other] = [startKeeper(), startKeeper()];
  await becomes('ready', () => [one, other].every((each) => each.problem() === undefined));
  expect(one.issuer()!.version).toBe(other.issuer()!.version);
  expect(cluster.roots()).toBe(1);
});

test('what others change in the configuration meanwhile is not overwritten: it looks again', async () => {
  let times = 3;
  cluster.meanwhile = () => {
    if (times-- > 0)
      cluster.configuration.metadata.resourceVersion = String(
        Number(cluster.configuration.metadata.resourceVersion) + 1,
      );
  };
  const keeper = startKeeper();
  await becomes('ready', () => keeper.problem() === undefined);
  expect(times).toBeLessThan(0);
  expect(cluster.roots()).toBe(1);
});

test('while the API server is away it stays ready with what it has; it was not ready before it had asked', async () => {
  cluster.away = true;
  const keeper = startKeeper();
  await pass(60_000);
  expect(keeper.problem()?.message).toContain('503');
  cluster.away = false;
  await pass(60_000);
  await becomes('ready', () => keeper.problem() === undefined);
  cluster.away = true;
  await pass(2 * 3_600_000);
  expect(keeper.problem()).toBeUndefined();
});

test('a root that was replaced at one stroke is shown five seconds after it was told, and the last one is kept for five minutes', async () => {
  const keeper = startKeeper();
  await becomes('ready', () => keeper.problem() === undefined);
  const first = keeper.issuer()!.version;
  cluster.secret.data = {};
  await pass(3_600_000);
  await becomes('told', () => cluster.roots() === 2);
  expect(keeper.issuer()!.version).toBe(first);
  await pass(6_000);
  await becomes('shown', () => keeper.issuer()!.version !== first);
  expect(cluster.roots()).toBe(2);
  await pass(5 * 60_000);
  await becomes('forgotten', () => cluster.roots() === 1);
  const { changes } = cluster;
  await pass(DAY_MS);
  expect(cluster.changes).toBe(changes);
});
