import { describe, expect, test } from '@jest/globals';
import { readPolicies } from '../../../agent/policy/read-policies';
import { formatProblem } from '../../../agent/policy/resources/problem';

const read = (...texts: string[]) =>
  readPolicies(texts.map((text, index) => ({ name: `${index}.yaml`, bytes: Buffer.from(text) })));
const refused = (...texts: string[]) => read(...texts).problems.map(formatProblem);

const policy = (spec: string, name = 'p', kind = 'AuthorizationPolicy') => `
apiVersion: security.istio.io/v1
kind: ${kind}
metadata: {name: ${name}, namespace: shop}
spec: ${spec}
`;
const rule = (source: string) => policy(`{rules: [{from: [{source: ${source}}]}]}`);
const operation = (fields: string) => policy(`{rules: [{to: [{operation: ${fields}}]}]}`);
const when = (condition: string) => policy(`{rules: [{when: [${condition}]}]}`);

describe('what is refused', () => {
  test.each([
    [
      'an unknown field, for istiod drops it and the policy becomes wider',
      operation('{portz: ["80"]}'),
      '0.yaml:5: spec.rules[0].to[0].operation.portz is no field of this kind (did you mean ports?)',
    ],
    [
      'snake case',
      policy('{selector: {match_labels: {}}}'),
      '0.yaml:5: spec.selector.match_labels is no field of this kind (did you mean matchLabels?)',
    ],
    [
      'a number for a text',
      operation('{ports: [80]}'),
      '0.yaml:5: spec.rules[0].to[0].operation.ports[0] must be a text, not 80, a number (put it in quotes: "80")',
    ],
    [
      'a text for a list',
      operation('{ports: "80"}'),
      '0.yaml:5: spec.rules[0].to[0].operation.ports must be a list, not a text',
    ],
    [
      'an action that is none',
      policy('{action: ALOW}'),
      '0.yaml:5: spec.action must be one of ALLOW, DENY, AUDIT, CUSTOM, not ALOW (write ALLOW)',
    ],
    [
      'a key that is there twice',
      'a: 1\nb: 2\na: 3\n',
      '0.yaml:3: is not YAML: duplicated mapping key',
    ],
    [
      'DENY without rules',
      policy('{action: DENY}'),
      '0.yaml:5: spec.rules must be there: DENY without rules never applies (write rules: [{}] for every request)',
    ],
    ['an empty source', rule('{}'), /source must not be empty/],
    ['an empty value', rule('{principals: [""]}'), /principals\[0\] must not be empty/],
    [
      'accounts beside namespaces',
      rule('{serviceAccounts: [a], notNamespaces: [b]}'),
      /must not set serviceAccounts with namespaces or principals/,
    ],
    [
      'an address that is none',
      rule('{ipBlocks: [10.0.0.0/33]}'),
      /must be an address or a CIDR block/,
    ],
    ['an octal address', rule('{ipBlocks: [010.0.0.1]}'), /must be an address or a CIDR block/],
    ['port 65536', operation('{ports: ["65536"]}'), /must be a port, at most 65535/],
    [
      'a template in the middle of a segment',
      operation('{paths: ["/a{*}"]}'),
      /must have \{ and \} only as/,
    ],
    ['an operator behind {**}', operation('{paths: ["/{**}/{*}"]}'), /must be the last/],
    [
      'an attribute that is none',
      when('{key: source.principals, values: [a]}'),
      /source.principals is no attribute/,
    ],
    ['a condition without values', when('{key: source.ip}'), /must have values or notValues/],
    [
      'a header without a name',
      when('{key: request.headers, values: [a]}'),
      /must end in a name in brackets/,
    ],
    [
      'identities for an external authorizer',
      policy(
        '{action: CUSTOM, provider: {name: opa}, rules: [{from: [{source: {principals: ["*"]}}]}]}',
      ),
      /must not stand in a CUSTOM policy/,
    ],
    [
      'CUSTOM without a provider',
      policy('{action: CUSTOM, rules: [{}]}'),
      /spec.provider.name must not be empty/,
    ],
    [
      'a port level without a selector',
      policy('{portLevelMtls: {80: {mode: STRICT}}}', 'p', 'PeerAuthentication'),
      /needs a selector/,
    ],
    [
      'port 0',
      policy(
        '{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}',
        'p',
        'PeerAuthentication',
      ),
      /must be a port, 1 to 65535/,
    ],
    [
      'a private key',
      policy(
        `{jwtRules: [{issuer: i, jwks: '{"keys":[{"kty":"oct","k":"AA"}]}'}]}`,
        'p',
        'RequestAuthentication',
      ),
      /key 0 is private or symmetric/,
    ],
    [
      'keys that are none',
      policy('{jwtRules: [{issuer: i, jwks: nonsense}]}', 'p', 'RequestAuthentication'),
      /must be a JSON Web Key Set/,
    ],
    [
      'a rule without an issuer',
      policy('{jwtRules: [{}]}', 'p', 'RequestAuthentication'),
      /issuer must not be empty/,
    ],
    [
      'a kind of Istio that has no effect here',
      'apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {name: a}\n',
      /EnvoyFilter of networking.istio.io has no effect here/,
    ],
    [
      'a version that never was',
      policy('{}').replace('v1', 'v1alpha1'),
      /write security.istio.io\/v1/,
    ],
    ['a resource without a name', policy('{}', '""'), '0.yaml:2: metadata.name is missing'],
    ['a tab', 'a:\n\tb: 1\n', /0.yaml:2: is not YAML: tab characters/],
    ['101 levels', `a: ${'['.repeat(101)}${']'.repeat(101)}`, /is not YAML: nesting/],
    ['a bomb of aliases', bomb(), /more than 100000 values|is not YAML/],
  ])('%s', (_, text, problem) => {
    const [first] = refused(text);
    if (typeof problem === 'string') expect(first).toBe(problem);
    else expect(first).toMatch(problem);
  });

  test('a name that another file has too', () => {
    expect(refused(policy('{}'), policy('{}'))).toEqual([
      '1.yaml:2: AuthorizationPolicy shop/p is there already, at 0.yaml:2 (remove one, or give it another name)',
    ]);
  });

  test('everything that is wrong, not only the first', () => {
    expect(refused(policy('{actionn: ALLOW, rulez: []}'), rule('{}')).length).toBe(3);
  });

  test('bytes that are not UTF-8, and a file that is too large', () => {
    const files = [
      { name: 'a', bytes: Uint8Array.of(0xff, 0xfe) },
      { name: 'b', bytes: Buffer.alloc((1 << 20) + 1, 32) },
    ];
    expect(readPolicies(files).problems.map(formatProblem)).toEqual([
      'a:1: the file is not UTF-8 (convert it with iconv -t utf-8)',
      'b:1: the file is larger than 1 MiB',
    ]);
  });
});

