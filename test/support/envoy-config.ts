/** How Envoy is to ask for its secrets: which agent's socket, and in which variant of the protocol. */
export interface SdsSource {
  readonly socket: string;
  readonly delta?: boolean;
}

/** A TLS listener that asks each client for a certificate and answers every request with 200. */
export interface ServerSide {
  readonly sds: SdsSource;
  /** The only SPIFFE ID that it lets in; undefined lets in clients without a certificate too. */
  readonly allow: string | undefined;
  readonly secrets?: SecretNames;
}

export interface SecretNames {
  readonly identity: string;
  readonly roots: string;
}

const SERVED: SecretNames = { identity: 'default', roots: 'ROOTCA' };

/** A bootstrap with TLS listeners named by the keys of `sides`, each on a free port. */
export function serverConfig(sides: Readonly<Record<string, ServerSide>>): object {
  return bootstrap({
    listeners: Object.entries(sides).map(([name, side]) => tlsListener(name, side)),
    clusters: Object.entries(sides).map(([name, side]) => sdsCluster(`sds-${name}`, side.sds)),
  });
}

/** A client that asks one server. */
export interface ClientSide {
  readonly sds: SdsSource;
  readonly port: number;
  /** The only SPIFFE ID that it believes. */
  readonly server: string;
  readonly secrets?: SecretNames;
}

/**
 * A bootstrap with a plain HTTP listener `app`, whose every request makes a TLS connection of its own, without session resumption, to the
 * server at `port`, which has to be `server`.
 */
export function clientConfig(options: ClientSide): object {
  return bootstrap({
    listeners: [plainListener('app', 'server')],
    clusters: [tlsCluster('server', options), sdsCluster('sds-server', options.sds)],
  });
}

function bootstrap(resources: {
  readonly listeners: readonly object[];
  readonly clusters: readonly object[];
}): object {
  return {
    node: { id: 'test', cluster: 'test' },
    admin: { address: address(0) },
    static_resources: resources,
  };
}

function tlsListener(name: string, side: ServerSide): object {
  const secrets = side.secrets ?? SERVED;
  return {
    name,
    stat_prefix: name,
    address: address(0),
    filter_chains: [
      {
        filters: [
          httpManager(name, [
            {
              match: { prefix: '/' },
              direct_response: { status: 200, body: { inline_string: 'ok' } },
            },
          ]),
        ],
        transport_socket: {
          name: 'envoy.transport_sockets.tls',
          typed_config: {
            '@type':
              'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
            require_client_certificate: side.allow !== undefined,
            disable_stateless_session_resumption: true,
            disable_stateful_session_resumption: true,
            common_tls_context: tlsContext(`sds-${name}`, side.sds, secrets, side.allow),
          },
        },
      },
    ],
  };
}

function plainListener(name: string, cluster: string): object {
  const filters = [
    httpManager(name, [{ match: { prefix: '/' }, route: { cluster, timeout: '5s' } }]),
  ];
  return { name, stat_prefix: name, address: address(0), filter_chains: [{ filters }] };
}

/** A connection manager with these routes for every host. */
export function httpManager(name: string, routes: readonly object[]): object {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type':
        'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
      stat_prefix: name,
      route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes }] },
      http_filters: [
        {
          name: 'envoy.filters.http.router',
          typed_config: {
            '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router',
          },
        },
      ],
    },
  };
}

function tlsCluster(name: string, options: ClientSide): object {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address(options.port) } }] }],
    },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http_protocol_options: {} },
        common_http_protocol_options: { max_requests_per_connection: 1 },
      },
    },
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
        max_session_keys: 0,
        common_tls_context: tlsContext(
          `sds-${name}`,
          options.sds,
          options.secrets ?? SERVED,
          options.server,
        ),
      },
    },
  };
}

function tlsContext(
  cluster: string,
  sds: SdsSource,
  secrets: SecretNames,
  peer: string | undefined,
): object {
  const secret = (name: string) => ({ name, sds_config: sdsConfig(cluster, sds) });
  const names = peer === undefined ? [] : [{ san_type: 'URI', matcher: { exact: peer } }];
  return {
    tls_certificate_sds_secret_configs: [secret(secrets.identity)],
    combined_validation_context: {
      default_validation_context: { match_typed_subject_alt_names: names },
      validation_context_sds_secret_config: secret(secrets.roots),
    },
  };
}

function sdsConfig(cluster: string, sds: SdsSource): object {
  const retry = { retry_back_off: { base_interval: '0.1s', max_interval: '1s' } };
  return {
    resource_api_version: 'V3',
    initial_fetch_timeout: '0s',
    api_config_source: {
      api_type: sds.delta ? 'DELTA_GRPC' : 'GRPC',
      transport_api_version: 'V3',
      grpc_services: [{ envoy_grpc: { cluster_name: cluster, retry_policy: retry } }],
    },
  };
}

function sdsCluster(name: string, sds: SdsSource): object {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '1s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: sds.socket } } } }] }],
    },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
}

function address(port: number): object {
  return { socket_address: { address: '127.0.0.1', port_value: port } };
}
