import { join } from 'node:path';
import { publishDir } from '../base/atomic-dir';
import { backoffMs, DEFAULT_BACKOFF, FailureRun } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError, errorText } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { type Watched, WatchedSource } from '../base/watched';
import { certificatesPem, parseRootBundle, rootWarnings } from '../identity/certificate';
import type { TrustBundle } from '../identity/trust-bundle';
import type { KubeApi } from '../kube/kube-api';
import { isKubeStatus } from '../kube/kube-error';
import { fieldSelector, kubePath } from '../kube/kube-path';
import { WATCH_AGAIN_MS } from '../kube/watch-object';

export interface KubeTrustOptions {
  readonly signerName: string;
  /** Where ConfigMap `istio-ca-root-cert` is looked for. */
  readonly namespace: string;
  /** The trust domains whose roots may be among the anchors; undefined takes any. */
  readonly domains?: ReadonlySet<string> | undefined;
  /** Directory in which the anchors are kept for a start while the cluster does not answer; undefined keeps none. */
  readonly keptDir: string | undefined;
}

/** The trust anchors that the cluster publishes for a signer, as they change. */
export interface KubeTrust {
  /** Undefined until some were found. Never taken back: what cannot be read leaves the last good ones. */
  readonly trust: Watched<TrustBundle | undefined>;
  /** Resolves when the cluster has been asked for the first time, whatever it said. */
  readonly ready: Promise<void>;
  /** Why the anchors in the cluster as they stand are not in use. */
  problem(): AgentError | undefined;
  /** Asks again now, where it waits after a failure. */
  refresh(): void;
  close(): Promise<void>;
}

const CONFIG_MAP = 'istio-ca-root-cert';
const CONFIG_MAP_KEY = 'root-cert.pem';
/** v1 since Kubernetes 1.37, v1beta1 from 1.33 (off by default) to 1.39. */
const BUNDLE_VERSIONS = ['v1', 'v1beta1'];

/** What was found, and what to watch for changes of it. */
interface Found {
  /** For people, e.g. `ClusterTrustBundle of example.com/mesh`. */
  readonly source: string;
  readonly pem: string;
  readonly watchPath: string;
}

interface List<T> {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: readonly T[];
}

/**
 * Follows the ClusterTrustBundles of a signer, or where there are none the ConfigMap that istiod or istio-csr writes into every namespace.
 * The CSR API itself never returns trust anchors. A change is seen by a watch at once, and in any case within four minutes.
 */
export function followKubeTrust(api: KubeApi, options: KubeTrustOptions, deps: Deps): KubeTrust {
  const trust = new WatchedSource<TrustBundle | undefined>(undefined);
  const stop = new AbortController();
  let problem: AgentError | undefined;
  let skippedTold = '';
  let problemTold = '';
  let saving = Promise.resolve();
  const failures = new FailureRun();
  let wake = new AbortController();
  let firstLook = () => {};
  const ready = new Promise<void>((done) => {
    firstLook = done;
  });

  const take = ({ source, pem }: Found) => {
    const { bundle, skipped } = parseRootBundle(Buffer.from(pem), source, options.domains);
    if (skipped.length > 0 && skippedTold !== skipped.join())
      deps.log.warn('trust anchors have invalid roots, using the others', {
        source,
        skipped,
      });
    skippedTold = skipped.join();
    problem = undefined;
    if (bundle.version === trust.value?.version) return;
    deps.log.info('trust anchors read', { source, roots: bundle.rootsDer.length });
    for (const warning of rootWarnings(bundle))
      deps.log.warn('trust anchors have roots with warnings', { source, warning });
    trust.set(bundle);
    saving = saving.then(() => keep(options, bundle, deps));
  };
  const refused = (caught: AgentError) => {
    problem = new AgentError(
      'ERR_CA_UNAVAILABLE',
      `read trust anchors of ${options.signerName}: ${errorText(caught)}`,
      {
        retry: 'soon',
        cause: caught,
        hint: caught.hint ?? publishHint(options),
      },
    );
    if (problemTold !== problem.message) {
      deps.log.warn(
        trust.value ? 'trust anchors invalid, keeping the previous ones' : 'no trust anchors yet',
        { cause: problem },
      );
    }
    problemTold = problem.message;
  };
  const follow = async () => {
    const kept = await loadKept(options, deps);
    // Until the cluster has spoken; what it says replaces them, whatever they were.
    if (kept) trust.set(kept);
    while (!stop.signal.aborted) {
      // However soon a watch ends, and with whatever: a change is read at once, the one behind it when this has passed.
      let lookAgainAt = deps.clock.now() + WATCH_AGAIN_MS;
      try {
        const found = await find(api, options, stop.signal);
        take(found);
        firstLook();
        if (!(await isChanged(api, found.watchPath, stop.signal)))
          lookAgainAt = deps.clock.now() + WATCH_AGAIN_MS;
        // Not before the watch has worked: where it never does, waits grow and the reason is logged once.
        failures.end();
        problemTold = '';
      } catch (caught) {
        if (stop.signal.aborted) return;
        const error = AgentError.from(caught);
        // A watch that began too long ago says nothing of the anchors.
        if (!isKubeStatus(caught, 410)) refused(error);
        const waitMs = backoffMs(failures.failed(error), DEFAULT_BACKOFF, deps.random);
        lookAgainAt = deps.clock.now() + Math.max(waitMs, error.retryAfterMs ?? 0);
      } finally {
        firstLook();
      }
      wake = new AbortController();
      if (!stop.signal.aborted)
        await deps.clock.sleepUntil(lookAgainAt, wake.signal).catch(() => undefined);
    }
  };
  const following = follow();
  return {
    trust,
    ready,
    problem: () => problem,
    refresh: () => {
      failures.end();
      wake.abort();
    },
    async close() {
      stop.abort();
      wake.abort();
      await following;
      await saving;
    },
  };
}

