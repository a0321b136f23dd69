import { isObject, objectOf, textOf, textsOf, withoutDefaults } from '../resources/fields';
import type { JsonObject } from '../resources/resource';
import { durationText } from './duration';
import { statusName } from './http-status';
import type { TrustDomains } from './trust-domains';

/** An external authorizer of MeshConfig, as the filters that ask it. */
export interface ExtAuthz {
  /** `envoy.extensions.filters.http.ext_authz.v3.ExtAuthz` without its condition. */
  readonly http?: JsonObject;
  /** The same for connections; HTTP authorizers have none. */
  readonly tcp?: JsonObject;
  /** Why it cannot be asked. */
  readonly problem?: string;
}

/** What policies are compiled with. */
export interface AuthzOptions {
  readonly trustDomains: TrustDomains;
  /** MeshConfig's external authorizers by name. */
  readonly providers: ReadonlyMap<string, ExtAuthz>;
}

/** The namespaces of the services of each host name. */
export type Services = ReadonlyMap<string, readonly string[]>;

/**
 * The authorizers of MeshConfig's `extensionProviders`; others than these are left out.
 *
 * @see Istio, MeshConfig.ExtensionProvider
 */
export function readProviders(
  list: readonly JsonObject[],
  services: Services,
): ReadonlyMap<string, ExtAuthz> {
  const found = new Map<string, ExtAuthz>();
  for (const entry of list) {
    const name = textOf(entry.name) ?? '';
    const wrong = found.has(name) ? 'the name is used twice' : nameProblem(name);
    const made = isObject(entry.envoyExtAuthzHttp)
      ? httpProvider(entry.envoyExtAuthzHttp, services)
      : isObject(entry.envoyExtAuthzGrpc)
        ? grpcProvider(entry.envoyExtAuthzGrpc, services)
        : undefined;
    if (made) found.set(name, wrong === undefined ? made : { ...made, problem: wrong });
  }
  return found;
}

/** Names of rules and metadata begin with it. */
function nameProblem(name: string): string | undefined {
  return /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)
    ? undefined
    : 'the name must be a DNS label';
}

interface Upstream {
  readonly host: string;
  readonly cluster: string;
  readonly status: JsonObject | undefined;
}

/** @returns a sentence where something is wrong. */
function upstreamOf(config: JsonObject, services: Services): Upstream | string {
  const port = Number(config.port ?? 0);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return 'port must be 1 to 65535';
  const service = textOf(config.service) ?? '';
  const [host, namespace] = service.includes('/')
    ? [service.slice(service.indexOf('/') + 1), service.slice(0, service.indexOf('/'))]
    : [service, undefined];
  const known = services.get(host) ?? [];
  if (namespace === undefined ? known.length !== 1 : !known.includes(namespace))
    return known.length > 1 && namespace === undefined
      ? `service ${service} is in several namespaces: write NAMESPACE/${host}`
      : `no ServiceEntry has the host ${service}`;
  const status = textOf(config.statusOnError);
  const name = status === undefined ? undefined : statusName(status);
  if (status !== undefined && name === undefined)
    return `statusOnError ${status} is no status that Envoy knows`;
  return { host, cluster: `outbound|${port}||${host}`, status: name ? { code: name } : undefined };
}

function grpcProvider(config: JsonObject, services: Services): ExtAuthz {
  const upstream = upstreamOf(config, services);
  if (typeof upstream === 'string') return { problem: upstream };
  const grpcService = {
    envoyGrpc: { clusterName: upstream.cluster, authority: upstream.host },
    timeout: timeoutOf(config),
  };
  return {
    http: {
      '@type': HTTP_TYPE,
      ...withoutDefaults({
        grpcService,
        transportApiVersion: 'V3',
        failureModeAllow: config.failOpen,
        statusOnError: upstream.status,
        withRequestBody: bodyOf(config),
      }),
    },
    tcp: {
      '@type': TCP_TYPE,
      ...withoutDefaults({
        statPrefix: 'tcp.',
        grpcService,
        transportApiVersion: 'V3',
        failureModeAllow: config.failOpen,
      }),
    },
  };
}

