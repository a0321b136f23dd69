import { buildGuards, type Guards } from './authz/build';
import type { AuthzOptions } from './authz/providers';
import { HTTP, TCP } from './authz/rbac';
import type { Mesh } from './mesh';
import { type MtlsMode, modeOfPort, type PeerModes } from './peer';
import { objectOf, objectsOf, textOf, withoutDefaults } from './resources/fields';
import type { JsonObject, Resource } from './resources/resource';
import { inboundTls } from './tls';

/** What the listeners of a workload are made of. */
export interface InboundOptions {
  readonly mesh: Mesh;
  readonly modes: PeerModes;
  readonly policies: readonly Resource[];
  readonly jwt: JsonObject | undefined;
  readonly authz: AuthzOptions;
  /** Where listeners without an address of their own are bound. */
  readonly address: string;
}

export interface Inbound {
  readonly listeners: readonly JsonObject[];
  readonly clusters: readonly JsonObject[];
}

/**
 * The listeners of a Sidecar's ports, by number, and the clusters of the application behind them.
 *
 * @see istio pilot/pkg/networking/core listener_inbound.go, filterchain_options.go
 */
export function inboundOf(sidecar: Resource | undefined, options: InboundOptions): Inbound {
  const seen = new Map<number, JsonObject>();
  for (const entry of objectsOf(sidecar?.spec.ingress)) {
    const number = Number(objectOf(entry.port).number);
    if (isBound(entry) && !seen.has(number)) seen.set(number, entry);
  }
  const ports = [...seen].sort(([one], [other]) => one - other);
  const chains = {
    HTTP: httpFilters(options),
    TCP: buildGuards(options.policies, TCP, options.authz),
    tls: inboundTls(options.mesh),
  };
  return {
    listeners: ports.map(([port, entry]) => listenerOf(port, entry, chains, options)),
    clusters: ports.map(([port, entry]) => clusterOf(port, entry)),
  };
}

/** Nothing is intercepted here: a port is bound unless it asks for iptables. */
function isBound({ captureMode }: JsonObject): boolean {
  return captureMode !== 'IPTABLES';
}

/** What chains of one kind have in common. */
interface ChainParts {
  readonly HTTP: readonly JsonObject[];
  readonly TCP: Guards;
  readonly tls: JsonObject;
}

function httpFilters({ policies, authz, jwt }: InboundOptions): JsonObject[] {
  const { custom, rbac } = buildGuards(policies, HTTP, authz);
  return [...custom, ...(jwt ? [jwt] : []), ...rbac];
}

type Protocol = 'HTTP' | 'TCP';

/** One filter chain: what it matches, and whether it ends mutual TLS. */
interface Chain {
  readonly protocol: Protocol;
  readonly transport: 'tls' | 'raw_buffer';
  readonly alpn: readonly string[];
  readonly mtls: boolean;
}

const ISTIO_HTTP = ['istio-http/1.0', 'istio-http/1.1', 'istio-h2'];
const ISTIO_TCP = ['istio-peer-exchange', 'istio'];
const ISTIO_ALL = ['istio', 'istio-peer-exchange', ...ISTIO_HTTP];
const PLAIN_HTTP = ['http/1.1', 'h2c'];

const chain = (
  protocol: Protocol,
  transport: Chain['transport'],
  { alpn = [], mtls = false }: Partial<Pick<Chain, 'alpn' | 'mtls'>> = {},
): Chain => ({ protocol, transport, alpn, mtls });

