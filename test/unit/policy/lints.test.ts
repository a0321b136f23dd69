import { describe, expect, test } from '@jest/globals';
import { LINTS, lintPolicies } from '../../../agent/policy/lint/lint-policies';
import { readMesh } from '../../../agent/policy/read-mesh';
import { readPolicies } from '../../../agent/policy/read-policies';
import type { PolicyWorkload } from '../../../agent/policy/workload';

const MESH = `
trustDomain: example.org
trustDomainAliases: [old.example]
caCertificates: [{ trustDomains: [partner.example] }]
extensionProviders:
  - { name: opa, envoyExtAuthzGrpc: { service: opa.shop.example, port: 9000 } }
  - { name: web, envoyExtAuthzHttp: { service: nowhere.example, port: 8000 } }
`;

/** Documents of the namespace shop, of which only what matters is written. */
function policies(documents: string): string {
  return documents
    .split(/^---\n/m)
    .map((each) => {
      const [head = '', ...spec] = each.trim().split('\n');
      const [kind = '', name = 'it', namespace = 'shop', ...annotation] = head.split(' ');
      const group = /Sidecar|Entry|Rule/.test(kind) ? 'networking' : 'security';
      return [
        `apiVersion: ${group}.istio.io/v1`,
        `kind: ${kind}`,
        `metadata: { name: ${name}, namespace: ${namespace}${annotation.length > 0 ? `, annotations: { ${annotation.join(' ')} }` : ''} }`,
        'spec:',
        ...(spec.length === 0 ? ['  {}'] : spec.map((line) => `  ${line}`)),
      ].join('\n');
    })
    .join('\n---\n');
}

function lintsOf(documents: string, workloads: readonly PolicyWorkload[] = []) {
  const bytes = Buffer.from(policies(documents));
  const read = readPolicies([{ name: 'p.yaml', bytes }]);
  expect(read.problems).toEqual([]);
  const { mesh } = readMesh({ name: 'mesh.yaml', text: MESH }, undefined);
  return lintPolicies(read.resources, mesh, workloads);
}

const found = (documents: string, lint: string) =>
  lintsOf(documents)
    .filter((each) => each.lint === lint)
    .map(({ resource, path, message }) => `${resource} ${path} ${message}`);

const STRICT = 'PeerAuthentication default\nmtls: { mode: STRICT }\n';
const SIDECAR = `Sidecar cart
workloadSelector: { labels: { app: cart } }
ingress:
  - { port: { number: 8080, protocol: HTTP, name: http }, captureMode: NONE }
  - { port: { number: 9000, protocol: TCP, name: tcp }, captureMode: NONE }
`;
const set = (...documents: string[]) => documents.join('---\n');

/** The lint, what it must find (a part of it), and the same put right. */
const CASES: Readonly<
  Record<string, readonly { finds: string; in: string; not: readonly string[] }[]>
