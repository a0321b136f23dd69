import { generateKeyPairSync } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { compile } from '../../../agent/policy/compile';
import { evaluate } from '../../../agent/policy/evaluate/evaluate';
import { defaultMesh } from '../../../agent/policy/read-mesh';
import { readPolicies } from '../../../agent/policy/read-policies';
import { objectOf } from '../../../agent/policy/resources/fields';
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
  readonly isSigned?: boolean;
  readonly path?: string;
  readonly from?: string;
  readonly port?: number;
  readonly claims?: JsonObject;
}

function verdict(
  documents: readonly JsonObject[],
  { from, port = 8080, claims, path = '/', isSigned = true }: Asked = {},
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
  const listener = listeners.find(
    ({ address }) => objectOf(objectOf(address).socketAddress).portValue === port,
  )!;
  const bearer = claims ? [['authorization', `Bearer ${tokenOf(claims)}`] as const] : [];
  const request = {
    from,
    port,
    method: 'GET',
    path,
    host: 'a',
    headers: bearer,
    ip: '127.0.0.1',
    localIp: '127.0.0.1',
    serverName: '',
  };
  return evaluate(listener, request, { verify: async () => isSigned, now: 1_000 });
}

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const tokenOf = (claims: JsonObject) => `${part({ alg: 'ES256' })}.${part(claims)}.AA`;

const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ISSUER = 'https://iss/a';
const tokens = document('security', 'RequestAuthentication', 'jwt', {
  jwtRules: [
    { issuer: ISSUER, jwks: JSON.stringify({ keys: [publicKey.export({ format: 'jwk' })] }) },
  ],
});

const CART = 'spiffe://example.org/ns/shop/sa/cart';
const allowCart = policy('cart', {
  rules: [{ from: [{ source: { principals: ['example.org/ns/shop/sa/cart'] } }] }],
});

const RULE = (name: string) => `ns[shop]-policy[${name}]-rule[0]`;

test.each([
  ['plain text where no policy is', [], {}, 'allow', undefined],
  ['plain text on a STRICT port', [peers('STRICT')], {}, 'reset', undefined],
  ['mutual TLS on a DISABLE port', [peers('DISABLE')], { from: CART }, 'reset', undefined],
  ['a peer of another trust domain', [], { from: 'spiffe://other/ns/a/sa/b' }, 'reset', undefined],
  ['the account that is allowed', [allowCart], { from: CART }, 'allow', RULE('cart')],
  ['another account', [allowCart], { from: `${CART}2` }, 'deny', undefined],
  [
    'plain text past a DENY by principals',
    [policy('no', { action: 'DENY', rules: [{ from: [{ source: { principals: ['*'] } }] }] })],
    {},
    'allow',
    undefined,
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
    undefined,
  ],
  ['nobody, by an ALLOW without rules', [policy('none', {})], { from: CART }, 'deny', undefined],
  [
    'DENY with paths only, on a TCP port',
    [policy('no', { action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin'] } }] }] })],
    { port: 9090 },
    'reset',
    RULE('no'),
  ],
  [
    'ALLOW with paths only, on a TCP port',
    [policy('yes', { rules: [{ to: [{ operation: { paths: ['/'] } }] }] })],
    { port: 9090 },
    'reset',
    undefined,
  ],
  [
    'a claim that is a list',
    [
      tokens,
      policy('group', {
        rules: [{ when: [{ key: 'request.auth.claims[groups]', values: ['admins'] }] }],
      }),
    ],
    { claims: { iss: ISSUER, groups: ['users', 'admins'] } },
    'allow',
    RULE('group'),
  ],
  [
    'an issuer and a subject',
    [
      tokens,
      policy('jwt', { rules: [{ from: [{ source: { requestPrincipals: [`${ISSUER}/sub`] } }] }] }),
    ],
    { claims: { iss: ISSUER, sub: 'sub' } },
    'allow',
    RULE('jwt'),
  ],
  [
    'no token, where one is required',
    [
      tokens,
      policy('jwt', {
        action: 'DENY',
        rules: [{ from: [{ source: { notRequestPrincipals: ['*'] } }] }],
      }),
    ],
    {},
    'deny',
    RULE('jwt'),
  ],
])('%s', async (_, documents, asked, kind, decidedBy) => {
  expect(await verdict(documents as JsonObject[], asked)).toMatchObject({ kind, decidedBy });
});

test.each([
  ['is not signed by a key of its issuer', { iss: ISSUER }, false, 'Jwt verification fails'],
  ['is of an issuer that no rule names', { iss: 'b' }, true, 'Jwt issuer is not configured'],
  ['has ended', { iss: ISSUER, exp: 1 }, true, 'Jwt is expired'],
])(
  'a token that %s is answered with 401, whatever the policies allow',
  async (_, claims, isSigned, reason) => {
    const said = await verdict([tokens], { claims, isSigned });
    expect(said).toMatchObject({ kind: 'deny', status: 401, reason });
  },
);

test('a path with a fragment, which Envoy answers itself', async () => {
  expect(await verdict([], { path: '/a#b' })).toMatchObject({ kind: 'deny', status: 400 });
});

test('an authorizer that cannot be asked denies what it would have been asked about', async () => {
  const custom = policy('ask', { action: 'CUSTOM', provider: { name: 'opa' }, rules: [{}] });
  expect(await verdict([custom])).toMatchObject({
    kind: 'deny',
    decidedBy: expect.stringContaining('bad-CUSTOM'),
  });
});

test('the condition that failed is named for each rule', async () => {
  const { filters } = await verdict([allowCart], { from: 'spiffe://example.org/ns/shop/sa/pay' });
  expect(filters.map(({ rules }) => rules?.policies)).toEqual([
    [
      {
        name: RULE('cart'),
        matched: false,
        failed: expect.stringContaining('spiffe://example.org/ns/shop/sa/cart'),
      },
    ],
  ]);
});
