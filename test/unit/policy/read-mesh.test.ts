import { expect, test } from '@jest/globals';
import { readMesh } from '../../../agent/policy/read-mesh';
import { formatProblem } from '../../../agent/policy/resources/problem';

const read = (text: string, trustDomain?: string) =>
  readMesh({ name: 'mesh.yaml', text }, trustDomain);
const problems = (text: string, trustDomain?: string) =>
  read(text, trustDomain).problems.map(formatProblem);

test('a MeshConfig is read as far as it decides who may speak', () => {
  const { mesh, unused } = read(`
trustDomain: example.org
trustDomainAliases: [old.example, a.example, old.example]
rootNamespace: mesh
extensionProviders:
  - name: opa
    envoyExtAuthzGrpc: { service: opa.example, port: 9000, timeout: 500ms, failOpen: true }
pathNormalization: { normalization: MERGE_SLASHES }
meshMTLS: { minProtocolVersion: TLSV1_3, cipherSuites: [AES128-SHA, NO-SUCH, AES128-SHA] }
enableAutoMtls: false
caCertificates: [{ pem: x, trustDomains: [partner.example] }]
`);
  expect(unused).toEqual([]);
  expect(mesh).toEqual({
    trustDomain: 'example.org',
    trustDomainAliases: ['a.example', 'old.example'],
    rootNamespace: 'mesh',
    extensionProviders: [
      {
        name: 'opa',
        envoyExtAuthzGrpc: { service: 'opa.example', port: 9000, timeout: '0.5s', failOpen: true },
      },
    ],
    pathNormalization: 'MERGE_SLASHES',
    minTls: 'TLSv1_3',
    cipherSuites: ['AES128-SHA'],
    foreignTrustDomains: ['partner.example'],
  });
});

test('the ConfigMap that holds it does as well', () => {
  const text = 'kind: ConfigMap\ndata:\n  mesh: |-\n    trustDomain: example.org\n';
  expect(read(text).mesh.trustDomain).toBe('example.org');
});

test('what has no effect is named, wherever it stands', () => {
  const { unused, problems: none } = read(`
accessLogFile: /dev/stdout
constructor: x
__proto__: y
meshMTLS: { ecdhCurves: [P-256] }
extensionProviders:
  - name: opa
    envoyExtAuthzGrpc: { service: opa.example, port: 9000, failopen: true }
  - name: traces
    zipkin: { service: zipkin.example, port: 9411 }
`);
  expect(none).toEqual([]);
  expect(unused.map(formatProblem)).toEqual([
    'mesh.yaml:2: accessLogFile has no effect here',
    'mesh.yaml:3: constructor has no effect here',
    'mesh.yaml:4: __proto__ has no effect here',
    'mesh.yaml:5: meshMTLS.ecdhCurves has no effect here',
    'mesh.yaml:8: extensionProviders[0].envoyExtAuthzGrpc.failopen has no effect here (did you mean failOpen?)',
    'mesh.yaml:10: extensionProviders[1].zipkin has no effect here',
  ]);
});

test.each([
  ['- trustDomain: a', 'mesh.yaml:1: must be a mapping, not a list'],
  [
    'trustDomain: 1',
    'mesh.yaml:1: trustDomain must be a text, not 1, a number (put it in quotes: "1")',
  ],
  ['trustDomain: a\n---\ntrustDomain: b', 'mesh.yaml:3: a second document: a MeshConfig is one'],
  ['trustDomain: a\ntrustDomain: b', 'mesh.yaml:2: is not YAML: duplicated mapping key'],
  [
    'extensionProviders:\n  - name: a\n    envoyExtAuthzHttp: { service: a, port: 1, failOpen: "yes" }',
    'mesh.yaml:3: extensionProviders[0].envoyExtAuthzHttp.failOpen must be true or false, not a text',
  ],
])('%j is refused', (text, refusal) => expect(problems(text)).toEqual([refusal]));

test("a trust domain that is not the agent's is refused", () => {
  expect(problems('trustDomain: a.example', 'b.example')).toEqual([
    'mesh.yaml:1: trustDomain is a.example, and the trust domain here is b.example (give the same --trust-domain)',
  ]);
});

test('an empty file is the default mesh', () => {
  expect(read('# nothing\n').mesh).toMatchObject({ trustDomain: 'cluster.local' });
  expect(read('', 'a.example').mesh).toMatchObject({ trustDomain: 'a.example' });
});
