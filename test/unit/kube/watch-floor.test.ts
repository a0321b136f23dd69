import { afterEach, describe, expect, test } from '@jest/globals';
import { Approver } from '../../../agent/approver/approver';
import { openKubeStore } from '../../../agent/authority/store/kube-store';
import type { Deps } from '../../../agent/base/deps';
import { certificatesPem } from '../../../agent/identity/certificate';
import type { KubeApi } from '../../../agent/kube/kube-api';
import { WATCH_AGAIN_MS, watchObject } from '../../../agent/kube/watch-object';
import { followKubeTrust } from '../../../agent/trust/kube-trust';
import { makeTestCa, TEST_NOW } from '../../support/certs';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** How a proxy between us and the API server may treat each watch, and what comes of it. */
const PROXIES: readonly (readonly [string, (onEvent: (event: unknown) => void) => void])[] = [
  ['ends each at once', () => undefined],
  [
    'repeats an event in each and ends it',
    (onEvent) =>
      onEvent({ type: 'DELETED', object: { metadata: { uid: 'a', name: 'a' }, spec: {} } }),
  ],
];

type Follower = (api: KubeApi, deps: Deps, signal: AbortSignal) => Promise<void> | void;

/** Everything that watches the Kubernetes API. */
const FOLLOWERS: readonly (readonly [string, Follower])[] = [
  [
    'an object that is watched',
    (api, deps, signal) =>
      watchObject(api, '/api/v1/namespaces/a/secrets', 'b', () => undefined, deps, signal),
  ],
  [
    'revocations in a ConfigMap',
    async (api, deps, signal) => {
      const store = await openKubeStore(api, 'a', deps);
      store.onRevocation(() => undefined);
      signal.addEventListener('abort', () => void store.close());
    },
  ],
  [
    'trust anchors of a signer',
    (api, deps, signal) => {
      const trust = followKubeTrust(
        api,
        { signerName: 'example.com/mesh', namespace: 'a', keptDir: undefined },
        deps,
      );
      signal.addEventListener('abort', () => void trust.close());
    },
  ],
  [
    'the approver',
    (api, deps, signal) =>
      new Approver(
        {
          api,
          signerName: 'example.com/mesh',
          trustDomain: 'example.org',
          allowedAnnotations: [],
          allowedLabels: [],
        } as never,
        deps,
      ).run(signal),
  ],
];

describe.each(PROXIES)('behind a proxy that %s', (_, proxy) => {
  test.each(FOLLOWERS)('%s: a watch begins twice a second at most', async (_name, follow) => {
    const clock = new TestClock(TEST_NOW);
    const deps = testDeps({ clock });
    const pem = certificatesPem((await makeTestCa()).bundle.rootsDer).toString();
    let watches = 0;
    const api = {
      server: 'https://127.0.0.1',
      request: async (_method: string, path: string) => ({
        metadata: { name: 'x', uid: 'u', resourceVersion: '1' },
        items: path.includes('clustertrustbundles') ? [{ spec: { trustBundle: pem } }] : [],
        data: { 'crl-number': '0', 'root-cert.pem': pem },
      }),
      watch: async (
        _path: string,
        onEvent: (event: unknown) => void,
        signal: AbortSignal,
        onOpen?: () => void,
      ) => {
        signal.throwIfAborted();
        watches += 1;
        // As a real one, in a turn of its own; a loop without a floor would take all of them.
        await settle(1);
        onOpen?.();
        proxy(onEvent);
      },
    } as unknown as KubeApi;
    const stop = new AbortController();
    closers.push(() => stop.abort());
    void follow(api, deps, stop.signal);
    await settle(200);
    expect(watches).toBe(1);
    await clock.advanceBy(WATCH_AGAIN_MS);
    await settle(200);
    expect(watches).toBe(2);
  });
});