> = {
  'http-fields-on-tcp-port': [
    {
      finds: 'denies every connection on TCP port 9000',
      in: set(
        SIDECAR,
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { paths: [/admin] } }] }]\n',
      ),
      not: [
        set(
          SIDECAR,
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { paths: [/admin], ports: ["8080"] } }] }]\n',
        ),
        set(
          SIDECAR,
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { paths: [/admin], notPorts: ["9000"] } }] }]\n',
        ),
        set(
          SIDECAR,
          'AuthorizationPolicy deny\nselector: { matchLabels: { app: other } }\naction: DENY\nrules: [{ to: [{ operation: { paths: [/admin] } }] }]\n',
        ),
        set(
          SIDECAR,
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { namespaces: [dev] } }] }]\n',
        ),
      ],
    },
    {
      finds: 'denies connections by its other fields alone on TCP port 9000',
      in: set(
        SIDECAR,
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { namespaces: [dev] } }], to: [{ operation: { methods: [GET] } }] }]\n',
      ),
      not: [],
    },
    {
      finds: 'allows nothing on TCP port 9000',
      in: set(
        SIDECAR,
        'AuthorizationPolicy allow\nrules: [{ when: [{ key: "request.headers[x]", values: [a] }] }]\n',
      ),
      not: [
        set(
          SIDECAR,
          'AuthorizationPolicy allow\nrules: [{ when: [{ key: "request.headers[x]", values: [a] }, { key: destination.port, values: ["8080"] }] }]\n',
        ),
      ],
    },
  ],
  'identity-in-plain-text': [
    {
      finds: 'principals never denies a call in plain text: mutual TLS is PERMISSIVE',
      in: 'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { principals: ["*/ns/dev/sa/*"] } }] }]\n',
      not: [
        set(
          STRICT,
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { principals: ["*/ns/dev/sa/*"] } }] }]\n',
        ),
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { notPrincipals: ["*/ns/dev/sa/*"] } }] }]\n',
      ],
    },
    {
      finds: 'namespaces never allows a call in plain text, although mutual TLS is PERMISSIVE',
      in: 'AuthorizationPolicy allow\nrules: [{ from: [{ source: { namespaces: ["*"] } }] }]\n',
      not: [
        set(
          STRICT,
          'AuthorizationPolicy allow\nrules: [{ from: [{ source: { namespaces: ["*"] } }] }]\n',
        ),
      ],
    },
    {
      finds: 'notNamespaces lets every caller in plain text in',
      in: 'AuthorizationPolicy allow\nrules: [{ from: [{ source: { notNamespaces: [dev] } }] }]\n',
      not: [],
    },
    {
      finds: 'when[0].values never allows a call in plain text, although port 8080 is DISABLE',
      in: set(
        SIDECAR,
        STRICT,
        'PeerAuthentication cart\nselector: { matchLabels: { app: cart } }\nportLevelMtls: { "8080": { mode: DISABLE } }\n',
        'AuthorizationPolicy allow\nrules: [{ when: [{ key: source.serviceAccount, values: [web] }] }]\n',
      ),
      not: [
        set(
          SIDECAR,
          STRICT,
          'PeerAuthentication cart\nselector: { matchLabels: { app: cart } }\nportLevelMtls: { "8080": { mode: DISABLE } }\n',
          'AuthorizationPolicy allow\nrules: [{ from: [{ source: { serviceAccounts: [web] } }], to: [{ operation: { ports: ["9000"] } }] }]\n',
        ),
      ],
    },
  ],
  'spoofable-remote-ip': [
    {
      finds: 'remoteIpBlocks is compared with x-forwarded-for',
      in: 'AuthorizationPolicy allow\nrules: [{ from: [{ source: { remoteIpBlocks: [10.0.0.0/8] } }] }]\n',
      not: [
        'AuthorizationPolicy allow\nrules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }]\n',
        'AuthorizationPolicy allow\nrules: [{ from: [{ source: { remoteIpBlocks: [10.0.0.0/8], principals: [example.org/ns/istio-system/sa/gateway] } }] }]\n',
      ],
    },
    {
      finds: 'when[0].notValues is compared with x-forwarded-for',
      in: 'AuthorizationPolicy deny\naction: DENY\nrules: [{ when: [{ key: remote.ip, notValues: [10.0.0.0/8] }] }]\n',
      not: [],
    },
  ],
  'host-without-port': [
    {
      finds: 'hosts[0] a.example does not match Host: a.example:443, which passes by the rule',
      in: 'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { hosts: [a.example] } }] }]\n',
      not: [
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { hosts: [a.example, "A.example:*"] } }] }]\n',
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { hosts: ["a.example*"] } }] }]\n',
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { hosts: ["a.example:8080"] } }] }]\n',
      ],
    },
    {
      finds: 'notHosts[0] *.example does not match Host: x.example:443, which passes by the rule',
      in: 'AuthorizationPolicy allow\nrules: [{ to: [{ operation: { notHosts: ["*.example"] } }] }]\n',
      not: [],
    },
    {
      finds: 'when[0].values[0] a.example does not match Host: a.example:443',
      in: 'AuthorizationPolicy allow\nrules: [{ when: [{ key: "request.headers[:authority]", values: [a.example] }] }]\n',
      not: [],
    },
  ],
  'request-principal-without-jwt': [
    {
      finds: 'requestPrincipals matches no request',
      in: 'AuthorizationPolicy allow\nrules: [{ from: [{ source: { requestPrincipals: ["*"] } }] }]\n',
      not: [
        set(
          'RequestAuthentication jwt\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
          'AuthorizationPolicy allow\nrules: [{ from: [{ source: { requestPrincipals: ["*"] } }] }]\n',
        ),
        set(
          'RequestAuthentication jwt istio-system\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
          'AuthorizationPolicy allow\nrules: [{ from: [{ source: { requestPrincipals: ["*"] } }] }]\n',
        ),
      ],
    },
    {
      finds: 'notRequestPrincipals matches every request',
      in: set(
        'RequestAuthentication jwt\nselector: { matchLabels: { app: web } }\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
        'AuthorizationPolicy deny\nselector: { matchLabels: { app: cart } }\naction: DENY\nrules: [{ from: [{ source: { notRequestPrincipals: ["*"] } }] }]\n',
      ),
      not: [],
    },
    {
      finds: 'when[0].values matches no request',
      in: 'AuthorizationPolicy allow\nrules: [{ when: [{ key: "request.auth.claims[groups]", values: [a] }] }]\n',
      not: [],
    },
  ],
  'jwt-not-required': [
    {
      finds: 'jwtRules refuse wrong tokens only: a request without one passes',
      in: 'RequestAuthentication jwt\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
      not: [
        set(
          'RequestAuthentication jwt\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { notRequestPrincipals: ["*"] } }] }]\n',
        ),
        set(
          'RequestAuthentication jwt\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
          'AuthorizationPolicy allow\nrules: [{ when: [{ key: request.auth.audiences, values: [a] }] }]\n',
        ),
        'RequestAuthentication jwt\n',
      ],
    },
    {
      finds: 'a request without one passes',
      in: set(
        'RequestAuthentication jwt\njwtRules: [{ issuer: https://a.example, jwks: "{\\"keys\\":[]}" }]\n',
        'AuthorizationPolicy deny shop istio.io/dry-run: "true"\naction: DENY\nrules: [{ from: [{ source: { notRequestPrincipals: ["*"] } }] }]\n',
      ),
      not: [],
    },
  ],
  'port-level-mtls-without-port': [
    {
      finds: 'portLevelMtls.80 has no effect',
      in: set(
        SIDECAR,
        'PeerAuthentication cart\nselector: { matchLabels: { app: cart } }\nportLevelMtls: { "80": { mode: STRICT }, "8080": { mode: STRICT } }\n',
      ),
      not: [
        set(
          SIDECAR,
          'PeerAuthentication cart\nselector: { matchLabels: { app: cart } }\nportLevelMtls: { "8080": { mode: STRICT } }\n',
        ),
      ],
    },
  ],
  'peer-authentication-shadowed': [
    {
      finds: 'PeerAuthentication shop/b spec is not what counts where shop/a matches too',
      in: set('PeerAuthentication b\n', 'PeerAuthentication a\n'),
      not: [set('PeerAuthentication b other\n', 'PeerAuthentication a\n')],
    },
    {
      finds: 'PeerAuthentication shop/b spec.selector is not what counts where shop/a matches too',
      in: set(
        'PeerAuthentication a\nselector: { matchLabels: { app: cart } }\n',
        'PeerAuthentication b\nselector: { matchLabels: { app: cart, version: v1 } }\n',
      ),
      not: [
        set(
          'PeerAuthentication a\nselector: { matchLabels: { app: cart } }\n',
          'PeerAuthentication b\nselector: { matchLabels: { app: web } }\n',
        ),
        set('PeerAuthentication a\nselector: { matchLabels: { app: cart } }\n', STRICT),
      ],
    },
  ],
  'root-selector-ignored': [
    {
      finds: 'spec.selector makes the policy void',
      in: 'PeerAuthentication a istio-system\nselector: { matchLabels: { app: cart } }\n',
      not: [
        'PeerAuthentication a istio-system\n',
        'PeerAuthentication a\nselector: { matchLabels: { app: cart } }\n',
      ],
    },
  ],
  'target-ref-ignored': [
    {
      finds: 'spec.targetRefs makes the policy one for gateways',
      in: 'AuthorizationPolicy a\ntargetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: g }]\n',
      not: ['AuthorizationPolicy a\n'],
    },
  ],
  'unknown-provider': [
    {
      finds: 'MeshConfig has no provider oap',
      in: 'AuthorizationPolicy a\naction: CUSTOM\nprovider: { name: oap }\nrules: [{}]\n',
      not: [
        set(
          'ServiceEntry opa\nhosts: [opa.shop.example]\nports: [{ number: 9000, name: grpc, protocol: GRPC }]\nresolution: STATIC\nlocation: MESH_EXTERNAL\n',
          'AuthorizationPolicy a\naction: CUSTOM\nprovider: { name: opa }\nrules: [{}]\n',
        ),
      ],
    },
    {
      finds: 'provider web is invalid, no ServiceEntry has the host nowhere.example',
      in: 'AuthorizationPolicy a\naction: CUSTOM\nprovider: { name: web }\nrules: [{}]\n',
      not: [],
    },
  ],
  'several-providers': [
    {
      finds:
        'AuthorizationPolicy shop/a spec.provider.name is another provider than that of shop/b',
      in: set(
        'AuthorizationPolicy a\naction: CUSTOM\nprovider: { name: opa }\nrules: [{}]\n',
        'AuthorizationPolicy b\naction: CUSTOM\nprovider: { name: web }\nrules: [{}]\n',
      ),
      not: [
        set(
          'AuthorizationPolicy a\nselector: { matchLabels: { app: cart } }\naction: CUSTOM\nprovider: { name: opa }\nrules: [{}]\n',
          'AuthorizationPolicy b\nselector: { matchLabels: { app: web } }\naction: CUSTOM\nprovider: { name: web }\nrules: [{}]\n',
        ),
      ],
    },
  ],
  'plain-text-probe': [
    {
      finds: 'Sidecar shop/cart spec.ingress[0].port.name is the name of a port for probes',
      in: set(STRICT, SIDECAR.replace('name: http', 'name: http-metrics')),
      not: [
        SIDECAR.replace('name: http', 'name: http-metrics'),
        set(STRICT, SIDECAR),
        set(
          STRICT,
          SIDECAR.replace('name: http', 'name: http-metrics'),
          'PeerAuthentication cart\nselector: { matchLabels: { app: cart } }\nportLevelMtls: { "8080": { mode: DISABLE } }\n',
        ),
      ],
    },
    {
      finds: 'paths lets anyone in at the path of a probe, but its port is STRICT',
      in: set(
        STRICT,
        'AuthorizationPolicy allow\nrules: [{ to: [{ operation: { paths: [/healthz] } }] }]\n',
      ),
      not: [
        'AuthorizationPolicy allow\nrules: [{ to: [{ operation: { paths: [/healthz] } }] }]\n',
        set(
          STRICT,
          'AuthorizationPolicy allow\nrules: [{ from: [{ source: { namespaces: [monitoring] } }], to: [{ operation: { paths: [/metrics] } }] }]\n',
        ),
      ],
    },
  ],
  'tls-without-istio-alpn': [
    {
      finds: "spec.mtls.mode accepts plain text and Istio's TLS on HTTP port 8080",
      in: set(SIDECAR, 'PeerAuthentication default\nmtls: { mode: PERMISSIVE }\n'),
      not: [
        set(SIDECAR, STRICT),
        set(
          SIDECAR.replace('protocol: HTTP', 'protocol: TLS'),
          'PeerAuthentication default\nmtls: { mode: PERMISSIVE }\n',
        ),
      ],
    },
  ],
  'selector-matches-nothing': [
    {
      finds: 'matchLabels select no workload that is known in shop',
      in: set(SIDECAR, 'AuthorizationPolicy a\nselector: { matchLabels: { app: crat } }\n'),
      not: [
        set(
          SIDECAR,
          'AuthorizationPolicy a\nselector: { matchLabels: { app: cart, version: v1 } }\n',
        ),
        'AuthorizationPolicy a\nselector: { matchLabels: { app: crat } }\n',
      ],
    },
    {
      finds: 'metadata.namespace is shpo, of which no workload is known',
      in: set(SIDECAR, 'AuthorizationPolicy a shpo\n'),
      not: [set(SIDECAR, 'AuthorizationPolicy a istio-system\n')],
    },
    {
      finds: 'RequestAuthentication shop/jwt spec.selector.matchLabels select no workload',
      in: set(
        'WorkloadEntry vm\naddress: 192.0.2.1\nlabels: { app: cart }\n',
        'RequestAuthentication jwt\nselector: { matchLabels: { app: cart, version: v1 } }\n',
      ),
      not: [],
    },
  ],
  'unreachable-rule': [
    {
      finds: 'AuthorizationPolicy shop/a spec.rules[1] changes nothing: shop/a rule 0',
      in: 'AuthorizationPolicy a\naction: DENY\nrules:\n  - to: [{ operation: { paths: ["/admin*"] } }]\n  - to: [{ operation: { paths: [/admin/x], methods: [GET] } }]\n',
      not: [
        'AuthorizationPolicy a\naction: DENY\nrules:\n  - to: [{ operation: { paths: ["/admin*"], methods: [POST] } }]\n  - to: [{ operation: { paths: [/admin/x], methods: [GET] } }]\n',
        'AuthorizationPolicy a\naction: DENY\nrules:\n  - to: [{ operation: { paths: ["/admin/{*}"] } }]\n  - to: [{ operation: { paths: [/admin/x/y] } }]\n',
      ],
    },
    {
      finds: 'AuthorizationPolicy shop/b spec.rules[0] changes nothing: istio-system/a rule 0',
      in: set(
        'AuthorizationPolicy a istio-system\nrules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8, "2001:db8::/32"] } }] }]\n',
        'AuthorizationPolicy b\nselector: { matchLabels: { app: cart } }\nrules: [{ from: [{ source: { ipBlocks: [10.1.2.3, "2001:db8:1::/48"] } }] }]\n',
      ),
      not: [
        set(
          'AuthorizationPolicy a istio-system\nselector: { matchLabels: { app: web } }\nrules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }]\n',
          'AuthorizationPolicy b\nselector: { matchLabels: { app: cart } }\nrules: [{ from: [{ source: { ipBlocks: [10.1.2.3] } }] }]\n',
        ),
        set(
          'AuthorizationPolicy a shop istio.io/dry-run: "true"\nrules: [{}]\n',
          'AuthorizationPolicy b\nrules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }]\n',
        ),
      ],
    },
  ],
  'allow-emptied-by-deny': [
    {
      finds: 'AuthorizationPolicy shop/allow spec.rules[0] allows nothing: shop/deny rule 0',
      in: set(
        'AuthorizationPolicy allow\nrules: [{ to: [{ operation: { paths: [/a, /b], methods: [GET] } }] }]\n',
        'AuthorizationPolicy deny\naction: DENY\nrules:\n  - to: [{ operation: { paths: [/a] } }]\n  - to: [{ operation: { paths: ["/b*"] } }]\n',
      ),
      not: [
        set(
          'AuthorizationPolicy allow\nrules: [{ to: [{ operation: { paths: [/a, /b] } }] }]\n',
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ to: [{ operation: { paths: [/a] } }] }]\n',
        ),
        set(
          'AuthorizationPolicy allow\nrules: [{ from: [{ source: { namespaces: [web] } }] }]\n',
          'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { notNamespaces: [web] } }] }]\n',
        ),
      ],
    },
    {
      finds: 'allows nothing',
      in: set(
        'AuthorizationPolicy allow\nrules: [{ from: [{ source: { namespaces: [web] } }] }]\n',
        'AuthorizationPolicy deny\naction: DENY\nrules: [{ from: [{ source: { notNamespaces: [shop] } }] }]\n',
      ),
      not: [],
    },
  ],
  'unknown-trust-domain': [
    {
      finds: 'principals[0] is of trust domain other.example',
      in: 'AuthorizationPolicy a\nrules: [{ from: [{ source: { principals: [other.example/ns/a/sa/b] } }] }]\n',
      not: [
        'AuthorizationPolicy a\nrules: [{ from: [{ source: { principals: [example.org/ns/a/sa/b, old.example/ns/a/sa/b, cluster.local/ns/a/sa/b, partner.example/ns/a/sa/b, "*", "*/ns/a/sa/b", "exam*"] } }] }]\n',
        'AuthorizationPolicy a\nrules: [{ from: [{ source: { trustDomains: ["*.org"] } }] }]\n',
      ],
    },
    {
      finds: 'when[0].notValues[0] is of trust domain other.example',
      in: 'AuthorizationPolicy a\nrules: [{ when: [{ key: source.trustDomain, notValues: [other.example] }] }]\n',
      not: [],
    },
  ],
  'value-matches-nothing': [
    {
      finds: 'principals[0] matches no peer: principals are written without spiffe://',
      in: 'AuthorizationPolicy a\nrules: [{ from: [{ source: { principals: [spiffe://example.org/ns/a/sa/b] } }] }]\n',
      not: [
        'AuthorizationPolicy a\nrules: [{ from: [{ source: { principals: [example.org/ns/a/sa/b, "*"] } }] }]\n',
      ],
    },
    {
      finds: 'principals[0] matches no peer of the mesh',
      in: 'AuthorizationPolicy a\nrules: [{ from: [{ source: { principals: [web] } }] }]\n',
      not: [],
    },
    {
      finds: 'principals[0] matches no peer: * stands for anything only at the start or the end',
      in: 'AuthorizationPolicy a\nrules: [{ from: [{ source: { principals: ["example.org/ns/*/sa/web"] } }] }]\n',
      not: [],
    },
    {
      finds: 'methods[0] get is no method',
      in: 'AuthorizationPolicy a\nrules: [{ to: [{ operation: { methods: [get] } }] }]\n',
      not: ['AuthorizationPolicy a\nrules: [{ to: [{ operation: { methods: [GET, "P*"] } }] }]\n'],
    },
    {
      finds: 'paths[0] matches no path: they begin with /',
      in: 'AuthorizationPolicy a\nrules: [{ to: [{ operation: { paths: [admin, "/a?b=c"] } }] }]\n',
      not: [
        'AuthorizationPolicy a\nrules: [{ to: [{ operation: { paths: [/admin, "*/x", "*", "/a/{*}/b/{**}"] } }] }]\n',
      ],
    },
  ],
};

