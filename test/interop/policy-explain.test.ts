import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { compile } from '../../agent/policy/compile';
import { evaluate } from '../../agent/policy/evaluate/evaluate';
import { readMesh } from '../../agent/policy/read-mesh';
import { readPolicies } from '../../agent/policy/read-policies';
import { objectOf, objectsOf } from '../../agent/policy/resources/fields';
import type { JsonObject } from '../../agent/policy/resources/resource';
import { ResourceIndex } from '../../agent/policy/select';
import { type Envoy, startEnvoy } from '../support/envoy';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const SETS = process.env.KEYTURN_TEST === 'full' ? 100 : 25;

const recorded = JSON.parse(
  gunzipSync(readFileSync(join(__dirname, '../recorded/istiod-policies.json.gz'))).toString(),
);
const { mesh } = readMesh({ name: 'mesh', text: JSON.stringify(recorded.mesh) }, undefined);

const METHODS = ['GET', 'POST', 'PATCH'];
const PATHS = [
  '/',
  '/shop',
  '/cart/',
  '/t/a/end',
  '/t/a/b/end',
  '/t//end',
  '/v1/x/x/y/z',
  '/a/b?c=d',
  '/x/../shop',
  '/shop%2fcart',
  '//shop',
  '/%73hop',
  '/SHOP',
  '/a.b',
];
const HOSTS = ['a.example', 'B.EXAMPLE:8080', 'api.example'];
const HEADERS: readonly (readonly [string, string])[][] = [
  [],
  [['x-a', 'shop']],
  [
    ['x-a', 'cart'],
    ['x-a', 'a.b'],
    ['x-env', 'prod'],
  ],
  [['x-forwarded-for', '10.1.2.3']],
  [['x-forwarded-for', '192.168.1.7, 2001:db8::1']],
];

/** Each with what it differs in from the one before, so that every value meets some others. */
const CALLS = PATHS.flatMap((path, index) =>
  HEADERS.map((headers, other) => ({
    path,
    headers,
    method: METHODS[(index + other) % METHODS.length]!,
    host: HOSTS[(index * 2 + other) % HOSTS.length]!,
  })),
);

/** The rules of a set on one port that takes plain text; what asks an authorizer is left out. */
function listenerOf(set: { node: { namespace: string }; documents: JsonObject[] }): JsonObject {
  const { namespace } = set.node;
  const documents = set.documents.filter(
    ({ kind, spec }) =>
      kind === 'RequestAuthentication' ||
      (kind === 'AuthorizationPolicy' && objectOf(spec).action !== 'CUSTOM'),
  );
  const around = [
    {
      apiVersion: 'networking.istio.io/v1',
      kind: 'Sidecar',
      metadata: { name: 'w', namespace },
      spec: { ingress: [{ port: { number: 8080, protocol: 'HTTP', name: 'http' } }] },
    },
    {
      apiVersion: 'security.istio.io/v1',
      kind: 'PeerAuthentication',
      metadata: { name: 'default', namespace },
      spec: { mtls: { mode: 'DISABLE' } },
    },
  ];
  const text = [...documents, ...around].map((each) => JSON.stringify(each)).join('\n---\n');
  const { resources, problems } = readPolicies([{ name: 'set', bytes: Buffer.from(text) }]);
  expect(problems).toEqual([]);
  const workload = { namespace, labels: { app: 'w', v: '1' }, address: '127.0.0.1' };
  return compile(new ResourceIndex(resources), workload, mesh).listeners[0]!;
}

/** One rule each, that denies by one field: every matcher decides by itself. */
const SINGLE: readonly JsonObject[] = [
  ...[
    '/shop',
    '/shop*',
    '*cart',
    '*',
    '/t/{*}/end',
    '/t/{**}',
    '/v1/{*}/x/{**}',
    '/a/b',
    '/a.b',
  ].map((path) => ({ to: [{ operation: { paths: [path] } }] })),
  ...['a.example', 'b.example:8080', '*.EXAMPLE', 'api.*', '*', 'A.*'].map((host) => ({
    to: [{ operation: { hosts: [host] } }],
  })),
  ...['GET', 'P*', '*T', '*', 'get'].map((method) => ({
    to: [{ operation: { methods: [method] } }],
  })),
  { to: [{ operation: { notMethods: ['GET'], notPaths: ['/shop*'] } }] },
  { to: [{ operation: { ports: ['8080'] } }] },
  { to: [{ operation: { notPorts: ['8080'] } }] },
  ...['127.0.0.0/8', '127.0.0.1', '10.0.0.0/8', '::1', '0.0.0.0/0'].flatMap((ip) => [
    { from: [{ source: { ipBlocks: [ip] } }] },
    { from: [{ source: { remoteIpBlocks: [ip] } }] },
    { from: [{ source: { notRemoteIpBlocks: [ip] } }] },
  ]),
  ...['shop', 'cart,a.b', 'cart', 'a.b', 'cart*', '*b', '*', 'SHOP'].flatMap((value) => [
    { when: [{ key: 'request.headers[X-A]', values: [value] }] },
    { when: [{ key: 'request.headers[x-a]', notValues: [value] }] },
  ]),
  { from: [{ source: { principals: ['*'] } }] },
  { from: [{ source: { notPrincipals: ['td1/ns/a/sa/b'] } }] },
  { from: [{ source: { requestPrincipals: ['*'] } }] },
  { from: [{ source: { notRequestPrincipals: ['*'] } }] },
  { when: [{ key: 'request.auth.claims[a][b]', notValues: ['c'] }] },
  { when: [{ key: 'destination.ip', values: ['127.0.0.1'] }] },
  { when: [{ key: 'connection.sni', values: ['*'] }] },
];

