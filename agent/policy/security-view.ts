import { objectOf, objectsOf } from './resources/fields';
import type { Json, JsonObject } from './resources/resource';

const SECURITY_FILTERS = new Set([
  'envoy.filters.http.rbac',
  'envoy.filters.http.jwt_authn',
  'envoy.filters.http.ext_authz',
  'envoy.filters.network.rbac',
  'envoy.filters.network.ext_authz',
]);

/** Who the peer is, which address is the client's, which path is matched. */
const MANAGER_FIELDS = [
  'useRemoteAddress',
  'forwardClientCertDetails',
  'setCurrentClientCertDetails',
  'normalizePath',
  'mergeSlashes',
  'pathWithEscapedSlashesAction',
];

const LISTENER_FIELDS = [
  'name',
  'address',
  'trafficDirection',
  'listenerFiltersTimeout',
  'continueOnListenerFiltersTimeout',
];

/** A listener reduced to what decides who may speak to whom, to be compared with another compiler's. */
export function securityOf(listener: JsonObject): JsonObject {
  return {
    ...pick(listener, LISTENER_FIELDS),
    listenerFilters: listener.listenerFilters ?? null,
    filterChains: objectsOf(listener.filterChains).map((chain) => {
      const { filters, http } = guardsOf(chain);
      const socket = objectOf(chain.transportSocket).typedConfig;
      return {
        match: chain.filterChainMatch ?? null,
        filters,
        ...(http ? { http } : {}),
        ...(socket === undefined ? {} : { tls: socket }),
      };
    }),
  };
}

/** A cluster reduced in the same way. */
export function clusterSecurityOf(cluster: JsonObject): JsonObject {
  const hosts = objectsOf(objectOf(cluster.loadAssignment).endpoints).flatMap((group) =>
    objectsOf(group.lbEndpoints).map(({ endpoint }) => ({ endpoint: endpoint ?? null, tls: null })),
  );
  return {
    ...pick(cluster, ['name', 'type', 'transportSocket', 'transportSocketMatches']),
    ...('loadAssignment' in cluster ? { hosts } : {}),
  };
}

/** What guards a chain, in order: network filters, then those inside its connection manager. */
export function guardsOf(chain: JsonObject): {
  readonly filters: readonly JsonObject[];
  readonly http: JsonObject | undefined;
} {
  let http: JsonObject | undefined;
  const filters = objectsOf(chain.filters).flatMap((filter) => {
    const config = objectOf(filter.typedConfig);
    if (!String(config['@type']).endsWith('.HttpConnectionManager'))
      return isSecurity(filter) ? [filter] : [];
    http = pick(config, MANAGER_FIELDS);
    return objectsOf(config.httpFilters).filter(isSecurity);
  });
  return { filters, http };
}

const isSecurity = ({ name }: JsonObject) => SECURITY_FILTERS.has(String(name));

function pick(of: JsonObject, names: readonly string[]): JsonObject {
  return Object.fromEntries(
    names.flatMap((name) => (of[name] === undefined ? [] : [[name, of[name]] as const])),
  );
}

/** One writing of a value: the keys of every mapping in order of their code units. */
export function canonical(value: Json): Json {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, canonical((value as JsonObject)[key]!)]),
  );
}