describe.each(LINTS.map(({ name }) => name))('%s', (lint) => {
  const cases = CASES[lint] ?? [];

  test.each(cases)('finds: $finds', ({ finds, in: documents }) => {
    expect(found(documents, lint).join('\n')).toContain(finds);
  });

  test('finds nothing in what is right', () => {
    for (const each of cases.flatMap(({ not }) => not)) expect(found(each, lint)).toEqual([]);
    expect(cases.length).toBeGreaterThan(0);
  });

  test('is turned off by an annotation, and by no other name', () => {
    const [first] = cases;
    const off = (names: string) =>
      lintsOf(annotated(first!.in, names)).filter((each) => each.lint === lint);
    expect(off(`host-without-port, ${lint}`)).toEqual([]);
    expect(off('*')).toEqual([]);
    expect(off('unknown-lint').length).toBeGreaterThan(0);
  });
});

/** Documents that turn lints off. */
function annotated(documents: string, names: string): string {
  return documents.replace(
    /^(\w+ [\w-]+)( [\w-]+)?$/gm,
    (_, head: string, namespace = ' shop') =>
      `${head}${namespace} keyturn.dev/policy-ignore: "${names}"`,
  );
}

test('a misspelt name in the annotation is found', () => {
  const documents = 'AuthorizationPolicy a shop keyturn.dev/policy-ignore: host-without-prt\n';
  const [one, ...more] = lintsOf(documents);
  expect(more).toEqual([]);
  expect(one).toMatchObject({
    lint: 'unknown-lint',
    path: 'metadata.annotations["keyturn.dev/policy-ignore"]',
    message: 'host-without-prt is no lint',
    hint: 'write host-without-port',
  });
});

