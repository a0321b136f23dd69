import type { Compiled } from './compile';
import { objectOf, objectsOf } from './resources/fields';
import type { Json, JsonObject } from './resources/resource';

/**
 * A bootstrap with everything in its place, for `envoy --mode validate`: what the listeners name and
 * others serve is there without an address.
 */
export function staticBootstrap({ listeners, clusters }: Compiled): JsonObject {
  const known = new Set(clusters.map(({ name }) => name));
  const others = [...new Set(['sds-grpc', ...clustersIn(listeners)])].filter(
    (name) => !known.has(name),
  );
  return {
    node: { id: 'keyturn-validate', cluster: 'keyturn-validate' },
    staticResources: {
      listeners,
      clusters: [...clusters, ...others.map(elsewhere)],
    },
  };
}

function elsewhere(name: string): JsonObject {
  return {
    name,
    type: 'STATIC',
    loadAssignment: { clusterName: name, endpoints: [] },
    typedExtensionProtocolOptions: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicitHttpConfig: { http2ProtocolOptions: {} },
      },
    },
  };
}

/** Clusters that guards ask: authorizers. */
function clustersIn(value: Json): string[] {
  if (Array.isArray(value)) return objectsOf(value).flatMap(clustersIn);
  const fields = objectOf(value);
  const own = [objectOf(fields.envoyGrpc).clusterName, objectOf(fields.serverUri).cluster];
  return [
    ...own.flatMap((name) => (typeof name === 'string' ? [name] : [])),
    ...Object.values(fields).flatMap((each) =>
      typeof each === 'object' && each !== null ? clustersIn(each) : [],
    ),
  ];
}
