import { join } from 'node:path';
import { startEnvoy } from './envoy';
import { httpManager } from './envoy-config';
import { fetchText } from './fetch-text';

/** Everything of one workload that a proxy is sent, PEM. */
export interface ProxyPem {
  readonly keyPem: string;
  readonly chainPem: string;
  readonly rootsPem: string;
  /** Lists for leaves; undefined where revocation does not count. */
  readonly crlPem: string | undefined;
}

const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';
const FRONT = 'front';

/**
 * Whether a real Envoy that has each of these sets, as server and as client, takes a mutual TLS connection of itself. One Envoy has them all:
 * 200 take it a second.
 *
 * @param dir  For its files and sockets.
 */
export async function envoyVerdicts(dir: string, sets: readonly ProxyPem[]): Promise<boolean[]> {
  const routes = sets.map((_, index) => ({
    match: { path: `/${index}` },
    route: { cluster: `${index}`, timeout: '5s' },
  }));
  const front = {
    name: FRONT,
    address: { socket_address: { address: '127.0.0.1', port_value: 0 } },
    filter_chains: [{ filters: [httpManager(FRONT, routes)] }],
  };
  const pipe = (index: number) => ({ pipe: { path: join(dir, `${index}.sock`) } });
  const config = {
    node: { id: 'test', cluster: 'test' },
    admin: { address: { socket_address: { address: '127.0.0.1', port_value: 0 } } },
    static_resources: {
      listeners: [front, ...sets.map((set, index) => listener(`${index}`, pipe(index), set))],
      clusters: sets.map((set, index) => cluster(`${index}`, pipe(index), set)),
    },
  };
  const envoy = await startEnvoy({ dir, name: 'verdicts', config });
  try {
    await envoy.started();
    const port = await envoy.port(FRONT);
    const answers: boolean[] = [];
    for (const index of sets.keys())
      answers.push((await fetchText(`http://127.0.0.1:${port}/${index}`)).status === 200);
    return answers;
  } finally {
    await envoy.stop();
  }
}

function listener(name: string, address: object, set: ProxyPem): object {
  const routes = [
    { match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: 'ok' } } },
  ];
  const typedConfig = {
    '@type': `${TLS}.DownstreamTlsContext`,
    require_client_certificate: true,
    common_tls_context: tlsContext(set),
  };
  const transportSocket = { name: 'envoy.transport_sockets.tls', typed_config: typedConfig };
  return {
    name,
    stat_prefix: name,
    address,
    filter_chains: [{ filters: [httpManager(name, routes)], transport_socket: transportSocket }],
  };
}

function cluster(name: string, address: object, set: ProxyPem): object {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '5s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }],
    },
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: { '@type': `${TLS}.UpstreamTlsContext`, common_tls_context: tlsContext(set) },
    },
  };
}

function tlsContext({ keyPem, chainPem, rootsPem, crlPem }: ProxyPem): object {
  const inline = (text: string) => ({ inline_string: text });
  return {
    tls_certificates: [{ certificate_chain: inline(chainPem), private_key: inline(keyPem) }],
    validation_context: {
      trusted_ca: inline(rootsPem),
      ...(crlPem !== undefined && { crl: inline(crlPem), only_verify_leaf_cert_crl: true }),
    },
  };
}