test('a finding has file, line, resource and remedy', () => {
  const [one] = lintsOf(
    'AuthorizationPolicy a\nrules:\n  - to:\n      - operation:\n          methods:\n            - GET\n            - get\n',
  );
  expect(one).toEqual({
    lint: 'value-matches-nothing',
    resource: 'AuthorizationPolicy shop/a',
    source: { file: 'p.yaml', line: 10 },
    path: 'spec.rules[0].to[0].operation.methods[1]',
    message: 'get is no method: they are compared with case',
    hint: 'write GET',
  });
});

test('a workload of the flags counts with all its labels', () => {
  const documents =
    'AuthorizationPolicy a\nselector: { matchLabels: { app: cart, version: v1 } }\n';
  const lints = (labels: Record<string, string>) =>
    lintsOf(documents, [{ namespace: 'shop', labels }]).map(({ lint }) => lint);
  expect(lints({ app: 'cart' })).toEqual(['selector-matches-nothing']);
  expect(lints({ app: 'cart', version: 'v1' })).toEqual([]);
});

test('names such as __proto__ and constructor are names like others', () => {
  expect(
    lintsOf(
      set(
        'Sidecar cart\nworkloadSelector: { labels: { __proto__: x } }\ningress: [{ port: { number: 80, protocol: TCP, name: constructor } }]\n',
        'AuthorizationPolicy a\nselector: { matchLabels: { __proto__: y, constructor: z } }\n',
      ),
    ).map(({ lint }) => lint),
  ).toEqual(['selector-matches-nothing']);
});

