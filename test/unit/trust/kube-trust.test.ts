import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { certificatesPem } from '../../../agent/identity/certificate';
import { createKubeApi } from '../../../agent/kube/kube-api';
import { loadKubeConfig } from '../../../agent/kube/kube-config';
import { WATCH_AGAIN_MS } from '../../../agent/kube/watch-object';
import { followKubeTrust } from '../../../agent/trust/kube-trust';
import { makeTestCa } from '../../support/certs';
import { startHttpsServer } from '../../support/https-server';
import { tempDir } from '../../support/temp-dir';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

type Answer = { readonly status: number; readonly body: object };
const NOT_SERVED: Answer = { status: 404, body: { reason: 'NotFound' } };
const bundles = (...pems: string[]): Answer => ({
  status: 200,
  body: {
    metadata: { resourceVersion: '5' },
    items: pems.map((trustBundle) => ({ spec: { trustBundle } })),
  },
});
const configMap = (data: object): Answer => ({
  status: 200,
  body: { metadata: { resourceVersion: '6' }, data },
});

/** A cluster that answers as told, and watches without an event. */
async function world(
  answers: { v1?: Answer; v1beta1?: Answer; configMap?: Answer; watch?: Answer },
  keptDir?: string,
) {
  const now = {
    v1: NOT_SERVED,
    v1beta1: NOT_SERVED,
    configMap: NOT_SERVED,
    watch: { status: 200, body: {} },
    ...answers,
  };
  const asked: string[] = [];
  const watches: ((type: string) => void)[] = [];
  const server = await startHttpsServer((request, response) => {
    const url = decodeURIComponent(request.url!);
    if (url.includes('watch=')) {
      asked.push(`watch ${/\/(configmaps|clustertrustbundles)/.exec(url)![1]}`);
      if (now.watch.status !== 200) {
        response.writeHead(now.watch.status).end(JSON.stringify(now.watch.body));
        return;
      }
      response.writeHead(200).flushHeaders();
      watches.push((type) => response.write(`${JSON.stringify({ type, object: {} })}\n`));
      return;
    }
    asked.push(url);
    const answer = url.includes('/v1/clustertrustbundles')
      ? now.v1
      : url.includes('/v1beta1/')
        ? now.v1beta1
        : now.configMap;
    response.writeHead(answer.status).end(JSON.stringify(answer.body));
  });
  const dir = tempDir();
  writeFileSync(join(dir, 'ca.crt'), server.caPem);
  const kubeconfig = join(dir, 'kubeconfig');
  const named = (key: string, value: object) => [{ name: 'x', [key]: value }];
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      'current-context': 'x',
      contexts: named('context', { cluster: 'x', user: 'x' }),
      clusters: named('cluster', { server: server.url, 'certificate-authority': 'ca.crt' }),
      users: named('user', { token: 'token' }),
    }),
  );
  const clock = new TestClock(Date.now());
  const deps = testDeps({ clock, random: () => 0.5 });
  // Of another clock, so that the only waits on this one are those between requests.
  const api = createKubeApi(await loadKubeConfig({ kubeconfig, env: {} }, deps), testDeps());
  const anchors = followKubeTrust(
    api,
    { signerName: 'example.com/mesh', namespace: 'shop', keptDir },
    deps,
  );
  closers.push(
    server.close,
    () => api.close(),
    () => anchors.close(),
  );
  await anchors.ready;
  const change = (type = 'MODIFIED') => {
    // As if it came a while after the last look.
    void clock.advanceBy(WATCH_AGAIN_MS);
    for (const tell of watches) tell(type);
  };
  return { now, asked, anchors, deps, change, clock };
}

const pemOf = async (name: string) =>
  certificatesPem((await makeTestCa({ name })).bundle.rootsDer).toString();
const BAD = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

