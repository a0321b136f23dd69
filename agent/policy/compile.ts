import { readProviders } from './authz/providers';
import { TrustDomains } from './authz/trust-domains';
import { inboundOf } from './inbound';
import type { Mesh } from './mesh';
import { peerModes } from './peer';
import { jwtFilter } from './request';
import type { JsonObject } from './resources/resource';
import type { ResourceIndex } from './select';
import { IDENTITY_SECRETS } from './tls';
import type { PolicyWorkload } from './workload';

/** What one workload's Envoy is served, proto3 JSON. */
export interface Compiled {
  /** `envoy.config.listener.v3.Listener`, the guards in their places. */
  readonly listeners: readonly JsonObject[];
  /** `envoy.config.cluster.v3.Cluster`. */
  readonly clusters: readonly JsonObject[];
  /** Names of secrets that the listeners ask for. */
  readonly secretNames: readonly string[];
}

/**
 * Compiles policies to what istiod would serve the workload with `captureMode: NONE`. Pure and
 * deterministic; the index can be used for any number of workloads.
 */
export function compile(index: ResourceIndex, workload: PolicyWorkload, mesh: Mesh): Compiled {
  const { rootNamespace } = mesh;
  const jwtPolicies = index.selecting('RequestAuthentication', workload, [
    workload.namespace,
    rootNamespace,
  ]);
  const { listeners, clusters } = inboundOf(index.sidecar(workload, rootNamespace), {
    mesh,
    modes: peerModes(index, workload, rootNamespace),
    policies: index.selecting('AuthorizationPolicy', workload, [rootNamespace, workload.namespace]),
    jwt: jwtFilter(jwtPolicies),
    authz: {
      trustDomains: new TrustDomains([mesh.trustDomain, ...mesh.trustDomainAliases]),
      providers: readProviders(mesh.extensionProviders, index.services),
    },
    address: workload.address ?? '0.0.0.0',
  });
  return { listeners, clusters, secretNames: listeners.length === 0 ? [] : IDENTITY_SECRETS };
}
