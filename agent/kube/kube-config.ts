import { dirname, join, resolve } from 'node:path';
import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { Secret } from '../base/secret';
import { KubeConfigSection } from './kube-config-section';
import { createPluginRunner, readExecPlugin } from './kube-exec';

export interface KubeConfigOptions {
  /** Path of a kubeconfig. Default: the one path in KUBECONFIG, else the pod's own service account. */
  readonly kubeconfig: string | undefined;
  /** e.g. `process.env`; also what an exec plugin runs with. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where kubelet mounts a pod's service account; default `/var/run/secrets/kubernetes.io/serviceaccount`. */
  readonly serviceAccountDir?: string;
}

/** Where the Kubernetes API is, and how we prove who we are. Nothing secret is held for longer than it is fresh. */
export interface KubeConfig {
  /** For messages, e.g. `kubeconfig /etc/keyturn/kubeconfig` or `in-cluster configuration`. */
  readonly origin: string;
  /** `https://host:port` and perhaps a path, without a slash at the end. */
  readonly server: string;
  /** The name that the server's certificate must carry, where it is not the host of `server`. */
  readonly serverName: string | undefined;
  /** The context's or the pod's namespace. */
  readonly namespace: string | undefined;
  /** What `credentials` reads: a change of these may turn a refusal into consent. */
  readonly files: readonly string[];
  /** Reads the files that are named, or runs the exec plugin unless its last answer is still good. `renew` runs it in any case. */
  credentials(renew: boolean, signal: AbortSignal): Promise<KubeCredentials>;
}

/** What one connection is made with. */
export interface KubeCredentials {
  /** Roots that the server is judged by; undefined leaves it to those of the runtime. */
  readonly caPem: Buffer | undefined;
  readonly token: Secret<string> | undefined;
  readonly client: { readonly certificatePem: Buffer; readonly keyPem: Secret<Buffer> } | undefined;
}

const SERVICE_ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';
const MAX_KUBECONFIG_BYTES = 1024 * 1024;
/** A kubeconfig of two hundred clusters has thirty thousand. */
const MAX_KUBECONFIG_TOKENS = 200_000;

/**
 * Finds the way to the Kubernetes API: `kubeconfig`, else KUBECONFIG, else the service account that kubelet mounted into this pod. The
 * kubeconfig in a person's home is not looked for: a daemon should not borrow what it was not given.
 *
 * @throws AgentError ERR_CONFIG naming the file and the key; also for `insecure-skip-tls-verify`, `as`, `proxy-url` and ways of
 *         authentication that Kubernetes has dropped.
 */
export async function loadKubeConfig(options: KubeConfigOptions, deps: Deps): Promise<KubeConfig> {
  const { kubeconfig, env, serviceAccountDir = SERVICE_ACCOUNT_DIR } = options;
  const path = kubeconfig ?? env.KUBECONFIG;
  if (path) return readKubeConfig(path, env, deps);
  if (env.KUBERNETES_SERVICE_HOST) return inCluster(env, serviceAccountDir);
  throw new AgentError(
    'ERR_CONFIG',
    'find the Kubernetes API: neither a kubeconfig nor a service account of a pod is here',
    {
      hint: 'name a kubeconfig with --kubeconfig or KUBECONFIG; a pod has KUBERNETES_SERVICE_HOST set by itself',
    },
  );
}