describe('what is taken', () => {
  test('as kubectl get -o yaml writes it: a List, with status and what the server has set', () => {
    const { resources, problems } = read(`
apiVersion: v1
kind: List
items:
- apiVersion: security.istio.io/v1beta1
  kind: PeerAuthentication
  metadata:
    name: default
    namespace: shop
    uid: 1d0e
    resourceVersion: "12"
    generation: 3
    creationTimestamp: "2026-01-02T03:04:05Z"
    managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  spec: {mtls: {mode: STRICT}}
  status: {conditions: []}
`);
    expect(problems).toEqual([]);
    expect(resources).toMatchObject([
      {
        kind: 'PeerAuthentication',
        name: 'default',
        createdAt: Date.parse('2026-01-02T03:04:05Z'),
      },
    ]);
    expect(resources[0]!.at(['spec', 'mtls', 'mode'])).toEqual({ file: '0.yaml', line: 15 });
  });

  test('a BOM, CRLF, JSON, several documents and other kinds, which are named', () => {
    const { resources, problems, skipped } = read(
      `\ufeff${policy('{}', 'a').replaceAll('\n', '\r\n')}---\r\n---\napiVersion: v1\nkind: Service\n`,
      JSON.stringify({
        apiVersion: 'security.istio.io/v1',
        kind: 'AuthorizationPolicy',
        metadata: { name: 'b' },
      }),
    );
    expect(problems).toEqual([]);
    expect(resources.map(({ namespace, name }) => `${namespace}/${name}`)).toEqual([
      'shop/a',
      'default/b',
    ]);
    expect(skipped.map(formatProblem)).toEqual([
      expect.stringMatching(/^0.yaml:\d+: Service of the core group is no policy, skipped$/),
    ]);
  });

  test('__proto__ as a name like another, and durations of Go', () => {
    const { resources, problems } = read(
      policy('{selector: {matchLabels: {__proto__: x}}}', '__proto__'),
      policy('{jwtRules: [{issuer: i, timeout: 1m30.5s}]}', 'p', 'RequestAuthentication'),
    );
    expect(problems).toEqual([]);
    expect(JSON.stringify(resources[0]!.spec)).toBe(
      '{"selector":{"matchLabels":{"__proto__":"x"}}}',
    );
    expect(resources[1]!.spec).toMatchObject({ jwtRules: [{ timeout: '90.5s' }] });
  });

  test('lines of what an alias stands for', () => {
    const { resources } = read(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec:
  rules:
  - to: &to
    - operation:
        methods: [GET]
  - to: *to
`);
    expect(resources[0]!.at(['spec', 'rules', 1, 'to', 0, 'operation', 'methods']).line).toBe(9);
  });
});

function bomb(): string {
  const levels = [...Array(8).keys()].map(
    (level) => `a${level + 1}: &a${level + 1} [${Array(10).fill(`*a${level}`).join(', ')}]`,
  );
  return [
    'apiVersion: security.istio.io/v1',
    'kind: AuthorizationPolicy',
    'metadata: {name: a}',
    'spec: {}',
    'status:',
    '  a0: &a0 [x]',
    ...levels.map((line) => `  ${line}`),
    '',
  ].join('\n');
}

test('a document that is wrong throughout is refused without a search for each line', () => {
  const fields = Array.from({ length: 60_000 }, (_, index) => `a${index}: 1`).join(', ');
  const found = refused(policy(`{${fields}}`));
  expect(found.length).toBe(101);
  expect(found.at(-1)).toMatch(/is not read further: it has 100 problems/);
  const values = Array.from({ length: 60_000 }, () => 'x').join(', ');
  expect(refused(operation(`{ports: [${values}]}`)).length).toBe(100);
});

test.each(['a/b', 'a b', 'a]', 'a\\0'])(
  'the name %j is refused: Envoy names its policies by it',
  (name) => {
    expect(refused(policy('{}', `"${name}"`))).toEqual([
      '0.yaml:4: metadata.name must be at most 253 characters without spaces and any of / [ ]',
    ]);
  },
);
