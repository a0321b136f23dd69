import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Kube, KubeObject } from './kube';
import { type Peer, startPeer } from './peer-process';
import { tempDir } from './temp-dir';
import { until } from './until';

/** A real istiod as a process of its own on loopback: the authority, or with `ISTIOD_RA` a registration authority. */
export interface Istiod extends Peer {
  /** `127.0.0.1:PORT` of its CA over TLS. */
  readonly address: string;
  readonly port: number;
}

export interface IstiodOptions {
  /** Its working directory; a plugged-in CA lies in `cacertsDir` of it. */
  readonly dir?: string;
  /** Of the CA over TLS; default any. */
  readonly port?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Beside the trust domain. */
  readonly meshConfig?: object;
}

/** What its serving certificate is for. */
export const ISTIOD_NAME = 'istiod.istio-system.svc';
const START_MS = 30_000;

/** Where it looks for ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem when it starts. */
export function cacertsDir(dir: string): string {
  return join(dir, 'etc', 'cacerts');
}

/**
 * What makes it hand requests to one signer of the Kubernetes CSR API, whose root the mesh configuration has to name.
 *
 * @param signer   Like `clusterissuers.cert-manager.io/mesh`.
 * @param rootPem  The root of what the signer issues.
 */
export function registrationAuthority(
  signer: string,
  rootPem: string,
): Required<Pick<IstiodOptions, 'env' | 'meshConfig'>> {
  return {
    env: {
      EXTERNAL_CA: 'ISTIOD_RA_KUBERNETES_API',
      CERT_SIGNER_DOMAIN: signer.slice(0, signer.indexOf('/')),
      K8S_SIGNER: signer,
      PILOT_CERT_PROVIDER: `k8s.io/${signer}`,
    },
    meshConfig: { caCertificates: [{ pem: rootPem, certSigners: [signer] }] },
  };
}

/** About a second, once the API has the namespace istio-system. Without the program it throws, so guard tests with `testWith('istiod')`. */
export async function startIstiod(kube: Kube, options: IstiodOptions = {}): Promise<Istiod> {
  const { dir = tempDir(), port = 0, env = {}, meshConfig = {} } = options;
  await kube.namespace('istio-system');
  const meshFile = join(dir, 'mesh.json');
  mkdirSync(dir, { recursive: true });
  writeFileSync(meshFile, JSON.stringify({ trustDomain: 'cluster.local', ...meshConfig }));
  const listeners = { grpcAddr: 0, httpAddr: 0, monitoringAddr: 0, secureGRPCAddr: port };
  const flags = Object.entries(listeners).map(([name, each]) => `--${name}=127.0.0.1:${each}`);
  const peer = startPeer(
    'istiod',
    [
      'discovery',
      `--kubeconfig=${kube.kubeconfig}`,
      `--meshConfig=${meshFile}`,
      '--httpsAddr=',
      '--ctrlz_port=0',
      '--shutdownDuration=0s',
      ...flags,
    ],
    { cwd: dir, env: { ...ENVIRONMENT, ...env } },
  );
  const started = /starting secure gRPC discovery service at 127\.0\.0\.1:(\d+)/;
  const taken = await until(
    'istiod',
    async () => peer.running() && started.exec(peer.log())?.[1],
    START_MS,
  );
  return { ...peer, port: Number(taken), address: `127.0.0.1:${taken}` };
}

/** The mesh's root as istiod has it mounted everywhere, PEM: the ConfigMap of a namespace. */
export async function mountedRoot(kube: Kube, namespace = 'istio-system'): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`;
  return until('ConfigMap istio-ca-root-cert', async () => {
    const map = await kube.api.request<KubeObject>('GET', path).catch(() => undefined);
    return map?.data['root-cert.pem'] as string | undefined;
  });
}

const ENVIRONMENT = {
  PATH: process.env.PATH,
  POD_NAMESPACE: 'istio-system',
  POD_NAME: 'istiod-0',
  ISTIOD_SERVICE_NAME: 'istiod',
  SERVICE_ACCOUNT: 'istiod',
  CLUSTER_ID: 'Kubernetes',
  TOKEN_ISSUER: 'https://kubernetes.default.svc.cluster.local',
  ENABLE_CA_SERVER: 'true',
  PILOT_ENABLE_GATEWAY_API: 'false',
  // Webhooks are for a cluster that admits pods.
  INJECTION_WEBHOOK_CONFIG_NAME: '',
  VALIDATION_WEBHOOK_CONFIG_NAME: '',
};
