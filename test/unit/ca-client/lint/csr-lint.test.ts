import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { contextTag, derElement, derOid, derSequence, TAG } from '../../../../agent/base/der';
import { writePem } from '../../../../agent/base/pem';
import {
  EXTENSION,
  encodeBasicConstraints,
  encodeExtension,
  encodeKeyUsage,
  encodePurposes,
  encodeUriNames,
  type KeyUsage,
  PURPOSE,
} from '../../../../agent/identity/extensions';
import { loadEngine } from '../../../../agent/identity/load-engine';
import { EMPTY_NAME, encodeName } from '../../../../agent/identity/name';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import { lintCsr } from '../../../../ca-client/lint/csr-lint';
import {
  LINT_BACKENDS,
  type LintBackend,
  type LintFacts,
} from '../../../../ca-client/lint/lint-rule';
import {
  type CsrOptions,
  dnsName,
  emailName,
  ipName,
  makeCsr,
  makeKey,
  TEST_ID,
  TEST_NOW,
  uriConstraints,
} from '../../../support/certs';
import { keyturn } from '../../../support/command-line';
import { mutated, RUNS } from '../../../support/mutations';
import { tempDir } from '../../../support/temp-dir';

const ec = makeKey('ec', 'P-256');
const csr = (options: Partial<CsrOptions> = {}) => makeCsr({ privateKey: ec, ...options });
const san = encodeUriNames([TEST_ID], true);
const otherAttribute = derSequence(
  derOid('1.3.6.1.4.1.311.2.1.14'),
  derElement(TAG.set, derSequence(san)),
);
const withExtensions = (...extensions: Uint8Array[]) => csr({ extensions: [san, ...extensions] });
const withNames = (...names: Uint8Array[]) =>
  csr({ extensions: [encodeExtension(EXTENSION.subjectAltName, true, derSequence(...names))] });
const seconds = TEST_NOW / 1_000;
const claims = {
  iss: 'https://kubernetes.default.svc',
  aud: ['istio-ca'],
  exp: seconds + 3_600,
  sub: 'system:serviceaccount:shop:cart',
};
const token = (changes: Record<string, unknown> = {}): Partial<LintFacts> => ({
  token: { claims: { ...claims, ...changes } },
});

/** `rule` of each error, `(rule)` of each warning. */
const rules = (der: Uint8Array, backend: LintBackend, facts: Partial<LintFacts> = {}) =>
  lintCsr(der, backend, { now: TEST_NOW, ...facts }).map(({ rule, severity }) =>
    severity === 'error' ? rule : `(${rule})`,
  );
const ALL = [...LINT_BACKENDS];
const none = (): Record<LintBackend, string[]> => ({
  istiod: [],
  'istiod-ra': [],
  'istio-csr': [],
  'kubernetes-csr': [],
  builtin: [],
});
const only = (backends: readonly LintBackend[], rule: string) => ({
  ...none(),
  ...Object.fromEntries(backends.map((each) => [each, [rule]])),
});

test.each(ALL)('%s is not asked for the identity of somebody else', (backend) => {
  expect(rules(csr(), backend, { id: TEST_ID })).toEqual([]);
  expect(rules(csr(), backend, { id: `${TEST_ID}2` })).toEqual(['csr-identity']);
});