const singleSets = SINGLE.map((rule, index) => ({
  node: { namespace: `single-${index}` },
  documents: [
    {
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'deny', namespace: `single-${index}` },
      spec: { action: 'DENY', rules: [rule] },
    },
  ],
}));

/** On a port that is free, answering itself, and saying in its refusals why. */
function standalone(listener: JsonObject, name: string): JsonObject {
  return {
    ...listener,
    name,
    address: { socketAddress: { address: '127.0.0.1', portValue: 0 } },
    filterChains: objectsOf(listener.filterChains).map((chain) => ({
      filters: objectsOf(chain.filters).map((filter) => ({
        ...filter,
        typedConfig: {
          ...objectOf(filter.typedConfig),
          routeConfig: {
            virtualHosts: [
              {
                name: 'all',
                domains: ['*'],
                routes: [{ match: { prefix: '/' }, directResponse: { status: 200 } }],
              },
            ],
          },
          localReplyConfig: {
            bodyFormat: { textFormatSource: { inlineString: '%RESPONSE_CODE_DETAILS%' } },
          },
        },
      })),
    })),
  };
}

describeWith('envoy')('what policy explain says', () => {
  const listeners = [...recorded.sets.slice(0, SETS), ...singleSets].map(listenerOf);
  let envoy: Envoy;

  beforeAll(async () => {
    envoy = await startEnvoy({
      dir: tempDir(),
      name: 'explain',
      config: {
        admin: { address: { socketAddress: { address: '127.0.0.1', portValue: 0 } } },
        staticResources: {
          listeners: listeners.map((each: JsonObject, index: number) =>
            standalone(each, `set-${index}`),
          ),
        },
      },
    });
  });
  afterAll(() => envoy?.stop());

  test('of generated sets and of each matcher alone a real Envoy does, and names the same rule', async () => {
    const outcomes = new Map<string, number>();
    for (const [index, listener] of listeners.entries()) {
      const port = await envoy.port(`set-${index}`);
      for (const call of CALLS) {
        const said = await explained(listener, port, call);
        const did = await fired(port, call);
        expect([index, call, said]).toEqual([index, call, did]);
        const kind = said.replace(/\[.*/, '');
        outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1);
      }
    }
    // Every kind of answer was met.
    expect([...outcomes.keys()].sort()).toEqual(['allowed', 'rbac_access_denied_matched_policy']);
  });
});

type Fired = (typeof CALLS)[number];

async function explained(listener: JsonObject, port: number, call: Fired): Promise<string> {
  const onPort = {
    ...listener,
    address: { socketAddress: { address: '127.0.0.1', portValue: port } },
    filterChains: objectsOf(listener.filterChains).map(({ filters }) => ({ filters: filters! })),
  };
  const { kind, decidedBy } = await evaluate(
    onPort,
    {
      ...call,
      from: undefined,
      port,
      ip: '127.0.0.1',
      localIp: '127.0.0.1',
      serverName: '',
    },
    { verify: async () => false, now: 0 },
  );
  if (kind === 'allow') return 'allowed';
  return `rbac_access_denied_matched_policy[${decidedBy ?? 'none'}]`;
}

function fired(port: number, { method, path, host, headers }: Fired): Promise<string> {
  return new Promise((done, failed) => {
    const asked = request(
      {
        host: '127.0.0.1',
        port,
        method,
        path,
        agent: false,
        headers: [['host', host], ...headers].flat() as string[],
      },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.on('end', () => done(response.statusCode === 200 ? 'allowed' : body));
      },
    );
    asked.on('error', failed).end();
  });
}
