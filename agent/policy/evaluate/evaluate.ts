import { isObject, objectOf, objectsOf } from '../resources/fields';
import type { JsonObject } from '../resources/resource';
import { chooseChain, ISTIO_ALPN } from './chain';
import { authenticate, type JwtOptions } from './jwt';
import { type Headers, matchesMetadata, uninterpretable } from './match';
import { seenPath } from './path';
import { type EngineResult, type Facts, judge } from './rbac';
import { type PolicyRequest, remoteIpOf } from './request';

/** What a filter said of a request. */
export interface FilterResult {
  readonly filter: string;
  /** Of its rules; undefined where it has none in force. */
  readonly rules: EngineResult | undefined;
  /** Of a dry run, or of what asks an external authorizer. */
  readonly shadow: EngineResult | undefined;
}

export interface Verdict {
  /** `reset`: no connection is made, or it is closed. `ask`: an external authorizer decides, and what is behind it allows. */
  readonly kind: 'allow' | 'deny' | 'reset' | 'ask';
  /** 200, 400, 401, 403; undefined on a connection. */
  readonly status: number | undefined;
  /** The rule that decided, as Envoy has it in `%RESPONSE_CODE_DETAILS%`; undefined where none matched. */
  readonly decidedBy: string | undefined;
  readonly reason: string;
  /** The external authorizers that are asked. */
  readonly asks: readonly string[];
  readonly filters: readonly FilterResult[];
}

const RBAC = /\.filters\.(http|network)\.rbac\.v3\.RBAC$/;
const EXT_AUTHZ = /\.filters\.(http|network)\.ext_authz\.v3\.ExtAuthz$/;
const JWT = /\.filters\.http\.jwt_authn\.v3\.JwtAuthentication$/;
const MANAGER = /\.http_connection_manager\.v3\.HttpConnectionManager$/;
/** Filters that decide about nobody. */
const INDIFFERENT =
  /\.filters\.(http\.(router|cors|fault|grpc_stats|grpc_web|alpn|stats|buffer)|network\.(tcp_proxy|metadata_exchange))\.|\.v3\.(TcpProxy)$|\.stats\.|PluginConfig$|udpa\.type\.v1\.TypedStruct$|xds\.type\.v3\.TypedStruct$/;

/**
 * Judges a request by the listener that it reaches, as Envoy would.
 *
 * @param listener  `envoy.config.listener.v3.Listener`, its filters in their places, see `readEnvoyConfig`.
 * @throws          AgentError ERR_POLICY where something in it is of a kind that only Envoy knows.
 */
export async function evaluate(
  listener: JsonObject,
  request: PolicyRequest,
  options: JwtOptions,
): Promise<Verdict> {
  const peer = request.from === undefined ? undefined : [request.from];
  const chosen = chooseChain(listener, {
    peer,
    port: request.port,
    directIp: request.ip,
    localIp: request.localIp,
    serverName: request.serverName,
    alpn: ISTIO_ALPN,
  });
  const run = new Run(options);
  if (!('chain' in chosen)) return run.verdict('reset', undefined, chosen.reason);
  const { chain } = chosen;
  const filters = objectsOf(chain.filters);
  const facts: Facts = {
    peer: chain.transportSocket === undefined ? undefined : peer,
    localIp: request.localIp,
    localPort: request.port,
    directIp: request.ip,
    remoteIp: request.ip,
    serverName: request.serverName,
    headers: [],
    metadata: {},
  };
  const http = filters.findIndex((filter) => MANAGER.test(typeOf(filter)));
  const refused = await run.through(filters.slice(0, http < 0 ? undefined : http), facts);
  if (refused) return { ...refused, kind: 'reset', status: undefined };
  if (http < 0) return run.verdict(run.asks.length > 0 ? 'ask' : 'allow', undefined, run.why());
  const manager = objectOf(filters[http]!.typedConfig);
  return run.http(manager, request, facts);
}

function typeOf(filter: JsonObject): string {
  return String(objectOf(filter.typedConfig)['@type']);
}

class Run {
  readonly asks: string[] = [];
  private readonly filters: FilterResult[] = [];
  private allowedBy: string | undefined;

  constructor(private readonly options: JwtOptions) {}

  verdict(kind: Verdict['kind'], status: number | undefined, reason: string, by?: string): Verdict {
    return { kind, status, reason, decidedBy: by, asks: this.asks, filters: this.filters };
  }

  why(): string {
    const all = this.filters.some(({ rules }) => rules?.action === 'ALLOW');
    return all ? 'a rule allows it' : 'nothing denies it, and there is no ALLOW policy';
  }