describe.each<[string, Uint8Array, Record<LintBackend, string[]>]>([
  ['one critical URI and an empty O', csr(), none()],
  ['an empty subject', csr({ subjectDer: EMPTY_NAME }), none()],
  [
    'an organisation',
    csr({ subjectDer: encodeName([['O', 'shop']]) }),
    only(['istiod-ra', 'kubernetes-csr'], 'csr-subject'),
  ],
  [
    'a common name',
    csr({ subjectDer: encodeName([['CN', 'cart']]) }),
    {
      ...none(),
      istiod: ['(csr-common-name)'],
      'istiod-ra': ['csr-subject'],
      'istio-csr': ['csr-common-name'],
      'kubernetes-csr': ['csr-subject'],
    },
  ],
  [
    'no name at all',
    csr({ extensions: [] }),
    { ...only(['istiod-ra', 'istio-csr', 'kubernetes-csr'], 'csr-uri'), istiod: ['(csr-uri)'] },
  ],
  [
    'two URIs',
    csr({ extensions: [encodeUriNames([TEST_ID, `${TEST_ID}2`], true)] }),
    {
      ...only(['istiod-ra', 'istio-csr', 'kubernetes-csr', 'builtin'], 'csr-uri'),
      istiod: ['(csr-uri)'],
    },
  ],
  [
    'a URI that is no SPIFFE ID',
    csr({ extensions: [encodeUriNames(['https://shop.example/cart'], true)] }),
    only(['istiod-ra', 'istio-csr', 'kubernetes-csr', 'builtin'], 'csr-uri'),
  ],
  ...(['DNS', 'IP', 'e-mail'] as const).map(
    (kind, index): [string, Uint8Array, Record<LintBackend, string[]>] => [
      `${kind} name beside the URI`,
      withNames(
        uriName(TEST_ID),
        [dnsName('cart.example'), ipName(10, 0, 0, 1), emailName('a@example.org')][index]!,
      ),
      {
        ...only(['istiod-ra', 'istio-csr', 'kubernetes-csr', 'builtin'], 'csr-other-names'),
        istiod: ['(csr-uri)'],
      },
    ],
  ),
  [
    'key usages',
    withExtensions(encodeKeyUsage(['digitalSignature'])),
    {
      istiod: ['(csr-extensions)'],
      'istiod-ra': ['csr-extensions'],
      'istio-csr': ['csr-key-usage'],
      'kubernetes-csr': ['csr-extensions'],
      builtin: ['csr-extensions'],
    },
  ],
  [
    'client and server purposes',
    withExtensions(encodePurposes([PURPOSE.clientAuth, PURPOSE.serverAuth])),
    {
      istiod: ['(csr-extensions)'],
      'istiod-ra': ['csr-extensions'],
      'istio-csr': [],
      'kubernetes-csr': ['csr-extensions'],
      builtin: ['csr-extensions'],
    },
  ],
])('a request with %s', (_, der, want) => {
  test.each(ALL)('for %s', (backend) => expect(rules(der, backend)).toEqual(want[backend]));
});

function uriName(uri: string): Uint8Array {
  return derElement(contextTag(6, 'primitive'), Buffer.from(uri, 'latin1'));
}

