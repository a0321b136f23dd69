import { isIP } from 'node:net';
import { isAbsolute } from 'node:path';
import { invalid } from '../base/errors';
import type { HostPort } from '../base/host-port';
import { parseSpiffeId, parseTrustDomain } from '../identity/spiffe-id';

export interface BootstrapOptions {
  /** Absolute path of the agent's SDS socket: Envoy's working directory is not ours. */
  readonly sdsSocket: string;
  /** Peers are trusted when their SPIFFE ID is of this trust domain, unless they are named. */
  readonly trustDomain: string;
  /** Envoy's admin interface, default 127.0.0.1:15000. */
  readonly admin?: HostPort;
  /** How Envoy names itself to the agent, shown by `keyturn status`; defaults `keyturn-envoy` and `keyturn`. */
  readonly nodeId?: string;
  readonly nodeCluster?: string;
  /** Mutual TLS for others who call our application. */
  readonly inbound?: InboundOptions;
  /** Mutual TLS for our application when it calls a peer. */
  readonly outbound?: OutboundOptions;
  /** Whether a TLS session may be resumed, which skips the certificates; default true. */
  readonly sessionResumption?: boolean;
  /** What peers are judged by; default `ROOTCA`. */
  readonly validationContext?: ValidationContext;
}

/**
 * Secrets that peers are judged by: `ROOTCA`, our roots alone, or `ALL`, with which Envoy's SPIFFE validator judges each peer by the bundle
 * of the trust domain in its certificate, ours and those that the agent is federated with.
 */
export const VALIDATION_CONTEXTS = ['ROOTCA', 'ALL'] as const;
export type ValidationContext = (typeof VALIDATION_CONTEXTS)[number];

export interface InboundOptions {
  readonly listen: HostPort;
  /** Where the application listens, in plain HTTP. */
  readonly upstream: HostPort;
  /** SPIFFE IDs that may call; default: any of the trust domain. */
  readonly callers?: readonly string[];
}

export interface OutboundOptions {
  /** Where the application calls, in plain HTTP; keep it on loopback. */
  readonly listen: HostPort;
  /** Where the peer listens, with mutual TLS. */
  readonly peer: HostPort;
  /** SPIFFE ID that the peer must prove; default: any of the trust domain. */
  readonly peerId?: string;
  /** Requests after which a connection to the peer is closed; default: no limit. 1 makes every request a handshake. */
  readonly requestsPerConnection?: number;
}

const DEFAULT_ADMIN: HostPort = { host: '127.0.0.1', port: 15_000 };
const SDS_CLUSTER = 'keyturn-sds';
const TYPES = 'type.googleapis.com/envoy.extensions';
/** `sun_path` has 108 bytes with its NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

/**
 * An Envoy v3 bootstrap whose identity comes from this agent, as a JSON-able value (JSON is YAML too).
 *
 * SDS has a cluster of its own on the agent's socket. Envoy waits for the first secret as long as it takes (`initial_fetch_timeout: 0s`:
 * after the default of 15 s it would open its listeners without a certificate) and looks for a restarted agent every 0.1 to 1 s rather
 * than every 0.5 to 30 s. Every place that asks for a secret asks with the same bytes, so that Envoy keeps one subscription for each name.
 *
 * @throws AgentError ERR_CONFIG | ERR_IDENTITY_INVALID with field and rule.
 * @see Envoy: api/envoy/config/core/v3/config_source.proto, grpc_service.proto (EnvoyGrpc.retry_policy), extensions/transport_sockets/tls/v3.
 */
export function createBootstrap(options: BootstrapOptions): object {
  checkOptions(options);
  const { inbound, outbound } = options;
  return {
    node: { id: options.nodeId ?? 'keyturn-envoy', cluster: options.nodeCluster ?? 'keyturn' },
    admin: { address: socketAddress(options.admin ?? DEFAULT_ADMIN) },
    static_resources: {
      listeners: [
        ...(inbound ? [inboundListener(inbound, options)] : []),
        ...(outbound ? [outboundListener(outbound)] : []),
      ],
      clusters: [
        sdsCluster(options.sdsSocket),
        ...(inbound ? [plainCluster('app', inbound.upstream)] : []),
        ...(outbound ? [peerCluster(outbound, options)] : []),
      ],
    },
  };
}

function checkOptions({ sdsSocket, trustDomain, inbound, outbound }: BootstrapOptions): void {
  if (!isAbsolute(sdsSocket)) throw invalid('ERR_CONFIG', 'sds socket', 'must be an absolute path');
  if (Buffer.byteLength(sdsSocket) > MAX_SOCKET_PATH) {
    throw invalid(
      'ERR_CONFIG',
      'sds socket',
      `must not be longer than ${MAX_SOCKET_PATH} bytes as an absolute path`,
    );
  }
  parseTrustDomain(trustDomain);
  if (!inbound && !outbound)
    throw invalid('ERR_CONFIG', 'bootstrap', 'must have an inbound or an outbound side');
  for (const id of [
    ...(inbound?.callers ?? []),
    ...(outbound?.peerId === undefined ? [] : [outbound.peerId]),
  ])
    parseSpiffeId(id);
  const perConnection = outbound?.requestsPerConnection;
  if (perConnection !== undefined && (!Number.isInteger(perConnection) || perConnection < 1)) {
    throw invalid('ERR_CONFIG', 'requests per connection', 'must be a whole number from 1');
  }
}

