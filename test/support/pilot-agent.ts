import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { freePort } from './free-port';
import { type Peer, startPeer } from './peer-process';
import { createSdsClient, type ReceivedSecret } from './sds-client';
import { tempDir } from './temp-dir';
import { until } from './until';

/** Istio's own agent as a process of its own, with something that sleeps where its Envoy would be. */
export interface PilotAgent extends Peer {
  readonly sdsSocket: string;
  /** What its SDS serves under a name, as soon as it serves. */
  secret(name: string): Promise<ReceivedSecret>;
}

export interface PilotAgentOptions {
  /** `HOST:PORT`; the CA's certificate must be for that host. */
  readonly caAddress: string;
  /** What the CA's certificate is judged by: the mounted root, PEM. */
  readonly rootPem: string | Uint8Array;
  /** The mounted service account token. */
  readonly token: string;
  readonly env?: Readonly<Record<string, string>>;
}

const START_MS = 30_000;

/** Starts it as `shop`/`cart` of cluster.local. Without the program it throws, so guard tests with `testWith('pilot-agent')`. */
export async function startPilotAgent(options: PilotAgentOptions): Promise<PilotAgent> {
  const dir = tempDir();
  const place = (path: string, content: string | Uint8Array) => {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), content);
    return join(dir, path);
  };
  place('var/run/secrets/istio/root-cert.pem', options.rootPem);
  place('var/run/secrets/tokens/istio-token', options.token);
  // Without an Envoy to start it opens no SDS socket. It outlives an agent that is killed, so it ends by itself.
  const envoy = place('envoy', '#!/bin/sh\nexec sleep 120\n');
  chmodSync(envoy, 0o755);
  const proxyConfig = {
    binaryPath: envoy,
    configPath: join(dir, 'proxy'),
    discoveryAddress: options.caAddress,
    terminationDrainDuration: '0.1s',
    // It takes no port 0, and would take its usual ones.
    statusPort: await freePort(),
    proxyAdminPort: await freePort(),
  };
  const peer = startPeer('pilot-agent', ['proxy', 'sidecar', '--templateFile', place('bootstrap.json', '{}')], {
    cwd: dir,
    env: { ...ENVIRONMENT, CA_ADDR: options.caAddress, PROXY_CONFIG: JSON.stringify(proxyConfig), ...options.env },
  });
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
    secret: (name) => until(`${name} of pilot-agent`, async () => peer.running() && ask(name), START_MS),
  };
}

const ENVIRONMENT = {
  PATH: process.env.PATH,
  // Looking for a cloud to run in takes time.
  CLOUD_PLATFORM: 'none',
  CA_PROVIDER: 'Citadel',
  TRUST_DOMAIN: 'cluster.local',
  POD_NAMESPACE: 'shop',
  SERVICE_ACCOUNT: 'cart',
  POD_NAME: 'cart-0',
  INSTANCE_IP: '127.0.0.1',
  ISTIO_META_CLUSTER_ID: 'Kubernetes',
  ECC_SIGNATURE_ALGORITHM: 'ECDSA',
};