test('rules by the thousand are compared in bounds, and what was not compared is named', () => {
  const rules = (value: (index: number) => string) =>
    Array.from(
      { length: 2_000 },
      (_, index) => `  - to: [{ operation: { paths: ["${value(index)}"] } }]`,
    );
  const policy = (head: string, list: string[]) => `${head}\nrules:\n${list.join('\n')}\n`;
  const plain = rules((index) => `/${index}`);
  const sets = lintsOf(
    set(
      policy('AuthorizationPolicy allow', plain),
      policy('AuthorizationPolicy deny\naction: DENY', plain),
    ),
  );
  expect(new Set(sets.map(({ lint }) => lint))).toEqual(new Set(['allow-emptied-by-deny']));
  expect(sets.length).toBe(20);
  const [one, ...more] = lintsOf(
    policy(
      'AuthorizationPolicy deny\naction: DENY',
      rules((index) => `/${index}/*`),
    ),
  );
  expect(more).toEqual([]);
  expect(one).toMatchObject({
    lint: 'unreachable-rule',
    message: expect.stringContaining('were not compared'),
  });
});

test('a rule of many sources and many operations is looked at without multiplying them', () => {
  const many = (text: (index: number) => string) =>
    Array.from({ length: 2_000 }, (_, index) => text(index)).join(', ');
  const lints = lintsOf(
    `AuthorizationPolicy allow\nrules: [{ from: [${many((index) => `{ source: { ipBlocks: [10.0.0.${index % 256}] } }`)}], to: [${many((index) => `{ operation: { methods: [${index === 1_999 ? 'get' : 'GET'}] } }`)}] }]\n`,
  );
  expect(lints.map(({ lint }) => lint)).toEqual(['value-matches-nothing']);
});
