import { expect, test } from '@jest/globals';
import { compile } from '../../../agent/policy/compile';
import { evaluateCall } from '../../../agent/policy/evaluate/listener';
import { requestOf } from '../../../agent/policy/evaluate/request';
import { defaultMesh } from '../../../agent/policy/read-mesh';
import { readPolicies } from '../../../agent/policy/read-policies';
import type { JsonObject } from '../../../agent/policy/resources/resource';
import { ResourceIndex } from '../../../agent/policy/select';

const document = (group: string, kind: string, name: string, spec: JsonObject): JsonObject => ({
  apiVersion: `${group}.istio.io/v1`,
  kind,
  metadata: { name, namespace: 'shop' },
  spec,
});
const SIDECAR = document('networking', 'Sidecar', 'all', {
  ingress: [
    { port: { number: 8080, protocol: 'HTTP', name: 'http' }, captureMode: 'NONE' },
    { port: { number: 9090, protocol: 'TCP', name: 'tcp' }, captureMode: 'NONE' },
  ],
});
const peers = (mode: string) =>
  document('security', 'PeerAuthentication', 'default', { mtls: { mode } });
const policy = (name: string, spec: JsonObject) =>
  document('security', 'AuthorizationPolicy', name, spec);

interface Asked {
  readonly path?: string;
  readonly from?: string;
  readonly port?: number;
  readonly claims?: JsonObject;
}

function verdict(
  documents: readonly JsonObject[],
  { from, port = 8080, claims, path = '/' }: Asked = {},
) {
  const text = [SIDECAR, ...documents].map((each) => JSON.stringify(each)).join('\n---\n');
  const { resources, problems } = readPolicies([{ name: 'a', bytes: Buffer.from(text) }]);
  expect(problems).toEqual([]);
  const mesh = defaultMesh('example.org');
  const { listeners } = compile(
    new ResourceIndex(resources),
    { namespace: 'shop', labels: {}, address: '127.0.0.1' },
    mesh,
  );
  const request = { method: 'GET', path, host: 'a', headers: [], claims };
  return evaluateCall(listeners, {
    peer: from,
    port,
    serverName: '',
    directIp: '127.0.0.1',
    remoteIp: '127.0.0.1',
    destinationIp: '127.0.0.1',
    request: port === 8080 ? requestOf(request, mesh.pathNormalization) : undefined,
  });
}

const CART = 'spiffe://example.org/ns/shop/sa/cart';
const allowCart = policy('cart', {
  rules: [{ from: [{ source: { principals: ['example.org/ns/shop/sa/cart'] } }] }],
});

test.each([
  ['plain text where no policy is', [], {}, 'allow', 'no policy of ALLOW'],
  ['plain text on a STRICT port', [peers('STRICT')], {}, 'refused', 'connection'],
  ['mutual TLS on a DISABLE port', [peers('DISABLE')], { from: CART }, 'refused', 'connection'],
  [
    'a peer of another trust domain',
    [],
    { from: 'spiffe://other/ns/shop/sa/cart' },
    'refused',
    'handshake',
  ],
  ['a port without a listener', [], { port: 1 }, 'refused', 'listener'],
  [
    'the account that is allowed',
    [allowCart],
    { from: CART },
    'allow',
    'ns[shop]-policy[cart]-rule[0]',
  ],
  ['another account', [allowCart], { from: `${CART}2` }, 'deny', 'no rule of ALLOW'],
  [
    'plain text past a DENY by principals',
    [policy('no', { action: 'DENY', rules: [{ from: [{ source: { principals: ['*'] } }] }] })],
    {},
    'allow',
    'no policy of ALLOW',
  ],
  [
    'a dry run',
    [
      {
        ...policy('no', { action: 'DENY', rules: [{}] }),
        metadata: { name: 'no', namespace: 'shop', annotations: { 'istio.io/dry-run': 'true' } },
      },
    ],
    {},
    'allow',
    'no policy of ALLOW',
  ],
  [
    'nobody, by an ALLOW without rules',
    [policy('none', {})],
    { from: CART },
    'deny',
    'no rule of ALLOW',
  ],
  [
    'DENY with paths only, on a TCP port',
    [policy('no', { action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin'] } }] }] })],
    { port: 9090 },
    'deny',
    'ns[shop]-policy[no]-rule[0]',
  ],
  [
    'ALLOW with paths only, on a TCP port',
    [policy('yes', { rules: [{ to: [{ operation: { paths: ['/'] } }] }] })],
    { port: 9090 },
    'deny',
    'no rule of ALLOW',
  ],
  [
    'a claim that is a list',
    [
      policy('group', {
        rules: [{ when: [{ key: 'request.auth.claims[groups]', values: ['admins'] }] }],
      }),
    ],
    { claims: { groups: ['users', 'admins'] } },
    'allow',
    'ns[shop]-policy[group]-rule[0]',
  ],
  [
    'an issuer and a subject',
    [
      policy('jwt', {
        rules: [{ from: [{ source: { requestPrincipals: ['https://iss/a/sub'] } }] }],
      }),
    ],
    { claims: { iss: 'https://iss/a', sub: 'sub' } },
    'allow',
    'ns[shop]-policy[jwt]-rule[0]',
  ],
  [
    'no token, where one is required',
    [
      policy('jwt', {
        action: 'DENY',
        rules: [{ from: [{ source: { notRequestPrincipals: ['*'] } }] }],
      }),
    ],
    {},
    'deny',
    'ns[shop]-policy[jwt]-rule[0]',
  ],
])('%s', (_, documents, asked, outcome, by) => {
  expect(verdict(documents as JsonObject[], asked)).toMatchObject({ outcome, by });
});

test('a path with a fragment, which Envoy answers itself', () => {
  expect(verdict([], { path: '/a#b' })).toMatchObject({ outcome: 'refused', by: 'path' });
});

test('an authorizer that cannot be asked denies what it would have been asked about', () => {
  const custom = policy('ask', { action: 'CUSTOM', provider: { name: 'opa' }, rules: [{}] });
  expect(verdict([custom])).toMatchObject({
    outcome: 'deny',
    by: expect.stringContaining('bad-CUSTOM'),
  });
});

test('the condition that failed is named for each rule', () => {
  const { steps } = verdict([allowCart], { from: 'spiffe://example.org/ns/shop/sa/pay' });
  expect(steps).toEqual([
    {
      guard: 'ALLOW',
      says: 'no rule matched',
      missed: [
        {
          policy: 'ns[shop]-policy[cart]-rule[0]',
          why: 'the peer is spiffe://example.org/ns/shop/sa/pay, not "spiffe://example.org/ns/shop/sa/cart"',
        },
      ],
    },
  ]);
});
