import { invalid } from '../../base/errors';
import { isObject, objectOf, objectsOf } from '../resources/fields';
import type { Json, JsonObject } from '../resources/resource';

/** Fields of the messages that hold maps: their keys are names, not fields. */
const MAPS = new Set(['policies', 'providers', 'requirementMap', 'filterMetadata', 'fields']);

/**
 * The listeners of an Envoy, by what `/config_dump` or `keyturn policy compile` print: filters that come by ECDS are in
 * their places, and fields have the names of proto3 JSON.
 *
 * @throws AgentError ERR_INPUT where there are none.
 */
export function readEnvoyConfig(value: Json, name: string): readonly JsonObject[] {
  const config = objectOf(camelCased(value));
  const parts = objectsOf(config.configs);
  const dumped = parts.flatMap((part) => [
    ...objectsOf(part.staticListeners).map(({ listener }) => objectOf(listener)),
    ...objectsOf(part.dynamicListeners).flatMap(({ activeState }) =>
      activeState === undefined ? [] : [objectOf(objectOf(activeState).listener)],
    ),
  ]);
  const listeners = [...dumped, ...objectsOf(config.listeners)];
  if (listeners.length === 0)
    throw invalid('ERR_INPUT', name, 'must be an Envoy config dump or compiled policies', {
      hint: 'take it from Envoy: curl -s localhost:15000/config_dump',
    });
  const extensions = [
    ...objectsOf(config.extensions),
    ...parts.flatMap(({ ecdsFilters }) =>
      objectsOf(ecdsFilters).map((each) => objectOf(each.ecdsFilter)),
    ),
  ];
  const found = new Map(extensions.map((each) => [String(each.name), objectOf(each.typedConfig)]));
  return listeners.map((listener) => objectOf(inPlace(listener, found, name)));
}

/** @throws AgentError ERR_INPUT where a filter is not there. */
function inPlace(value: Json, found: ReadonlyMap<string, JsonObject>, name: string): Json {
  if (Array.isArray(value)) return value.map((each) => inPlace(each, found, name));
  if (!isObject(value)) return value;
  if (isObject(value.configDiscovery)) {
    const { configDiscovery, ...filter } = value;
    const typedConfig = found.get(String(value.name)) ?? configDiscovery.defaultConfig;
    if (typedConfig === undefined)
      throw invalid('ERR_INPUT', name, `must hold filter ${value.name}, which comes by ECDS`);
    return { ...filter, typedConfig };
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, inPlace(each, found, name)]),
  );
}

function camelCased(value: Json): Json {
  if (Array.isArray(value)) return value.map(camelCased);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => {
      const name = key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
      if (!MAPS.has(name) || !isObject(each)) return [name, camelCased(each)];
      return [name, Object.fromEntries(Object.entries(each).map(([k, v]) => [k, camelCased(v)]))];
    }),
  );
}