describe('single rules', () => {
  test.each<[string, LintBackend, string[], Uint8Array]>([
    [
      'basic constraints, even CA:FALSE',
      'istio-csr',
      ['csr-basic-constraints'],
      withExtensions(encodeBasicConstraints(false)),
    ],
    [
      'another purpose',
      'istio-csr',
      ['csr-extended-key-usage'],
      withExtensions(encodePurposes(['1.3.6.1.5.5.7.3.3'])),
    ],
    [
      'a name constraint',
      'istio-csr',
      ['csr-extensions'],
      withExtensions(uriConstraints(['cluster.local'], [])),
    ],
    ['RSA of 1024 bits', 'builtin', ['csr-key'], makeCsr({ privateKey: makeKey('rsa', 1_024) })],
    [
      'RSA of 1024 bits',
      'istio-csr',
      ['(csr-key)'],
      makeCsr({ privateKey: makeKey('rsa', 1_024) }),
    ],
    ['Ed25519', 'istio-csr', ['(csr-key)'], makeCsr({ privateKey: makeKey('ed25519') })],
    ['Ed25519', 'kubernetes-csr', ['csr-key'], makeCsr({ privateKey: makeKey('ed25519') })],
    ['Ed25519', 'builtin', ['csr-key'], makeCsr({ privateKey: makeKey('ed25519') })],
    [
      'the signature of another key',
      'istiod',
      ['csr-signature'],
      csr({ signer: makeKey('ec', 'P-256') }),
    ],
    // Go's CheckSignature of a request takes SHA-1, of a certificate it does not.
    ['a SHA-1 signature', 'istiod', ['(csr-signature)'], csr({ signature: 'ECDSA-SHA1' })],
    ['a SHA-1 signature', 'istio-csr', ['(csr-signature)'], csr({ signature: 'ECDSA-SHA1' })],
    ['a SHA-1 signature', 'kubernetes-csr', ['csr-signature'], csr({ signature: 'ECDSA-SHA1' })],
    ['a SHA-1 signature', 'builtin', ['csr-signature'], csr({ signature: 'ECDSA-SHA1' })],
    [
      'a SHA-1 signature of another key',
      'istio-csr',
      ['csr-signature'],
      csr({ signature: 'ECDSA-SHA1', signer: makeKey('ec', 'P-256') }),
    ],
    [
      'server before client',
      'istio-csr',
      ['csr-extended-key-usage'],
      withExtensions(encodePurposes([PURPOSE.serverAuth, PURPOSE.clientAuth])),
    ],
    [
      'client alone',
      'istio-csr',
      ['csr-extended-key-usage'],
      withExtensions(encodePurposes([PURPOSE.clientAuth])),
    ],
    [
      'client twice',
      'istio-csr',
      ['csr-extended-key-usage'],
      withExtensions(encodePurposes([PURPOSE.clientAuth, PURPOSE.clientAuth])),
    ],
    [
      'keyCertSign',
      'istio-csr',
      ['csr-key-usage'],
      withExtensions(encodeKeyUsage(['digitalSignature', 'keyCertSign'])),
    ],
    [
      'a scheme in capitals',
      'istio-csr',
      ['(csr-uri)'],
      csr({ extensions: [encodeUriNames([TEST_ID.replace('spiffe', 'SPIFFE')], true)] }),
    ],
    [
      'a scheme in capitals',
      'builtin',
      ['csr-uri'],
      csr({ extensions: [encodeUriNames([TEST_ID.replace('spiffe', 'SPIFFE')], true)] }),
    ],
    [
      'a trust domain in capitals',
      'istio-csr',
      ['csr-uri'],
      csr({ extensions: [encodeUriNames(['spiffe://CLUSTER.local/a'], true)] }),
    ],
    [
      "field E13: Microsoft's attribute",
      'kubernetes-csr',
      ['csr-uri', 'csr-attributes'],
      csr({ attributes: [otherAttribute] }),
    ],
    [
      "field E13: Microsoft's attribute",
      'builtin',
      ['csr-attributes'],
      csr({ attributes: [otherAttribute] }),
    ],
    ['no DER', 'kubernetes-csr', ['csr-grammar'], Buffer.from('30820101', 'hex')],
    ['a byte behind it', 'istiod', ['csr-grammar'], Buffer.concat([csr(), Buffer.of(0)])],
  ])('%s (for %s)', (_, backend, want, der) => expect(rules(der, backend)).toEqual(want));

  test('of key usages it is said who refuses: keyCertSign istio-csr, others cert-manager behind it', () => {
    const sources = (...usages: KeyUsage[]) =>
      lintCsr(withExtensions(encodeKeyUsage(usages)), 'istio-csr', { now: TEST_NOW }).map(
        ({ source }) => source,
      );
    expect(sources('keyCertSign', 'digitalSignature')).toEqual(['istio-csr']);
    expect(sources('digitalSignature')).toEqual(['cert-manager, behind istio-csr']);
  });

  test.each<[string, string[], Record<LintBackend, string[]>]>([
    ['one request', ['CERTIFICATE REQUEST'], none()],
    [
      'the label of old tools',
      ['NEW CERTIFICATE REQUEST'],
      {
        ...only(['istio-csr', 'istiod'], '(csr-pem)'),
        ...{ 'istiod-ra': ['csr-pem'], 'kubernetes-csr': ['csr-pem'], builtin: [] },
      },
    ],
    [
      'two blocks',
      ['CERTIFICATE REQUEST', 'CERTIFICATE REQUEST'],
      {
        ...only(['istio-csr', 'istiod', 'istiod-ra'], '(csr-pem)'),
        'kubernetes-csr': ['csr-pem'],
        builtin: ['csr-pem'],
      },
    ],
  ])('%s in its file', (_, pemLabels, want) => {
    for (const backend of ALL)
      expect({ backend, found: rules(csr(), backend, { pemLabels }) }).toEqual({
        backend,
        found: want[backend],
      });
  });

  test('the command reads the file as it is: its label, its blocks, and the first request', async () => {
    const block = (label = 'CERTIFICATE REQUEST') => writePem(label, csr()).toString();
    const lint = async (stdin: string, backend: LintBackend) => {
      const { code, stdout } = await keyturn(
        ['csr', 'lint', '--for', backend, '--ttl', '1h', '-'],
        { cwd: tempDir(), stdin },
      );
      return {
        code,
        rules: stdout.split('\n').flatMap((line) => /(csr-\S+)/.exec(line)?.[1] ?? []),
      };
    };
    expect(await lint(block(), 'istio-csr')).toEqual({ code: 0, rules: [] });
    expect(await lint(block('NEW CERTIFICATE REQUEST'), 'istio-csr')).toEqual({
      code: 0,
      rules: ['csr-pem'],
    });
    expect(await lint(block('NEW CERTIFICATE REQUEST'), 'kubernetes-csr')).toEqual({
      code: 65,
      rules: ['csr-pem'],
    });
    expect(await lint(block() + block(), 'istio-csr')).toEqual({ code: 0, rules: ['csr-pem'] });
    expect(await lint(block() + block(), 'builtin')).toEqual({ code: 65, rules: ['csr-pem'] });
    expect(await lint(writePem('PRIVATE KEY', csr()).toString(), 'istio-csr')).toEqual({
      code: 65,
      rules: [],
    });
  });

  test.each<[LintBackend, number, string[]]>([
    ['istiod', 0, ['(ttl)']],
    ['istiod', 1, []],
    ['istiod', 90 * 86_400, []],
    ['istiod', 90 * 86_400 + 1, ['ttl']],
    ['istiod-ra', 0, []],
    ['istiod-ra', 599, ['ttl']],
    ['istiod-ra', 600, []],
    ['istio-csr', 0, ['ttl']],
    ['istio-csr', 1, ['ttl']],
    ['istio-csr', 2, []],
    ['istio-csr', 3_600, []],
    ['istio-csr', 3_601, ['(ttl)']],
    ['kubernetes-csr', 0, ['ttl']],
    ['kubernetes-csr', 599, ['ttl']],
    ['kubernetes-csr', 600, []],
    ['kubernetes-csr', 86_400, []],
    ['kubernetes-csr', 86_401, ['ttl']],
    ['builtin', 90 * 86_400, []],
    ['builtin', 90 * 86_400 + 1, ['ttl']],
    ['builtin', 0, ['(ttl)']],
    ['builtin', 1, []],
  ])('%s asked for %i seconds', (backend, ttlSeconds, want) =>
    expect(rules(csr(), backend, { ttlSeconds })).toEqual(want),
  );

  test.each([
    ['clusterissuers.cert-manager.io/istio-ca', []],
    ['issuers.cert-manager.io/shop.istio-ca', []],
    ['istio-ca', ['signer-name']],
    ['kubernetes.io/legacy-unknown', ['signer-name']],
    ['kubernetes.io/kube-apiserver-client', ['signer-name']],
  ])('signer %s', (signerName, want) =>
    expect(rules(csr(), 'kubernetes-csr', { signerName })).toEqual(want),
  );

  test.each(['istiod', 'istio-csr'] as const)(
    '%s: a cluster ID other than the default is warned of',
    (backend) => {
      expect(rules(csr(), backend, { clusterId: 'Kubernetes' })).toEqual([]);
      expect(rules(csr(), backend, { clusterId: '' })).toEqual([]);
      expect(rules(csr(), backend, { clusterId: 'east' })).toEqual(['(cluster-id)']);
    },
  );
});

