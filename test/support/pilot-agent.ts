import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type EnvoyView, viewEnvoy } from './envoy';
import { freePort } from './free-port';
import { peerPath } from './peer-path';
import { type Peer, startPeer } from './peer-process';
import { createSdsClient, type ReceivedSecret } from './sds-client';
import { tempDir } from './temp-dir';
import { until } from './until';

/** Istio's own agent as a process of its own. */
export interface PilotAgent extends Peer {
  readonly sdsSocket: string;
  /** What its SDS serves under a name, as soon as it serves. */
  secret(name: string): Promise<ReceivedSecret>;
  /** Its Envoy; for tests that wished for one. */
  readonly envoy: EnvoyView;
}

export interface PilotAgentOptions {
  /** Where it finds what a kubelet mounts, and makes its sockets; default a new one. */
  readonly dir?: string;
  /** `HOST:PORT`; the CA's certificate must be for that host. */
  readonly caAddress: string;
  /** What the CA's certificate is judged by: the mounted root, PEM. */
  readonly rootPem: string | Uint8Array;
  /** The mounted service account token. */
  readonly token: string;
  /** `HOST:PORT` of the istiod that its Envoy gets its configuration from; default: nobody is there, where the CA is. */
  readonly discoveryAddress?: string;
  /** A real Envoy on the bootstrap that it writes from Istio's own template, in place of something that sleeps. Needs `istio-files` and `envoy`. */
  readonly realEnvoy?: boolean;
  /** In place of 15020; default a free one. */
  readonly statusPort?: number;
  readonly env?: Readonly<Record<string, string>>;
}

const START_MS = 30_000;

/** Starts it as `shop`/`cart` of cluster.local. Without the program it throws, so guard tests with `testWith('pilot-agent')`. */
export async function startPilotAgent(options: PilotAgentOptions): Promise<PilotAgent> {
  const { dir, env, envoy } = await layOut(options);
  const peer = startPeer('pilot-agent', ['proxy', 'sidecar'], { cwd: dir, env });
  const sdsSocket = join(dir, 'var/run/secrets/workload-spiffe-uds/socket');
  const ask = async (name: string) => {
    const client = createSdsClient(sdsSocket);
    // It ends the stream when it could not obtain a certificate, and leaves the next try to whoever asked.
    return client
      .get(name)
      .catch(() => undefined)
      .finally(() => client.close());
  };
  return {
    ...peer,
    sdsSocket,
    secret: (name) =>
      until(`${name} of pilot-agent`, async () => peer.running() && ask(name), START_MS),
    envoy,
  };
}

/** What it finds when somebody starts it: `pilot-agent proxy sidecar` in `dir`. */
export interface PilotAgentPlace {
  readonly dir: string;
  readonly env: NodeJS.ProcessEnv;
  /** Its Envoy, once it runs. */
  readonly envoy: EnvoyView;
}

/** Puts down the files that it reads, and resolves with the variables that say the rest, as an injected pod does. */
export async function layOut(options: PilotAgentOptions): Promise<PilotAgentPlace> {
  const { dir = tempDir(), caAddress, realEnvoy = false } = options;
  const place = (path: string, content: string | Uint8Array) => {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), content);
    return join(dir, path);
  };
  place('var/run/secrets/istio/root-cert.pem', options.rootPem);
  place('var/run/secrets/tokens/istio-token', options.token);
  // Without an Envoy to start it opens no SDS socket. It outlives an agent that is killed, so it ends by itself.
  const sleeper = place('envoy', '#!/bin/sh\nexec sleep 120\n');
  chmodSync(sleeper, 0o755);
  const template = realEnvoy
    ? join(peerPath('istio-files')!, 'envoy_bootstrap.json')
    : place('bootstrap.json', '{}');
  const proxyAdminPort = await freePort();
  const proxyConfig = {
    proxyBootstrapTemplatePath: template,
    binaryPath: realEnvoy ? peerPath('envoy')! : sleeper,
    configPath: join(dir, 'etc/istio/proxy'),
    discoveryAddress: options.discoveryAddress ?? caAddress,
    terminationDrainDuration: '0.1s',
    // It takes no port 0, and would take its usual ones.
    statusPort: options.statusPort ?? (await freePort()),
    proxyAdminPort,
  };
  const ports = {
    ENVOY_STATUS_PORT: String(await freePort()),
    ENVOY_PROMETHEUS_PORT: String(await freePort()),
  };
  return {
    dir,
    env: {
      PATH: process.env.PATH,
      ...ENVIRONMENT,
      ...ports,
      CA_ADDR: caAddress,
      PROXY_CONFIG: JSON.stringify(proxyConfig),
      ...options.env,
    },
    envoy: viewEnvoy("Istio's Envoy", `127.0.0.1:${proxyAdminPort}`),
  };
}

/** Where its SDS serves files alone, because somebody else serves the identity. */
export function filesSocket(dir: string): string {
  return join(dir, 'var/run/secrets/credential-uds/files-socket');
}

/** What an injected pod says to Istio's agent, as far as it can be the same for all. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  // Looking for a cloud to run in takes time.
  CLOUD_PLATFORM: 'none',
  CA_PROVIDER: 'Citadel',
  PILOT_CERT_PROVIDER: 'istiod',
  TRUST_DOMAIN: 'cluster.local',
  POD_NAMESPACE: 'shop',
  SERVICE_ACCOUNT: 'cart',
  POD_NAME: 'cart-0',
  INSTANCE_IP: '127.0.0.1',
  ISTIO_META_CLUSTER_ID: 'Kubernetes',
  ISTIO_META_INTERCEPTION_MODE: 'REDIRECT',
  ECC_SIGNATURE_ALGORITHM: 'ECDSA',
};