function inboundListener(inbound: InboundOptions, options: BootstrapOptions): object {
  const resumption = options.sessionResumption ?? true;
  const transport = {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `${TYPES}.transport_sockets.tls.v3.DownstreamTlsContext`,
      require_client_certificate: true,
      ...(!resumption && {
        disable_stateless_session_resumption: true,
        disable_stateful_session_resumption: true,
      }),
      common_tls_context: tlsContext(options, inbound.callers ?? []),
    },
  };
  // The application learns who called from x-forwarded-client-cert; what a caller wrote there itself is dropped.
  const callerHeader = {
    forward_client_cert_details: 'SANITIZE_SET',
    set_current_client_cert_details: { uri: true },
  };
  return listener(
    'inbound',
    inbound.listen,
    httpManager('inbound', 'app', callerHeader),
    transport,
  );
}

function outboundListener(outbound: OutboundOptions): object {
  return listener('outbound', outbound.listen, httpManager('outbound', 'peer', {}));
}

function listener(name: string, address: HostPort, filter: object, transport?: object): object {
  return {
    name,
    address: socketAddress(address),
    filter_chains: [{ filters: [filter], ...(transport && { transport_socket: transport }) }],
  };
}

function httpManager(name: string, cluster: string, extra: object): object {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': `${TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: name,
      ...extra,
      route_config: {
        name,
        virtual_hosts: [
          {
            name: cluster,
            domains: ['*'],
            routes: [{ match: { prefix: '/' }, route: { cluster } }],
          },
        ],
      },
      http_filters: [
        {
          name: 'envoy.filters.http.router',
          typed_config: { '@type': `${TYPES}.filters.http.router.v3.Router` },
        },
      ],
    },
  };
}

function peerCluster(outbound: OutboundOptions, options: BootstrapOptions): object {
  const { peer, peerId, requestsPerConnection } = outbound;
  return {
    ...plainCluster('peer', peer),
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': `${TYPES}.transport_sockets.tls.v3.UpstreamTlsContext`,
        // No server name for an address: RFC 6066 section 3 allows names only. Who the peer is, its SPIFFE ID says.
        ...(isIP(peer.host) === 0 && { sni: peer.host }),
        ...(options.sessionResumption === false && { max_session_keys: 0 }),
        common_tls_context: tlsContext(options, peerId === undefined ? [] : [peerId]),
      },
    },
    // HTTP/2 where the peer agrees to it in ALPN, HTTP/1.1 otherwise.
    typed_extension_protocol_options: protocolOptions({
      ...(requestsPerConnection !== undefined && {
        common_http_protocol_options: { max_requests_per_connection: requestsPerConnection },
      }),
      auto_config: { http_protocol_options: {}, http2_protocol_options: {} },
    }),
  };
}

/** Our certificate and, for the other side's, the roots and the SPIFFE IDs that we accept: those of `ids`, or any of the trust domain. */
function tlsContext(options: BootstrapOptions, ids: readonly string[]): object {
  const matchers =
    ids.length > 0
      ? ids.map((exact) => ({ exact }))
      : [{ prefix: `spiffe://${options.trustDomain}/` }];
  return {
    // Envoy's own list has no P-384, which TLS 1.2 wants there for such keys; as a client it speaks no TLS 1.3 unless told.
    tls_params: {
      tls_minimum_protocol_version: 'TLSv1_2',
      ecdh_curves: ['X25519', 'P-256', 'P-384'],
    },
    alpn_protocols: ['h2', 'http/1.1'],
    tls_certificate_sds_secret_configs: [secret('default')],
    combined_validation_context: {
      default_validation_context: {
        match_typed_subject_alt_names: matchers.map((matcher) => ({ san_type: 'URI', matcher })),
      },
      validation_context_sds_secret_config: secret(options.validationContext ?? 'ROOTCA'),
    },
  };
}

function secret(name: string): object {
  return {
    name,
    sds_config: {
      resource_api_version: 'V3',
      initial_fetch_timeout: '0s',
      api_config_source: {
        api_type: 'GRPC',
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [
          {
            envoy_grpc: {
              cluster_name: SDS_CLUSTER,
              retry_policy: { retry_back_off: { base_interval: '0.1s', max_interval: '1s' } },
            },
          },
        ],
      },
    },
  };
}

function sdsCluster(path: string): object {
  return {
    ...cluster(SDS_CLUSTER, 'STATIC', { pipe: { path } }),
    typed_extension_protocol_options: protocolOptions({
      explicit_http_config: { http2_protocol_options: {} },
    }),
  };
}

function plainCluster(name: string, address: HostPort): object {
  return cluster(name, isIP(address.host) === 0 ? 'STRICT_DNS' : 'STATIC', socketAddress(address));
}

function cluster(name: string, type: 'STATIC' | 'STRICT_DNS', address: object): object {
  return {
    name,
    type,
    connect_timeout: '1s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }],
    },
  };
}

function protocolOptions(options: object): object {
  const type = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  return { [type]: { '@type': `type.googleapis.com/${type}`, ...options } };
}

function socketAddress({ host, port }: HostPort): object {
  return { socket_address: { address: host, port_value: port } };
}