async function inCluster(env: KubeConfigOptions['env'], dir: string): Promise<KubeConfig> {
  const host = env.KUBERNETES_SERVICE_HOST!;
  const port = env.KUBERNETES_SERVICE_PORT || '443';
  const origin = 'in-cluster configuration';
  const read = (name: string) =>
    readSmallFile(join(dir, name), { field: `${origin}: ${name}`, code: 'ERR_TOKEN' });
  const namespace = await read('namespace').catch(() => undefined);
  return {
    origin,
    server: checkServer(
      `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
      `${origin}: KUBERNETES_SERVICE_HOST`,
    ),
    serverName: undefined,
    namespace: namespace?.toString('utf8').trim() || undefined,
    files: ['ca.crt', 'token'].map((name) => join(dir, name)),
    credentials: async () => ({
      caPem: await read('ca.crt'),
      token: tokenOf(await read('token'), `${origin}: token`),
      client: undefined,
    }),
  };
}

async function readKubeConfig(
  path: string,
  env: KubeConfigOptions['env'],
  deps: Deps,
): Promise<KubeConfig> {
  if (path.includes(':'))
    throw invalid('ERR_CONFIG', 'kubeconfig', `must be one file, not a list (${path})`);
  const name = `kubeconfig ${path}`;
  const bytes = await readSmallFile(path, {
    field: name,
    code: 'ERR_CONFIG',
    maxBytes: MAX_KUBECONFIG_BYTES,
  });
  const { readYaml } = await import('../base/yaml');
  const limits = {
    name,
    code: 'ERR_CONFIG',
    maxBytes: MAX_KUBECONFIG_BYTES,
    maxTokens: MAX_KUBECONFIG_TOKENS,
  } as const;
  const file = new KubeConfigSection(await readYaml(bytes, limits), name, dirname(resolve(path)));
  const contextName = file.text('current-context');
  if (contextName === undefined) throw file.refuse('current-context', 'must name a context');
  const context = file.named('contexts', contextName).section('context');
  const cluster = file.named('clusters', context.need('cluster')).section('cluster');
  const user = file.named('users', context.need('user')).section('user');
  refuseUnsafe(cluster, user);
  return {
    origin: name,
    server: checkServer(cluster.need('server'), `${cluster.name}: server`),
    serverName: cluster.text('tls-server-name'),
    namespace: context.text('namespace'),
    files: [
      cluster.path('certificate-authority'),
      ...['client-certificate', 'client-key', 'tokenFile'].map((key) => user.path(key)),
    ].filter((each) => each !== undefined),
    credentials: createCredentials(cluster, user, env, deps),
  };
}

function refuseUnsafe(cluster: KubeConfigSection, user: KubeConfigSection): void {
  if (cluster.value('insecure-skip-tls-verify') === true) {
    throw cluster.refuse(
      'insecure-skip-tls-verify',
      'must not be set: any server could receive the token',
    );
  }
  if (cluster.value('proxy-url')) throw cluster.refuse('proxy-url', 'is not supported');
  for (const key of [
    'as',
    'as-uid',
    'as-groups',
    'as-user-extra',
    'username',
    'password',
    'auth-provider',
  ]) {
    if (user.value(key))
      throw user.refuse(
        key,
        'is not supported; use a client certificate, a token, a token file or an exec plugin',
      );
  }
}

function createCredentials(
  cluster: KubeConfigSection,
  user: KubeConfigSection,
  env: KubeConfigOptions['env'],
  deps: Deps,
): KubeConfig['credentials'] {
  const caOf = cluster.bytes('certificate-authority');
  const certificateOf = user.bytes('client-certificate');
  const keyOf = user.bytes('client-key');
  if ((certificateOf === undefined) !== (keyOf === undefined)) {
    throw user.refuse('client-certificate', 'must come with client-key, and the other way round');
  }
  const tokenFile = user.path('tokenFile');
  const token = user.text('token');
  const exec = user.value('exec');
  const clusterInfo = {
    server: cluster.need('server'),
    'tls-server-name': cluster.text('tls-server-name'),
  };
  const plugin = exec ? readExecPlugin(user.section('exec'), clusterInfo) : undefined;
  const runPlugin = plugin && createPluginRunner(plugin, caOf, env, deps);
  return async (renew, signal) => {
    const base = { caPem: await caOf?.() };
    if (certificateOf && keyOf) {
      const client = { certificatePem: await certificateOf(), keyPem: new Secret(await keyOf()) };
      return { ...base, client, token: undefined };
    }
    if (tokenFile !== undefined) {
      const field = `${user.name}: tokenFile`;
      return {
        ...base,
        client: undefined,
        token: tokenOf(await readSmallFile(tokenFile, { field, code: 'ERR_TOKEN' }), field),
      };
    }
    if (token !== undefined)
      return {
        ...base,
        client: undefined,
        token: tokenOf(Buffer.from(token), `${user.name}: token`),
      };
    if (runPlugin) {
      const { token: answered, client } = await runPlugin(renew, signal);
      return { ...base, token: answered, client };
    }
    return { ...base, client: undefined, token: undefined };
  };
}

/** A token as it stands in a file, without the newline at its end. */
function tokenOf(bytes: Buffer, field: string): Secret<string> {
  const token = bytes.toString('latin1').trim();
  // What a header field may hold; anything else would be refused by node with the token in its message.
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw invalid(
      'ERR_TOKEN',
      field,
      token === '' ? 'must not be empty' : 'must be one word of ASCII',
      { retry: 'soon' },
    );
  }
  return new Secret(token);
}

function checkServer(text: string, field: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:' || url.hash || url.search || url.username || url.password) {
    throw invalid('ERR_CONFIG', field, `must be an https URL, not ${text.slice(0, 200)}`);
  }
  return url.href.replace(/\/+$/, '');
}