/** By the protocol of a port, where one is declared, and its mode. */
const CHAINS: Readonly<Record<Protocol | 'auto', Readonly<Record<MtlsMode, readonly Chain[]>>>> = {
  HTTP: {
    STRICT: [chain('HTTP', 'tls', { mtls: true })],
    PERMISSIVE: [
      chain('HTTP', 'tls', { alpn: ISTIO_ALL, mtls: true }),
      chain('HTTP', 'raw_buffer'),
    ],
    DISABLE: [chain('HTTP', 'raw_buffer')],
  },
  TCP: {
    STRICT: [chain('TCP', 'tls', { mtls: true })],
    PERMISSIVE: [
      chain('TCP', 'tls', { alpn: ISTIO_ALL, mtls: true }),
      // The application's own TLS.
      chain('TCP', 'tls'),
      chain('TCP', 'raw_buffer'),
    ],
    DISABLE: [chain('TCP', 'raw_buffer')],
  },
  auto: {
    STRICT: [
      chain('HTTP', 'tls', { alpn: ISTIO_HTTP, mtls: true }),
      chain('TCP', 'tls', { mtls: true }),
    ],
    PERMISSIVE: [
      chain('HTTP', 'tls', { alpn: ISTIO_HTTP, mtls: true }),
      chain('HTTP', 'raw_buffer', { alpn: PLAIN_HTTP }),
      chain('TCP', 'tls', { alpn: ISTIO_TCP, mtls: true }),
      chain('TCP', 'raw_buffer'),
      chain('TCP', 'tls'),
    ],
    DISABLE: [chain('HTTP', 'raw_buffer', { alpn: PLAIN_HTTP }), chain('TCP', 'raw_buffer')],
  },
};

const HTTP_PROTOCOLS = new Set(['http', 'http2', 'http_proxy', 'grpc', 'grpc-web']);
const HTTP2_PROTOCOLS = new Set(['http2', 'grpc', 'grpc-web']);
const TCP_PROTOCOLS = new Set(['tcp', 'https', 'tls', 'mongo', 'redis', 'mysql']);

export function protocolOf(entry: JsonObject): Protocol | 'auto' {
  const name = protocolName(entry);
  if (HTTP_PROTOCOLS.has(name)) return 'HTTP';
  return TCP_PROTOCOLS.has(name) ? 'TCP' : 'auto';
}

function isHttp2(entry: JsonObject): boolean {
  return HTTP2_PROTOCOLS.has(protocolName(entry));
}

function protocolName({ port }: JsonObject): string {
  return (textOf(objectOf(port).protocol) ?? '').toLowerCase();
}

function listenerOf(
  port: number,
  entry: JsonObject,
  parts: ChainParts,
  options: InboundOptions,
): JsonObject {
  const bind = textOf(entry.bind) ?? options.address;
  const name = `${bind}_${port}`;
  const chains = CHAINS[protocolOf(entry)][modeOfPort(options.modes, port)];
  const inspectors = [
    ...(chains.some(({ transport }) => transport === 'tls')
      ? [inspector(TLS_INSPECTOR, port)]
      : []),
    ...(chains.some(({ alpn }) => alpn === PLAIN_HTTP) ? [inspector(HTTP_INSPECTOR)] : []),
  ];
  return withoutDefaults({
    name,
    address: addressOf(bind, port),
    listenerFilters: inspectors,
    filterChains: chains.map((each) => ({
      filterChainMatch: withoutDefaults({
        destinationPort: port,
        transportProtocol: each.transport,
        applicationProtocols: each.alpn,
      }),
      filters:
        each.protocol === 'HTTP'
          ? [connectionManager(port, name, entry, parts.HTTP, options.mesh)]
          : [...parts.TCP.custom, ...parts.TCP.rbac, tcpProxy(port)],
      ...(each.mtls ? { transportSocket: parts.tls } : {}),
      name,
    })),
    listenerFiltersTimeout: '0s',
    continueOnListenerFiltersTimeout: true,
    trafficDirection: 'INBOUND',
  });
}

const TLS_INSPECTOR = {
  name: 'envoy.filters.listener.tls_inspector',
  typedConfig: {
    '@type': 'type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector',
    initialReadBufferSize: 512,
  },
};
const HTTP_INSPECTOR = {
  name: 'envoy.filters.listener.http_inspector',
  typedConfig: {
    '@type':
      'type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector',
  },
};

