import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { createKubeApi, type KubeApi } from '../../agent/kube/kube-api';
import { loadKubeConfig } from '../../agent/kube/kube-config';
import { isKubeStatus } from '../../agent/kube/kube-error';
import { type Peer, startPeer } from './peer-process';
import { tempDir } from './temp-dir';
import { testDeps } from './test-deps';
import { until } from './until';

/** Any object of the Kubernetes API, as far as tests look into it. */
// biome-ignore lint/suspicious/noExplicitAny: objects of every kind pass through here
export type KubeObject = any;

/** A real kube-apiserver with etcd and the certificate controllers, as a process of its own on loopback. */
export interface Kube extends Peer {
  readonly url: string;
  /** Of an administrator. */
  readonly kubeconfig: string;
  /** The root that the server is judged by, a file. */
  readonly caFile: string;
  /** The API as an administrator. */
  readonly api: KubeApi;
  /** Makes or changes every object of a YAML text, as `kubectl apply --server-side`; only asks whether it could with `--dry-run=server`. */
  apply(yaml: string, options?: { readonly dryRun?: boolean }): Promise<void>;
  /** Makes a namespace with service accounts in it. */
  namespace(name: string, ...serviceAccounts: string[]): Promise<void>;
  /** Makes a Pod that is scheduled but never runs. Resolves to its uid. */
  pod(namespace: string, name: string, serviceAccount: string): Promise<string>;
  /** A new token of a service account. */
  token(namespace: string, serviceAccount: string, options?: TokenOptions): Promise<string>;
  /** A kubeconfig whose user is as given, e.g. `{ token }` or `{ tokenFile }`. Returns its path. */
  writeKubeconfig(user: object): string;
  /** The API as `user` may use it; ended by `stop`. */
  as(user: object): Promise<KubeApi>;
}

export interface TokenOptions {
  /** Default: the API's own. */
  readonly audiences?: readonly string[];
  readonly pod?: { readonly name: string; readonly uid: string };
  /** At least 600, default 3600. */
  readonly seconds?: number;
}

/**
 * About three seconds and 290 MB: one a test file. A directory and a port that one had before bring it back with all that it knew.
 * Without the program it throws, so guard tests with `describeWith('kube')`.
 */
export async function startKube({
  dir = tempDir(),
  port = 0,
}: {
  readonly dir?: string;
  readonly port?: number;
} = {}): Promise<Kube> {
  const peer = startPeer('kube', ['--dir', dir, '--port', String(port), '--while-stdin']);
  const ready = join(dir, 'ready');
  const url = await until(
    'kube-apiserver',
    async () => peer.running() && existsSync(ready) && readFileSync(ready, 'utf8'),
    60_000,
  );
  const [kubeconfig, caFile] = [join(dir, 'kubeconfig'), join(dir, 'ca.crt')];
  const apis: KubeApi[] = [];
  const open = async (path: string) => {
    const deps = testDeps();
    const api = createKubeApi(await loadKubeConfig({ kubeconfig: path, env: {} }, deps), deps);
    apis.push(api);
    return api;
  };
  const api = await open(kubeconfig);
  const writeKubeconfig = (user: object) => {
    const path = join(tempDir(), 'kubeconfig');
    const cluster = { server: url, 'certificate-authority': caFile };
    writeFileSync(
      path,
      JSON.stringify({
        'current-context': 'x',
        contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
        clusters: [{ name: 'x', cluster }],
        users: [{ name: 'x', user }],
      }),
    );
    return path;
  };
  return {
    ...peer,
    url,
    kubeconfig,
    caFile,
    api,
    apply: async (yaml, { dryRun = false } = {}) => {
      for (const document of parseAllDocuments(yaml))
        await applyObject(api, document.toJS(), dryRun);
    },
    namespace: async (name, ...serviceAccounts) => {
      await applyObject(api, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
      for (const account of serviceAccounts) {
        await applyObject(api, {
          apiVersion: 'v1',
          kind: 'ServiceAccount',
          metadata: { name: account, namespace: name },
        });
      }
    },
    pod: async (namespace, name, serviceAccountName) => {
      const spec = {
        serviceAccountName,
        nodeName: 'node-1',
        containers: [{ name: 'main', image: 'none' }],
      };
      const body = { apiVersion: 'v1', kind: 'Pod', metadata: { name }, spec };
      return (
        await api.request<KubeObject>('POST', `/api/v1/namespaces/${namespace}/pods`, { body })
      ).metadata.uid;
    },
    token: async (namespace, serviceAccount, options = {}) => {
      const { audiences = [], pod, seconds = 3_600 } = options;
      const boundObjectRef = pod && { apiVersion: 'v1', kind: 'Pod', ...pod };
      const body = {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: { audiences, expirationSeconds: seconds, boundObjectRef },
      };
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${serviceAccount}/token`;
      return (await api.request<KubeObject>('POST', path, { body })).status.token;
    },
    writeKubeconfig,
    as: (user) => open(writeKubeconfig(user)),
    stop: async () => {
      await Promise.all(apis.map((each) => each.close()));
      await peer.stop();
    },
  };
}

/** Names in paths of kinds that do not simply take an `s`, and of those that belong to no namespace. */
const PLURALS: Readonly<Record<string, string>> = {
  Ingress: 'ingresses',
  NetworkPolicy: 'networkpolicies',
};
const CLUSTER_WIDE = [
  'Namespace',
  'ClusterRole',
  'ClusterRoleBinding',
  'ClusterIssuer',
  'ClusterTrustBundle',
  'CustomResourceDefinition',
  'MutatingWebhookConfiguration',
];

async function applyObject(api: KubeApi, object: KubeObject, dryRun = false): Promise<void> {
  if (object === null) return;
  const { apiVersion, kind, metadata } = object;
  const plural = PLURALS[kind] ?? `${kind.toLowerCase()}s`;
  const scope = CLUSTER_WIDE.includes(kind) ? '' : `/namespaces/${metadata.namespace ?? 'default'}`;
  const path = `/${apiVersion.includes('/') ? 'apis' : 'api'}/${apiVersion}${scope}/${plural}/${encodeURIComponent(metadata.name)}`;
  const apply = () =>
    api.request('PATCH', `${path}?fieldManager=test&force=true${dryRun ? '&dryRun=All' : ''}`, {
      body: object,
      contentType: 'application/apply-patch+yaml',
    });
  // A resource that was only just defined is served a moment later.
  await until(`${kind} ${metadata.name}`, () =>
    apply().catch((caught) => (isKubeStatus(caught, 404) ? undefined : Promise.reject(caught))),
  );
}