describe('the anchors of a signer', () => {
  test('are all of its ClusterTrustBundles together, of v1 where that is served', async () => {
    const { asked, anchors } = await world({
      v1: bundles(await pemOf('one'), await pemOf('two')),
      v1beta1: bundles(await pemOf('old')),
    });
    expect(anchors.trust.value?.rootsDer).toHaveLength(2);
    await until('the watch', async () => asked.includes('watch clustertrustbundles'));
    expect(asked).toEqual([
      '/apis/certificates.k8s.io/v1/clustertrustbundles?fieldSelector=spec.signerName=example.com/mesh',
      'watch clustertrustbundles',
    ]);
  });

  test('are those of v1beta1 where v1 is not served', async () => {
    const { anchors } = await world({
      v1beta1: bundles(await pemOf('one')),
      configMap: configMap({}),
    });
    expect(anchors.trust.value?.rootsDer).toHaveLength(1);
  });

  test.each([
    ['there is no bundle', bundles()],
    ['bundles are not for us', { status: 403, body: {} }],
    ['bundles are not served', NOT_SERVED],
  ])('come from the ConfigMap where %s', async (_, v1) => {
    const { asked, anchors } = await world({
      v1,
      configMap: configMap({ 'root-cert.pem': await pemOf('istio') }),
    });
    expect(anchors.trust.value?.rootsDer).toHaveLength(1);
    expect(asked).toContain('/api/v1/namespaces/shop/configmaps/istio-ca-root-cert');
    await until('the watch', async () => asked.includes('watch configmaps'));
  });

  test('move to a bundle when there is one, and stay when a change is bad', async () => {
    const { now, anchors, deps, change, asked } = await world({
      configMap: configMap({ 'root-cert.pem': await pemOf('istio') }),
    });
    const before = anchors.trust.value;
    now.v1 = bundles(await pemOf('mesh'));
    await until('the watch', async () => asked.includes('watch configmaps'));
    change();
    await until('the bundle', async () => anchors.trust.value !== before);
    const mesh = anchors.trust.value;
    now.v1 = bundles(BAD);
    await until('the watch', async () => asked.includes('watch clustertrustbundles'));
    change();
    const problem = await until('the complaint', async () => anchors.problem());
    expect(problem).toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      message: expect.stringContaining('ClusterTrustBundle of example.com/mesh'),
    });
    expect(anchors.trust.value).toBe(mesh);
    expect(deps.events.map(({ event }) => event)).toContain(
      'trust anchors invalid, keeping the previous ones',
    );
    now.v1 = bundles(BAD, await pemOf('mesh again'));
    anchors.refresh();
    await until('the good half', async () => anchors.trust.value !== mesh);
    expect(anchors.problem()).toBeUndefined();
    expect(deps.events.at(-1)!.event).toBe('trust anchors read');
    expect(deps.events.map(({ event }) => event)).toContain(
      'trust anchors have invalid roots, using the others',
    );
  });

  test('do not change by a bookmark', async () => {
    const { anchors, change, asked, now } = await world({ v1: bundles(await pemOf('one')) });
    const before = anchors.trust.value;
    await until('the watch', async () => asked.includes('watch clustertrustbundles'));
    now.v1 = bundles(await pemOf('two'));
    change('BOOKMARK');
    await settle(100);
    expect([anchors.trust.value, asked.length]).toEqual([before, 2]);
    change('MODIFIED');
    await until('the change', async () => anchors.trust.value !== before);
  });

  test.each<[string, Parameters<typeof world>[0]]>([
    ['API server fails', { v1: { status: 500, body: {} } }],
    ['watch is refused', { watch: { status: 403, body: { reason: 'Forbidden' } } }],
  ])(
    'whose %s are asked for after 1, 2, 4 ... 45 s, and the reason is logged once',
    async (_, answers) => {
      const { anchors, deps, clock, asked } = await world({
        v1: bundles(await pemOf('one')),
        ...answers,
      });
      const waits: number[] = [];
      while (waits.length < 8) {
        const wakeAt = await until('a wait', async () => clock.nextWakeAt());
        waits.push((wakeAt - clock.now()) / 1_000);
        const before = asked.length;
        await clock.advanceTo(wakeAt);
        await until('the next try', async () => asked.length > before);
      }
      expect(waits).toEqual([1, 2, 4, 8, 16, 32, 45, 45]);
      expect(anchors.problem()).toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
      expect(deps.events.filter(({ level }) => level === 'warn')).toHaveLength(1);
    },
  );

  test('are kept in a directory, for a start while the cluster does not answer', async () => {
    const dir = join(tempDir(), 'kept');
    const first = await world({ v1: bundles(await pemOf('one')) }, dir);
    await first.anchors.close();
    const { anchors } = await world({ v1: { status: 500, body: {} } }, dir);
    expect(anchors.trust.value).toEqual(first.anchors.trust.value);
    expect(anchors.problem()).toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
  });

  test.each([
    ['nothing anywhere', {}, '404'],
    [
      'a ConfigMap without the key',
      { configMap: configMap({ other: 'x' }) },
      'must have the key root-cert.pem',
    ],
    [
      'a ConfigMap without a root',
      { configMap: configMap({ 'root-cert.pem': 'nothing' }) },
      'must hold at least one PEM block',
    ],
    ['an API server that fails', { v1: { status: 500, body: {} } }, '500'],
  ])('are not known with %s, and the problem says what to publish', async (_, answers, message) => {
    const { anchors } = await world(answers);
    expect(anchors.trust.value).toBeUndefined();
    expect(anchors.problem()).toMatchObject({
      retry: 'soon',
      message: expect.stringContaining(message),
      hint: expect.stringContaining('istio-ca-root-cert'),
    });
  });
});
