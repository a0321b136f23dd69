import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { peerPath } from './peer-path';

/**
 * An Envoy configuration of those parts of Istio's bootstrap, as its images have it, that ask for an identity: the cluster of SDS, and the
 * listener for metrics over mutual TLS. For tests without Istio's agent, which would fill in the rest. Guard with `testWith('istio-files')`.
 *
 * @param socketFile  As `WORKLOAD_IDENTITY_SOCKET_FILE` says it; the path is relative to the working directory of Envoy.
 */
export function istioConfig(socketFile: string): object {
  const text = readFileSync(join(peerPath('istio-files')!, 'envoy_bootstrap.json'), 'utf8');
  const values: Readonly<Record<string, string>> = {
    wildcard: '127.0.0.1',
    localhost: '127.0.0.1',
    secure_metrics_port: '0',
    'config.ProxyAdminPort': '1',
    workload_identity_socket_file: socketFile,
  };
  const filled = (part: string): unknown =>
    JSON.parse(part.replace(/\{\{ \.([\w.]+) \}\}/g, (_, name: string) => values[name]!));
  const cluster = (name: string) =>
    filled(objectAt(text, text.lastIndexOf('{', text.indexOf(`"name": "${name}"`))));
  const listener = filled(
    objectAt(text, text.indexOf('{\n', text.indexOf('{{- if .secure_metrics_port }}'))),
  );
  return {
    node: { id: 'sidecar~127.0.0.1~cart-0.shop~shop.svc.cluster.local', cluster: 'cart.shop' },
    admin: { address: { socket_address: { address: '127.0.0.1', port_value: 0 } } },
    static_resources: {
      listeners: [listener],
      clusters: [cluster('prometheus_stats'), cluster('sds-grpc')],
    },
  };
}

/** The object of JSON that begins at an index; braces of the template's own come in pairs. */
function objectAt(text: string, start: number): string {
  for (let [index, depth] = [start, 0]; index < text.length; index += 1) {
    if (text[index] === '{') depth += 1;
    else if (text[index] === '}') depth -= 1;
    if (depth === 0) return text.slice(start, index + 1);
  }
  throw new Error("Istio's bootstrap is not what it was");
}
