import type { Mesh } from './mesh';
import { withoutDefaults } from './resources/fields';
import type { Json, JsonObject } from './resources/resource';

/** Istio's six of TLS 1.2. */
const CIPHERS = [
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'AES256-GCM-SHA384',
  'AES128-GCM-SHA256',
];

/** Both are served over SDS where the workload's identity comes from. */
export const IDENTITY_SECRETS = ['default', 'ROOTCA'] as const;

/**
 * The server's side of mutual TLS: our certificate, and a peer of our trust domain, an alias or a
 * federated one.
 *
 * @see istio pilot/pkg/security/authn/utils BuildInboundTLS
 */
export function inboundTls(mesh: Mesh): JsonObject {
  const { trustDomain, trustDomainAliases, foreignTrustDomains } = mesh;
  const domains = [...new Set([trustDomain, ...trustDomainAliases, ...foreignTrustDomains])];
  return {
    name: 'envoy.transport_sockets.tls',
    typedConfig: {
      '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
      commonTlsContext: withoutDefaults({
        tlsParams: {
          tlsMinimumProtocolVersion: mesh.minTls,
          tlsMaximumProtocolVersion: 'TLSv1_3',
          cipherSuites: mesh.cipherSuites ?? CIPHERS,
        },
        alpnProtocols: ['h2', 'http/1.1'],
        tlsCertificateSdsSecretConfigs: [sdsSecret('default')],
        combinedValidationContext: {
          defaultValidationContext: {
            matchTypedSubjectAltNames: domains.map((domain) => ({
              sanType: 'URI',
              matcher: { prefix: `spiffe://${domain}/` },
            })),
          },
          validationContextSdsSecretConfig: sdsSecret('ROOTCA'),
        },
      }),
      requireClientCertificate: true,
    },
  };
}

function sdsSecret(name: string): Record<string, Json> {
  return {
    name,
    sdsConfig: {
      apiConfigSource: {
        apiType: 'GRPC',
        transportApiVersion: 'V3',
        grpcServices: [{ envoyGrpc: { clusterName: 'sds-grpc' } }],
        setNodeOnFirstMessageOnly: true,
      },
      initialFetchTimeout: '0s',
      resourceApiVersion: 'V3',
    },
  };
}
