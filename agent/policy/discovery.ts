import { HTTP, TCP } from './authz/rbac';
import type { Compiled } from './compile';
import { objectOf, objectsOf, withoutDefaults } from './resources/fields';
import type { JsonObject } from './resources/resource';

/** Listeners whose guards come by ECDS, and the guards: one resource for each kind of filter. */
export interface Discovered {
  readonly listeners: readonly JsonObject[];
  /** `envoy.config.core.v3.TypedExtensionConfig`. */
  readonly extensions: readonly JsonObject[];
}

const TYPE = 'type.googleapis.com/envoy.extensions.filters';
const JWT_TYPE = `${TYPE}.http.jwt_authn.v3.JwtAuthentication`;

/** A place of a guard in a chain, the same in every chain of its kind, and what may be put there. */
interface Slot {
  readonly name: string;
  readonly types: readonly string[];
  /** Whether a filter of the compiled chain belongs here. */
  readonly holds: (filter: JsonObject) => boolean;
}

const typeOf = (filter: JsonObject) => String(objectOf(filter.typedConfig)['@type']);

/** In the order in which Envoy runs them. */
function slotsOf(kind: typeof HTTP | typeof TCP): readonly Slot[] {
  const { rbacType, http } = kind;
  const prefix = http ? 'keyturn.http' : 'keyturn.tcp';
  const extAuthz = `${TYPE}.${http ? 'http' : 'network'}.ext_authz.v3.ExtAuthz`;
  const rbac = (name: string, holds: Slot['holds']): Slot => ({
    name: `${prefix}.${name}`,
    types: [rbacType],
    holds: (filter) => typeOf(filter) === rbacType && holds(filter),
  });
  const other = (name: string, type: string): Slot => ({
    name: `${prefix}.${name}`,
    types: [type, rbacType],
    holds: (filter) => typeOf(filter) === type,
  });
  return [
    rbac('custom', isCustom),
    other('ext-authz', extAuthz),
    ...(http ? [other('jwt', JWT_TYPE)] : []),
    rbac('audit', (filter) => !isCustom(filter) && actionOf(filter) === 'LOG'),
    rbac('deny', (filter) => !isCustom(filter) && actionOf(filter) === 'DENY'),
    rbac('allow', (filter) => !isCustom(filter) && actionOf(filter) === 'ALLOW'),
  ];
}

const SLOTS = { http: slotsOf(HTTP), tcp: slotsOf(TCP) };

function rulesIn(filter: JsonObject): readonly JsonObject[] {
  const { rules, shadowRules } = objectOf(filter.typedConfig);
  return [rules, shadowRules].flatMap((each) => (each === undefined ? [] : [objectOf(each)]));
}

function isCustom(filter: JsonObject): boolean {
  return rulesIn(filter).some(({ policies }) =>
    Object.keys(objectOf(policies)).some((name) => name.startsWith('istio-ext-authz-')),
  );
}

function actionOf(filter: JsonObject): unknown {
  return rulesIn(filter)[0]?.action ?? 'ALLOW';
}

/**
 * Moves the guards of listeners into resources of their own, so that a changed rule reaches requests of
 * open connections and drains none. Every slot is always there: what has nothing to say is an RBAC
 * filter without rules, which lets everything pass.
 *
 * @see Envoy, "Extension configuration"
 */
export function discover({ listeners }: Pick<Compiled, 'listeners'>): Discovered {
  const found = new Map<string, JsonObject>();
  const moved = listeners.map((listener) => ({
    ...listener,
    filterChains: objectsOf(listener.filterChains).map((chain) => ({
      ...chain,
      filters: networkFilters(objectsOf(chain.filters), found),
    })),
  }));
  return {
    listeners: moved,
    extensions: [...found].map(([name, typedConfig]) => ({ name, typedConfig })),
  };
}

const MANAGER = 'envoy.filters.network.http_connection_manager';

function networkFilters(
  filters: readonly JsonObject[],
  found: Map<string, JsonObject>,
): readonly JsonObject[] {
  const manager = filters.find(({ name }) => name === MANAGER);
  if (!manager) return slotted(filters, SLOTS.tcp, found);
  const config = objectOf(manager.typedConfig);
  const httpFilters = slotted(objectsOf(config.httpFilters), SLOTS.http, found);
  return [{ ...manager, typedConfig: { ...config, httpFilters } }];
}

/** The last filter is the one that is guarded. */
function slotted(
  filters: readonly JsonObject[],
  slots: readonly Slot[],
  found: Map<string, JsonObject>,
): readonly JsonObject[] {
  for (const { name, types, holds } of slots) {
    const guards = filters.slice(0, -1).filter(holds);
    found.set(name, guards.length === 0 ? emptyGuard(types) : merged(guards));
  }
  return [
    ...slots.map(({ name, types }) => ({
      name,
      configDiscovery: {
        configSource: { ads: {}, initialFetchTimeout: '0s', resourceApiVersion: 'V3' },
        typeUrls: types,
      },
    })),
    ...filters.slice(-1),
  ];
}

function emptyGuard(types: readonly string[]): JsonObject {
  const type = types.at(-1)!;
  return withoutDefaults({ '@type': type, statPrefix: type === TCP.rbacType ? 'tcp.' : undefined });
}

/** Several providers that cannot be asked deny together what each of them would have been asked of. */
function merged(guards: readonly JsonObject[]): JsonObject {
  const configs = guards.map(({ typedConfig }) => objectOf(typedConfig));
  if (configs.length === 1) return configs[0]!;
  const policies = Object.assign(
    {},
    ...configs.map(({ rules }) => objectOf(objectOf(rules).policies)),
  ) as JsonObject;
  return { ...configs[0]!, rules: { ...objectOf(configs[0]!.rules), policies } };
}