  async http(manager: JsonObject, request: PolicyRequest, connection: Facts): Promise<Verdict> {
    const seen = seenPath(request.path, {
      normalizes: manager.normalizePath === true,
      mergesSlashes: manager.mergeSlashes === true,
      escapedSlashes: String(manager.pathWithEscapedSlashesAction ?? 'KEEP_UNCHANGED'),
    });
    if ('status' in seen) return this.verdict('deny', seen.status, seen.reason);
    const headers: Headers = [
      [':authority', seenHost(request.host, request.port, manager)],
      [':method', request.method],
      [':path', seen.path],
      ...request.headers,
    ];
    const facts = { ...connection, headers, remoteIp: remoteIpOf(request, manager) };
    const refused = await this.through(objectsOf(manager.httpFilters), facts);
    if (refused) return refused;
    return this.verdict(this.asks.length > 0 ? 'ask' : 'allow', 200, this.why(), this.allowedBy);
  }

  /** @returns The verdict of the first filter that does not let it on. */
  async through(filters: readonly JsonObject[], first: Facts): Promise<Verdict | undefined> {
    let facts = first;
    for (const filter of filters) {
      const type = typeOf(filter);
      const config = objectOf(filter.typedConfig);
      const name = String(filter.name);
      if (filter.disabled === true || INDIFFERENT.test(type)) continue;
      if (RBAC.test(type)) {
        const result = this.rbac(name, config, facts);
        if (result.rules && !result.rules.allowed) return this.denied(result.rules);
        facts = { ...facts, metadata: withShadow(facts.metadata, name, config, result.shadow) };
      } else if (JWT.test(type)) {
        const { headers, metadata, refused } = await authenticate(
          config,
          facts.headers,
          this.options,
        );
        if (refused) return this.verdict('deny', refused.status, refused.reason);
        facts = { ...facts, headers, metadata: { ...facts.metadata, [JWT_NAME]: metadata } };
      } else if (EXT_AUTHZ.test(type)) {
        const enabled = config.filterEnabledMetadata;
        if (!isObject(enabled) || matchesMetadata(enabled, facts.metadata))
          this.asks.push(providerOf(config));
      } else throw uninterpretable(`filter ${name} (${type.split('/').at(-1)})`);
    }
    return undefined;
  }

  private rbac(filter: string, { rules, shadowRules }: JsonObject, facts: Facts): FilterResult {
    const of = (each: JsonObject[string] | undefined) =>
      isObject(each) ? judge(each, facts) : undefined;
    const result = { filter, rules: of(rules), shadow: of(shadowRules) };
    this.filters.push(result);
    if (result.rules?.action === 'ALLOW' && result.rules.allowed)
      this.allowedBy = result.rules.decidedBy;
    return result;
  }

  private denied({ action, decidedBy }: EngineResult): Verdict {
    const reason =
      action === 'DENY'
        ? 'a rule denies it'
        : 'there are ALLOW policies, and no rule of them matches';
    return this.verdict('deny', 403, reason, decidedBy);
  }
}

const JWT_NAME = 'envoy.filters.http.jwt_authn';

function seenHost(host: string, port: number, manager: JsonObject): string {
  const own = manager.stripMatchingHostPort === true ? `:${port}` : undefined;
  let seen = host;
  if (manager.stripAnyHostPort === true) seen = seen.replace(/:\d+$/, '');
  if (own !== undefined && seen.endsWith(own)) seen = seen.slice(0, -own.length);
  return manager.stripTrailingHostDot === true ? seen.replace(/\.(?=(:\d+)?$)/, '') : seen;
}

/** What an RBAC filter leaves for those behind it. */
function withShadow(
  metadata: JsonObject,
  name: string,
  { shadowRulesStatPrefix }: JsonObject,
  shadow: EngineResult | undefined,
): JsonObject {
  if (!shadow) return metadata;
  const prefix = String(shadowRulesStatPrefix ?? '');
  const key = /network/.test(name) ? 'envoy.filters.network.rbac' : 'envoy.filters.http.rbac';
  const { decidedBy } = shadow;
  return {
    ...metadata,
    [key]: {
      ...objectOf(metadata[key]),
      [`${prefix}shadow_engine_result`]: shadow.allowed ? 'allowed' : 'denied',
      ...(decidedBy === undefined ? {} : { [`${prefix}shadow_effective_policy_id`]: decidedBy }),
    },
  };
}

/** The name that MeshConfig gave the authorizer, or where it is. */
function providerOf(config: JsonObject): string {
  const value = objectOf(objectOf(config.filterEnabledMetadata).value);
  const prefix = objectOf(value.stringMatch).prefix;
  if (typeof prefix === 'string') return prefix.replace(/^istio-ext-authz-/, '');
  const grpc = objectOf(objectOf(config.grpcService).envoyGrpc).clusterName;
  const http = objectOf(objectOf(config.httpService).serverUri).cluster;
  return String(grpc ?? http ?? 'an external authorizer');
}