/** @param only  The port at which it works; on every one where undefined. */
function inspector(filter: JsonObject, only?: number): JsonObject {
  if (only === undefined) return filter;
  const destinationPortRange = { start: only, end: only + 1 };
  return { ...filter, filterDisabled: { notMatch: { destinationPortRange } } };
}

const NORMALIZATION = {
  DEFAULT: { normalizePath: true },
  BASE: { normalizePath: true },
  NONE: { normalizePath: false },
  MERGE_SLASHES: { normalizePath: true, mergeSlashes: true },
  DECODE_AND_MERGE_SLASHES: { normalizePath: true, mergeSlashes: true },
} as const;

function connectionManager(
  port: number,
  name: string,
  entry: JsonObject,
  filters: readonly JsonObject[],
  mesh: Mesh,
): JsonObject {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typedConfig: {
      '@type':
        'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
      statPrefix: `inbound_${name}`,
      routeConfig: routesTo(port),
      httpFilters: [...filters, ROUTER],
      ...(isHttp2(entry) ? { http2ProtocolOptions: {} } : {}),
      streamIdleTimeout: '0s',
      useRemoteAddress: false,
      forwardClientCertDetails: 'APPEND_FORWARD',
      setCurrentClientCertDetails: { subject: true, dns: true, uri: true },
      upgradeConfigs: [{ upgradeType: 'websocket' }],
      ...NORMALIZATION[mesh.pathNormalization],
      pathWithEscapedSlashesAction:
        mesh.pathNormalization === 'DECODE_AND_MERGE_SLASHES'
          ? 'UNESCAPE_AND_FORWARD'
          : 'KEEP_UNCHANGED',
    },
  };
}

const ROUTER = {
  name: 'envoy.filters.http.router',
  typedConfig: {
    '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router',
  },
};

function routesTo(port: number): JsonObject {
  const cluster = clusterName(port);
  return {
    name: cluster,
    virtualHosts: [
      {
        name: `inbound|http|${port}`,
        domains: ['*'],
        routes: [{ name: 'default', match: { prefix: '/' }, route: { cluster, timeout: '0s' } }],
      },
    ],
    validateClusters: false,
  };
}

function tcpProxy(port: number): JsonObject {
  const cluster = clusterName(port);
  return {
    name: 'envoy.filters.network.tcp_proxy',
    typedConfig: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
      statPrefix: cluster,
      cluster,
    },
  };
}

const clusterName = (port: number) => `inbound|${port}||`;

/** The application, at the Sidecar's `defaultEndpoint` or the same port of the loopback. */
function clusterOf(port: number, entry: JsonObject): JsonObject {
  const name = clusterName(port);
  return {
    name,
    type: 'STATIC',
    connectTimeout: '10s',
    loadAssignment: {
      clusterName: name,
      endpoints: [
        {
          lbEndpoints: [{ endpoint: { address: endpointOf(textOf(entry.defaultEndpoint), port) } }],
        },
      ],
    },
    ...(isHttp2(entry) ? { typedExtensionProtocolOptions: HTTP2_UPSTREAM } : {}),
  };
}

const HTTP2_UPSTREAM = {
  'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
    '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    explicitHttpConfig: { http2ProtocolOptions: {} },
  },
};

function endpointOf(written: string | undefined, port: number): JsonObject {
  if (written?.startsWith('unix://')) return { pipe: { path: written.slice('unix://'.length) } };
  const at = written?.lastIndexOf(':') ?? -1;
  if (written === undefined || at < 0) return addressOf('127.0.0.1', port);
  const host = written.slice(0, at).replace(/^\[|\]$/g, '');
  // Addresses of the workload itself are those that stand for the loopback here.
  const isOwn = host === '0.0.0.0' || host === '::';
  return addressOf(isOwn ? '127.0.0.1' : host, Number(written.slice(at + 1)));
}

function addressOf(bind: string, port: number): JsonObject {
  if (bind.startsWith('unix://')) return { pipe: { path: bind.slice('unix://'.length) } };
  return { socketAddress: { address: bind, portValue: port } };
}