const HTTP_TYPE = 'type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz';
const TCP_TYPE = 'type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz';

function httpProvider(config: JsonObject, services: Services): ExtAuthz {
  const upstream = upstreamOf(config, services);
  if (typeof upstream === 'string') return { problem: upstream };
  const wrong = pathProblem(textOf(config.pathPrefix)) ?? wildcardProblem(config);
  if (wrong !== undefined) return { problem: wrong };
  const asked = textsOf(config.includeRequestHeadersInCheck);
  const added = Object.entries(objectOf(config.includeAdditionalHeadersInCheck))
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([key, value]) => withoutDefaults({ key, value }));
  const answers = withoutDefaults({
    allowedUpstreamHeaders: headersOf(textsOf(config.headersToUpstreamOnAllow)),
    allowedClientHeaders: headersOf(textsOf(config.headersToDownstreamOnDeny)),
    allowedClientHeadersOnSuccess: headersOf(textsOf(config.headersToDownstreamOnAllow)),
  });
  const httpService = withoutDefaults({
    serverUri: {
      // Envoy wants it and goes to the cluster.
      uri: `http://${upstream.host}`,
      cluster: upstream.cluster,
      timeout: timeoutOf(config),
    },
    pathPrefix: config.pathPrefix,
    authorizationRequest: added.length === 0 ? undefined : { headersToAdd: added },
    authorizationResponse: Object.keys(answers).length === 0 ? undefined : answers,
  });
  return {
    http: {
      '@type': HTTP_TYPE,
      ...withoutDefaults({
        httpService,
        transportApiVersion: 'V3',
        failureModeAllow: config.failOpen,
        statusOnError: upstream.status,
        withRequestBody: bodyOf(config),
        allowedHeaders: headersOf(
          asked.length === 0 ? textsOf(config.includeHeadersInCheck) : asked,
        ),
      }),
    },
  };
}

function pathProblem(prefix: string | undefined): string | undefined {
  return prefix === undefined || prefix.startsWith('/')
    ? undefined
    : `pathPrefix must begin with /: ${prefix}`;
}

const HEADER_LISTS = [
  'includeRequestHeadersInCheck',
  'includeHeadersInCheck',
  'headersToDownstreamOnDeny',
  'headersToDownstreamOnAllow',
  'headersToUpstreamOnAllow',
];

function wildcardProblem(config: JsonObject): string | undefined {
  const list = HEADER_LISTS.find((name) => textsOf(config[name]).includes('*'));
  return list === undefined ? undefined : `${list} must not have a lone *`;
}

function headersOf(names: readonly string[]): JsonObject | undefined {
  if (names.length === 0) return undefined;
  return {
    patterns: names.map((name) => ({
      ...(name.startsWith('*')
        ? { suffix: name.slice(1) }
        : name.endsWith('*')
          ? { prefix: name.slice(0, -1) }
          : { exact: name }),
      ignoreCase: true,
    })),
  };
}

function timeoutOf({ timeout }: JsonObject): string {
  return typeof timeout === 'string' ? durationText(timeout) : '600s';
}

function bodyOf({ includeRequestBodyInCheck: body }: JsonObject): JsonObject | undefined {
  if (!isObject(body)) return undefined;
  const { maxRequestBytes, allowPartialMessage, packAsBytes } = body;
  return withoutDefaults({ maxRequestBytes, allowPartialMessage, packAsBytes });
}

/** The hosts of ServiceEntries. */
export function servicesOf(
  entries: readonly { readonly namespace: string; readonly spec: JsonObject }[],
): Services {
  const found = new Map<string, string[]>();
  for (const { namespace, spec } of entries)
    for (const host of textsOf(spec.hosts)) {
      const known = found.get(host) ?? [];
      if (!known.includes(namespace)) found.set(host, [...known, namespace]);
    }
  return found;
}