describe('tokens', () => {
  const istio = ['istiod', 'istiod-ra', 'istio-csr', 'builtin'] as const;
  test.each(istio)('%s takes one for istio-ca of the same service account', (backend) =>
    expect(rules(csr(), backend, token())).toEqual([]),
  );

  test.each<[string, Record<string, unknown>, string]>([
    ['that has expired', { exp: seconds }, 'token-expired'],
    ['that does not say when it expires', { exp: undefined }, 'token-expiry'],
    ['whose expiry is text', { exp: String(seconds + 60) }, 'token-expiry'],
    ['that is not valid yet', { nbf: seconds + 1 }, 'token-not-before'],
    ['for another audience', { aud: ['https://kubernetes.default.svc'] }, 'token-audience'],
    ['for nobody', { aud: undefined }, 'token-audience'],
    ['without an issuer', { iss: undefined }, 'token-issuer'],
    ['of another service account', { sub: 'system:serviceaccount:shop:till' }, 'token-subject'],
    ['of another namespace', { sub: 'system:serviceaccount:bank:cart' }, 'token-subject'],
  ])('one %s is refused by each', (_, changes, rule) => {
    for (const backend of istio) expect(rules(csr(), backend, token(changes))).toEqual([rule]);
  });

  test.each(istio)(
    '%s: a request for another trust domain than is set up is warned of, where no identity is named',
    (backend) => {
      const foreign = csr({
        extensions: [encodeUriNames(['spiffe://other.example/ns/shop/sa/cart'], true)],
      });
      const facts = { ...token(), trustDomain: 'cluster.local' };
      expect(rules(csr(), backend, facts)).toEqual([]);
      expect(rules(foreign, backend, facts)).toEqual(['(token-trust-domain)']);
      expect(rules(foreign, backend, { ...facts, trustDomain: 'other.example' })).toEqual([]);
      expect(rules(foreign, backend, { trustDomain: 'cluster.local' })).toEqual([]);
      expect(rules(foreign, backend, { ...facts, id: TEST_ID })).toEqual(['csr-identity']);
    },
  );

  test('one audience may be a text', () =>
    expect(rules(csr(), 'istiod', token({ aud: 'istio-ca' }))).toEqual([]));
  test('a known issuer is compared', () => {
    expect(rules(csr(), 'builtin', { ...token(), issuer: claims.iss })).toEqual([]);
    expect(rules(csr(), 'builtin', { ...token(), issuer: `${claims.iss}/` })).toEqual([
      'token-issuer',
    ]);
  });
  test('what is no JWT may be a join token of keyturn, and nothing else', () => {
    const opaque = { token: { claims: undefined } };
    expect(ALL.map((backend) => rules(csr(), backend, opaque))).toEqual([
      ...Array(4).fill(['token-form']),
      [],
    ]);
  });
  test('the Kubernetes API wants its own audience', () => {
    expect(rules(csr(), 'kubernetes-csr', token())).toEqual(['token-audience']);
    expect(
      rules(csr(), 'kubernetes-csr', token({ aud: ['https://kubernetes.default.svc'] })),
    ).toEqual([]);
  });
});