const publishHint = ({ namespace }: KubeTrustOptions) =>
  `publish a ClusterTrustBundle of the signer or ConfigMap ${CONFIG_MAP} in namespace ${namespace}, or name a file with --trust-bundle`;

const KEPT_FILE = 'root-cert.pem';

async function loadKept(
  { keptDir, domains }: KubeTrustOptions,
  deps: Deps,
): Promise<TrustBundle | undefined> {
  if (keptDir === undefined) return undefined;
  const file = join(keptDir, KEPT_FILE);
  const pem = await readSmallFile(file, { field: file, code: 'ERR_PARSE' }).catch(() => undefined);
  if (!pem) return undefined;
  try {
    return parseRootBundle(pem, file, domains).bundle;
  } catch (cause) {
    deps.log.warn('stored trust anchors discarded', { file, cause });
    return undefined;
  }
}

async function keep({ keptDir }: KubeTrustOptions, bundle: TrustBundle, deps: Deps): Promise<void> {
  if (keptDir === undefined) return;
  try {
    await publishDir(keptDir, [
      { name: KEPT_FILE, bytes: certificatesPem(bundle.rootsDer), mode: 0o600 },
    ]);
  } catch (cause) {
    deps.log.warn('storing trust anchors failed', { dir: keptDir, cause });
  }
}

async function find(
  api: KubeApi,
  { signerName, namespace }: KubeTrustOptions,
  signal: AbortSignal,
): Promise<Found> {
  return (
    (await findBundles(api, signerName, signal)) ?? (await findConfigMap(api, namespace, signal))
  );
}

async function findBundles(
  api: KubeApi,
  signerName: string,
  signal: AbortSignal,
): Promise<Found | undefined> {
  for (const version of BUNDLE_VERSIONS) {
    const path = `/apis/certificates.k8s.io/${version}/clustertrustbundles?${fieldSelector('spec.signerName', signerName)}`;
    try {
      const list = await api.request<List<{ readonly spec: { readonly trustBundle: string } }>>(
        'GET',
        path,
        { signal },
      );
      if (list.items.length === 0) return undefined;
      return {
        source: `ClusterTrustBundle of ${signerName}`,
        pem: list.items.map((item) => item.spec.trustBundle).join('\n'),
        watchPath: `${path}&resourceVersion=${list.metadata.resourceVersion}`,
      };
    } catch (caught) {
      // Not served in this version; or served, and not for us: every service account may read them unless somebody took that away.
      if (!isKubeStatus(caught, 404) && !isKubeStatus(caught, 403)) throw caught;
    }
  }
  return undefined;
}

async function findConfigMap(api: KubeApi, namespace: string, signal: AbortSignal): Promise<Found> {
  const source = `ConfigMap ${CONFIG_MAP} in namespace ${namespace}`;
  const maps = kubePath`/api/v1/namespaces/${namespace}/configmaps`;
  type ConfigMap = {
    readonly metadata: { readonly resourceVersion: string };
    readonly data?: Readonly<Record<string, string>>;
  };
  const map = await api.request<ConfigMap>('GET', `${maps}/${CONFIG_MAP}`, { signal });
  const pem = map.data?.[CONFIG_MAP_KEY];
  if (!pem)
    throw new AgentError('ERR_CA_UNAVAILABLE', `${source}: must have the key ${CONFIG_MAP_KEY}`, {
      retry: 'soon',
    });
  return {
    source,
    pem,
    watchPath: `${maps}?${fieldSelector('metadata.name', CONFIG_MAP)}&resourceVersion=${map.metadata.resourceVersion}`,
  };
}

/** Resolves with the first change, or to false when the server ends the watch. */
async function isChanged(api: KubeApi, watchPath: string, signal: AbortSignal): Promise<boolean> {
  const changed = new Error('changed');
  try {
    await api.watch(
      watchPath,
      ({ type }) => {
        if (type !== 'BOOKMARK') throw changed;
      },
      signal,
    );
    return false;
  } catch (caught) {
    if (caught === changed) return true;
    throw caught;
  }
}
