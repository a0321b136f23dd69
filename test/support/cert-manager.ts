import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { certificatesPem } from '../../agent/identity/certificate';
import type { TestCa } from './certs';
import type { Kube, KubeObject } from './kube';
import { peerPath } from './peer-path';
import { type Peer, startPeer } from './peer-process';
import { until } from './until';

/** cert-manager's issuers and the controllers that sign with them, as a process of its own. */
export interface CertManager extends Peer {
  /**
   * Makes a ClusterIssuer of kind CA and waits until it is ready. It signs CertificateRequests, and approved requests of the Kubernetes CSR
   * API for the signer `clusterissuers.cert-manager.io/NAME`.
   */
  clusterIssuer(name: string, ca: TestCa): Promise<void>;
}

const NAMESPACE = 'cert-manager';
const READY_MS = 30_000;

/** Defines its resources first. Without the program it throws, so guard tests with `testWith('kube', 'certmanager')`. */
export async function startCertManager(kube: Kube): Promise<CertManager> {
  const program = peerPath('certmanager');
  if (program === undefined)
    throw new Error('certmanager is missing; provide it with: scripts/peers certmanager');
  const crds = join(dirname(program), 'crds');
  for (const file of readdirSync(crds)) await kube.apply(readFileSync(join(crds, file), 'utf8'));
  await kube.namespace(NAMESPACE);
  const peer = startPeer('certmanager', ['--kubeconfig', kube.kubeconfig, '--while-stdin']);
  return {
    ...peer,
    clusterIssuer: async (name, ca) => {
      await kube.apply(JSON.stringify(caSecret(name, ca)));
      const issuer = {
        apiVersion: 'cert-manager.io/v1',
        kind: 'ClusterIssuer',
        metadata: { name },
        spec: { ca: { secretName: name } },
      };
      await kube.apply(JSON.stringify(issuer));
      await until(
        `ClusterIssuer ${name}`,
        async () => {
          const { status } = await kube.api.request<KubeObject>(
            'GET',
            `/apis/cert-manager.io/v1/clusterissuers/${name}`,
          );
          const isReady = (each: KubeObject) => each.type === 'Ready' && each.status === 'True';
          return peer.running() && status?.conditions?.some(isReady);
        },
        READY_MS,
      );
    },
  };
}

function caSecret(name: string, ca: TestCa): object {
  const chain = ca.intermediatesDer.length > 0 ? ca.intermediatesDer : [ca.certificateDer];
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace: NAMESPACE },
    type: 'kubernetes.io/tls',
    stringData: {
      'tls.crt': certificatesPem(chain).toString(),
      'tls.key': ca.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      'ca.crt': certificatesPem(ca.bundle.rootsDer).toString(),
    },
  };
}