test('what the agent itself asks for breaks no rule of any authority', async () => {
  const engine = await loadEngine('direct');
  for (const algorithm of ['ecdsa-p256', 'ecdsa-p384', 'rsa-2048'] as const) {
    const der = await engine.createCsr(
      await engine.generateKeyPair(algorithm),
      parseSpiffeId(TEST_ID),
    );
    for (const backend of ALL) expect(rules(der, backend, { ttlSeconds: 3_600 })).toEqual([]);
  }
});

test('errors come first, and each finding says what is there and whose rule it is', () => {
  const der = csr({ subjectDer: encodeName([['CN', 'cart']]) });
  expect(lintCsr(der, 'istio-csr', { now: TEST_NOW, ttlSeconds: 86_400 })).toEqual([
    {
      rule: 'csr-common-name',
      severity: 'error',
      detail: 'the subject CN=cart has a common name',
      source: 'istio-csr',
    },
    {
      rule: 'ttl',
      severity: 'warning',
      detail:
        'a life of 24h is cut to 1h silently, unless --max-client-certificate-duration says more',
      source: 'istio-csr',
    },
  ]);
});

test('whatever bytes a request has, it is judged and nothing is thrown', () => {
  const seeds = [
    csr(),
    withExtensions(encodeKeyUsage(['digitalSignature']), encodeBasicConstraints(false)),
    withNames(dnsName('a.b')),
  ];
  const anything = fc.dictionary(
    fc.constantFrom('exp', 'nbf', 'aud', 'iss', 'sub'),
    fc.jsonValue(),
  );
  fc.assert(
    fc.property(
      mutated(seeds),
      fc.constantFrom(...ALL),
      anything,
      fc.integer(),
      (der, backend, given, ttlSeconds) =>
        lintCsr(der, backend, { now: TEST_NOW, ttlSeconds, token: { claims: given } }).every(
          ({ detail }) => detail !== '',
        ),
    ),
    { numRuns: RUNS },
  );
});
