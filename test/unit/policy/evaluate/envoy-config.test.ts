import { expect, test } from '@jest/globals';
import { readEnvoyConfig } from '../../../../agent/policy/evaluate/envoy-config';
import { evaluate } from '../../../../agent/policy/evaluate/evaluate';
import type { JsonObject } from '../../../../agent/policy/resources/resource';

const TYPE = 'type.googleapis.com/envoy.extensions.filters';
const rbac = {
  '@type': `${TYPE}.http.rbac.v3.RBAC`,
  rules: {
    action: 'DENY',
    policies: {
      'ns[a_b]-policy[no_get]-rule[0]': {
        permissions: [{ header: { name: ':method', string_match: { exact: 'GET' } } }],
        principals: [{ any: true }],
      },
    },
  },
};

function dump(filter: JsonObject, ecds: readonly JsonObject[]): JsonObject {
  const manager = {
    '@type': `${TYPE}.network.http_connection_manager.v3.HttpConnectionManager`,
    http_filters: [filter],
  };
  const listener = {
    address: { socket_address: { address: '0.0.0.0', port_value: 8080 } },
    filter_chains: [{ filters: [{ name: 'http', typed_config: manager }] }],
  };
  return {
    configs: [
      { dynamic_listeners: [{ name: 'a', active_state: { listener } }] },
      { ecds_filters: ecds },
    ],
  };
}

const request = {
  from: undefined,
  port: 8080,
  method: 'GET',
  path: '/',
  host: 'a',
  headers: [],
  ip: undefined,
  localIp: undefined,
  serverName: '',
};
const options = { verify: async () => false, now: 0 };

test('a dump is read with its filters of ECDS in their places, and names of policies as they are', async () => {
  const [listener] = readEnvoyConfig(
    dump({ name: 'deny', config_discovery: { type_urls: [] } }, [
      { ecds_filter: { name: 'deny', typed_config: rbac } },
    ]),
    'dump.json',
  );
  const verdict = await evaluate(listener!, request, options);
  expect([verdict.status, verdict.decidedBy]).toEqual([403, 'ns[a_b]-policy[no_get]-rule[0]']);
  const other = await evaluate(listener!, { ...request, method: 'PUT' }, options);
  expect(other.kind).toBe('allow');
  expect(other.filters[0]!.rules!.policies[0]!.failed).toBe('method GET');
});

test('a filter of ECDS that is not in the dump is missed by name', () => {
  const missing = dump({ name: 'deny', config_discovery: {} }, []);
  expect(() => readEnvoyConfig(missing, 'dump.json')).toThrow(/filter deny, which comes by ECDS/);
  expect(() => readEnvoyConfig({}, 'dump.json')).toThrow(/must be an Envoy config dump/);
});

test('what only Envoy can interpret is refused by name', async () => {
  const wasm = { name: 'guard', typedConfig: { '@type': `${TYPE}.http.wasm.v3.Wasm` } };
  const [listener] = readEnvoyConfig(dump(wasm, []), 'dump.json');
  await expect(evaluate(listener!, request, options)).rejects.toThrow(
    /cannot interpret filter guard/,
  );
});
