import { formatDuration } from '../../agent/base/duration';
import { AgentError } from '../../agent/base/errors';
import { EXTENSION, PURPOSE } from '../../agent/identity/extensions';
import { EMPTY_NAME, EMPTY_ORGANISATION } from '../../agent/identity/name';
import { ATTRIBUTE } from '../../agent/identity/pkcs10';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { type CsrReading, readAnyCsr } from './csr-reading';
import type { LintBackend, LintFacts, LintFinding, LintRule } from './lint-rule';
import { TOKEN_RULES } from './token-lint';

/**
 * Says which rules of an authority a request would break, without asking it: their answers say little (istio-csr has one for all of them).
 *
 * @param csrDer  PKCS#10, DER.
 * @returns       Errors first; none where nothing is wrong.
 */
export function lintCsr(
  csrDer: Uint8Array,
  backend: LintBackend,
  facts: LintFacts,
): readonly LintFinding[] {
  let csr: CsrReading;
  try {
    csr = readAnyCsr(csrDer);
  } catch (caught) {
    return [
      {
        rule: 'csr-grammar',
        severity: 'error',
        detail: AgentError.from(caught).message,
        source: 'PKCS#10 (RFC 2986)',
      },
    ];
  }
  const findings = [...CSR_RULES, ...ASKED_RULES, ...TOKEN_RULES].flatMap(
    ({ rule, severity, sources, broken }): LintFinding[] => {
      const source = sources[backend];
      const detail = source === undefined ? undefined : broken(csr, facts, backend);
      return source === undefined || detail === undefined
        ? []
        : [{ rule, severity, detail, source }];
    },
  );
  return [
    ...findings.filter(({ severity }) => severity === 'error'),
    ...findings.filter(({ severity }) => severity === 'warning'),
  ];
}

const ISTIOD = 'istiod';
const RA = 'istiod, ValidateCSR of its RA';
const ISTIO_CSR = 'istio-csr';
const CERT_MANAGER = 'cert-manager, behind istio-csr';
const KUBE = 'Kubernetes API, certificates.k8s.io/v1';
const APPROVER = 'keyturn approver';
const BUILTIN = 'keyturn';
const SERVE = 'keyturn ca serve';
const EVERYBODY = {
  istiod: ISTIOD,
  'istiod-ra': RA,
  'istio-csr': ISTIO_CSR,
  'kubernetes-csr': KUBE,
  builtin: BUILTIN,
};
/** All but istiod's own CA, which takes nothing from a request but its key. */
const READERS = {
  'istiod-ra': RA,
  'istio-csr': ISTIO_CSR,
  'kubernetes-csr': APPROVER,
  builtin: BUILTIN,
};

const urisOf = (csr: CsrReading) =>
  csr.names.filter(({ kind }) => kind === 'uri').map(({ value }) => value);

const CSR_RULES: readonly LintRule[] = [
  {
    rule: 'csr-signature',
    severity: 'error',
    sources: EVERYBODY,
    broken: ({ signed, signatureAlgorithm }) => {
      if (signed === undefined)
        return `it is signed with ${signatureAlgorithm.text}, which authorities no longer accept`;
      return signed ? undefined : 'it is not signed with its own key';
    },
  },
  {
    rule: 'csr-signature',
    severity: 'error',
    sources: { 'kubernetes-csr': APPROVER, builtin: BUILTIN },
    broken: (csr) =>
      isSignedOtherwise(csr) ? `it is signed with ${csr.signatureAlgorithm.text}` : undefined,
  },
  {
    rule: 'csr-signature',
    severity: 'warning',
    sources: { istiod: ISTIOD, 'istiod-ra': RA, 'istio-csr': ISTIO_CSR },
    broken: (csr) =>
      isSignedOtherwise(csr)
        ? `it is signed with ${csr.signatureAlgorithm.text}, which is taken here and refused by stricter authorities`
        : undefined,
  },
  {
    rule: 'csr-key',
    severity: 'error',
    sources: { 'kubernetes-csr': APPROVER, builtin: BUILTIN },
    broken: ({ publicKey }) =>
      publicKey.weakness && `the key is ${publicKey.text}: it ${publicKey.weakness}`,
  },
  {
    rule: 'csr-key',
    severity: 'warning',
    sources: { istiod: ISTIOD, 'istiod-ra': RA, 'istio-csr': ISTIO_CSR },
    broken: ({ publicKey }) =>
      publicKey.weakness &&
      `the key is ${publicKey.text}, which is signed but which Envoy does not take: it ${publicKey.weakness}`,
  },
  {
    rule: 'csr-common-name',
    severity: 'error',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: ({ hasCommonName, subject }) =>
      hasCommonName ? `the subject ${subject.text} has a common name` : undefined,
  },
  {
    rule: 'csr-common-name',
    severity: 'warning',
    sources: { istiod: ISTIOD },
    broken: ({ hasCommonName }) =>
      hasCommonName
        ? 'it has a common name: the certificate gets one too, its own identity'
        : undefined,
  },
  {
    rule: 'csr-subject',
    severity: 'error',
    sources: { 'istiod-ra': RA, 'kubernetes-csr': APPROVER },
    broken: ({ subject }) =>
      [EMPTY_ORGANISATION, EMPTY_NAME].some((each) => Buffer.compare(each, subject.der) === 0)
        ? undefined
        : `the subject ${subject.text} is neither empty nor one empty O`,
  },
  {
    rule: 'csr-uri',
    severity: 'error',
    sources: { 'istiod-ra': RA, 'istio-csr': ISTIO_CSR, 'kubernetes-csr': APPROVER },
    broken: (csr) =>
      urisOf(csr).length === 0
        ? 'it asks for no URI, and the certificate would have none'
        : undefined,
  },
  {
    rule: 'csr-uri',
    severity: 'error',
    sources: READERS,
    broken: (csr) =>
      urisOf(csr).length > 1 ? `it asks for ${urisOf(csr).length} URIs` : undefined,
  },
  {
    rule: 'csr-uri',
    severity: 'error',
    sources: READERS,
    broken: (csr, _, backend) => {
      const [uri, ...more] = urisOf(csr);
      return uri === undefined || more.length > 0
        ? undefined
        : notSpiffe(backend === 'istio-csr' ? lowerScheme(uri) : uri);
    },
  },
  {
    rule: 'csr-uri',
    severity: 'warning',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: (csr) => {
      const [uri, ...more] = urisOf(csr);
      if (uri === undefined || more.length > 0 || uri === lowerScheme(uri)) return undefined;
      return `the scheme of ${uri} is not in lower case: it is signed as it is written, and peers that compare to the letter refuse it`;
    },
  },
  {
    rule: 'csr-uri',
    severity: 'warning',
    sources: { istiod: ISTIOD },
    broken: (csr) =>
      urisOf(csr).length === 1 && csr.names.length === 1
        ? undefined
        : 'its names are ignored: the certificate is for the authenticated identity of the caller',
  },
  {
    rule: 'csr-other-names',
    severity: 'error',
    sources: READERS,
    broken: ({ names }) => {
      const others = [
        ...new Set(names.filter(({ kind }) => kind !== 'uri').map(({ kind }) => kind)),
      ];
      return others.length === 0
        ? undefined
        : `it asks for names other than a URI: ${others.join(', ')}`;
    },
  },
  {
    rule: 'csr-key-usage',
    severity: 'error',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: ({ keyUsages }) =>
      keyUsages?.includes('keyCertSign') ? 'it asks for key usage keyCertSign' : undefined,
  },
  {
    rule: 'csr-key-usage',
    severity: 'error',
    sources: { 'istio-csr': CERT_MANAGER },
    broken: ({ keyUsages }) =>
      keyUsages && !keyUsages.includes('keyCertSign')
        ? `it asks for key usages (${keyUsages.join(', ')}), which passes istio-csr and then fails as INTERNAL`
        : undefined,
  },
  {
    rule: 'csr-extended-key-usage',
    severity: 'error',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: ({ purposes }) => {
      const known: readonly string[] = [PURPOSE.clientAuth, PURPOSE.serverAuth];
      const others = purposes?.filter((each) => !known.includes(each)) ?? [];
      return others.length === 0
        ? undefined
        : `it asks for purposes other than client and server: ${others.join(', ')}`;
    },
  },
  {
    rule: 'csr-extended-key-usage',
    severity: 'error',
    sources: { 'istio-csr': CERT_MANAGER },
    broken: ({ purposes }) => {
      const names = purposes?.map((each) => PURPOSE_NAMES.get(each));
      // What is not known has been refused by istio-csr already.
      if (
        names === undefined ||
        names.includes(undefined) ||
        names.join() === 'clientAuth,serverAuth'
      )
        return undefined;
      return `its purposes (${names.join(', ')}) are not clientAuth, serverAuth in this order, which passes istio-csr and then fails as INTERNAL`;
    },
  },
  {
    rule: 'csr-basic-constraints',
    severity: 'error',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: ({ basicConstraints }) =>
      basicConstraints && `it has basic constraints (CA:${basicConstraints.ca ? 'TRUE' : 'FALSE'})`,
  },
  {
    rule: 'csr-extensions',
    severity: 'error',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: ({ extensions }) =>
      otherThan(extensions, [
        EXTENSION.subjectAltName,
        EXTENSION.keyUsage,
        EXTENSION.extendedKeyUsage,
        EXTENSION.basicConstraints,
      ]),
  },
  {
    rule: 'csr-extensions',
    severity: 'error',
    sources: { 'istiod-ra': RA, 'kubernetes-csr': APPROVER, builtin: BUILTIN },
    broken: ({ extensions }) => otherThan(extensions, [EXTENSION.subjectAltName]),
  },
  {
    rule: 'csr-attributes',
    severity: 'error',
    sources: { 'kubernetes-csr': APPROVER, builtin: BUILTIN },
    broken: ({ attributes }) => {
      const others = attributes.filter(
        (oid) => !(Object.values(ATTRIBUTE) as string[]).includes(oid),
      );
      return others.length === 0
        ? undefined
        : `it has attributes other than extensionRequest and challengePassword: ${others.join(', ')}`;
    },
  },
  {
    rule: 'csr-extensions',
    severity: 'warning',
    sources: { istiod: ISTIOD },
    broken: ({ extensions }) => {
      const others = otherThan(extensions, [EXTENSION.subjectAltName]);
      return others && `${others}; they are not taken over`;
    },
  },
];

const DAY = 86_400;
/** MAX_WORKLOAD_CERT_TTL of istiod. */
const ISTIOD_MAX_SECONDS = 90 * DAY;
const KUBE_MIN_SECONDS = 600;
/** --max-ttl of `ca serve` and of `approver`. */
const SERVE_MAX_SECONDS = 90 * DAY;
const APPROVER_MAX_SECONDS = DAY;
/** --max-client-certificate-duration of istio-csr. */
const ISTIO_CSR_MAX_SECONDS = 3_600;

/** What is asked for beside the request itself. */
const ASKED_RULES: readonly LintRule[] = [
  {
    rule: 'csr-pem',
    severity: 'error',
    sources: { 'istiod-ra': KUBE, 'kubernetes-csr': KUBE },
    broken: (_, { pemLabels: [label = CSR_LABEL] = [] }) =>
      label === CSR_LABEL ? undefined : `the label of its PEM block is ${label}, not ${CSR_LABEL}`,
  },
  {
    rule: 'csr-pem',
    severity: 'error',
    sources: { 'kubernetes-csr': APPROVER, builtin: SERVE },
    broken: (_, { pemLabels = [] }) => moreBlocks(pemLabels),
  },
  {
    rule: 'csr-pem',
    severity: 'warning',
    sources: { istiod: ISTIOD, 'istiod-ra': RA, 'istio-csr': ISTIO_CSR },
    broken: (_, { pemLabels = [] }) => {
      const more = moreBlocks(pemLabels);
      return more && `${more}: the first is taken and the others are ignored`;
    },
  },
  {
    rule: 'csr-pem',
    severity: 'warning',
    sources: { istiod: ISTIOD, 'istio-csr': ISTIO_CSR },
    broken: (_, { pemLabels: [label = CSR_LABEL] = [] }) =>
      label === CSR_LABEL
        ? undefined
        : `the label of its PEM block is ${label}, which is taken here and refused by the Kubernetes API`,
  },
  {
    rule: 'csr-identity',
    severity: 'error',
    sources: EVERYBODY,
    broken: (csr, { id }, backend) => {
      const [uri, ...more] = urisOf(csr);
      if (id === undefined || uri === undefined || more.length > 0) return undefined;
      return (backend === 'istio-csr' ? lowerScheme(uri) : uri) === id
        ? undefined
        : `it asks for ${uri}, not for ${id}`;
    },
  },
  {
    rule: 'ttl',
    severity: 'error',
    sources: { istiod: ISTIOD, 'istiod-ra': ISTIOD },
    broken: (_, { ttlSeconds: ttl = 0 }) =>
      ttl > ISTIOD_MAX_SECONDS
        ? `${life(ttl)} is more than ${formatDuration(ISTIOD_MAX_SECONDS * 1_000)}, unless MAX_WORKLOAD_CERT_TTL says more`
        : undefined,
  },
  {
    rule: 'ttl',
    severity: 'error',
    sources: { 'kubernetes-csr': APPROVER, builtin: SERVE },
    broken: (_, { ttlSeconds: ttl = 0 }, backend) => {
      const most = backend === 'builtin' ? SERVE_MAX_SECONDS : APPROVER_MAX_SECONDS;
      return ttl > most
        ? `${life(ttl)} is more than ${formatDuration(most * 1_000)}, unless --max-ttl says more`
        : undefined;
    },
  },
  {
    rule: 'ttl',
    severity: 'warning',
    sources: { istiod: ISTIOD, builtin: BUILTIN },
    broken: (_, { ttlSeconds: ttl = 1 }) =>
      ttl <= 0 ? 'no life is asked for: the default of the authority is given' : undefined,
  },
  {
    rule: 'ttl',
    severity: 'error',
    sources: { 'istiod-ra': KUBE, 'kubernetes-csr': KUBE },
    broken: (_, { ttlSeconds: ttl }, backend) => {
      const asked = ttl !== undefined && (ttl > 0 || backend === 'kubernetes-csr');
      return asked && ttl < KUBE_MIN_SECONDS
        ? `${life(ttl)} is less than ${formatDuration(KUBE_MIN_SECONDS * 1_000)}`
        : undefined;
    },
  },
  {
    rule: 'ttl',
    severity: 'error',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: (_, { ttlSeconds: ttl = ISTIO_CSR_MAX_SECONDS }) =>
      ttl <= 1
        ? `${life(ttl)} is too short: 0 is no default here, it fails as INTERNAL`
        : undefined,
  },
  {
    rule: 'ttl',
    severity: 'warning',
    sources: { 'istio-csr': ISTIO_CSR },
    broken: (_, { ttlSeconds: ttl = 0 }) =>
      ttl > ISTIO_CSR_MAX_SECONDS
        ? `${life(ttl)} is cut to ${formatDuration(ISTIO_CSR_MAX_SECONDS * 1_000)} silently, unless --max-client-certificate-duration says more`
        : undefined,
  },
  {
    rule: 'cluster-id',
    severity: 'warning',
    sources: { istiod: ISTIOD, 'istiod-ra': ISTIOD, 'istio-csr': ISTIO_CSR },
    broken: (_, { clusterId = 'Kubernetes' }) =>
      clusterId === '' || clusterId === 'Kubernetes'
        ? undefined
        : `the cluster ID ${clusterId} is not the default Kubernetes: unless the server was given the same, it answers UNAUTHENTICATED`,
  },
  {
    rule: 'signer-name',
    severity: 'error',
    sources: { 'kubernetes-csr': KUBE },
    broken: (_, { signerName }) => {
      if (signerName === undefined) return undefined;
      if (
        !/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+\/[A-Za-z0-9][-A-Za-z0-9.:_]*$/.test(
          signerName,
        )
      )
        return `${signerName} is not a domain and a path, such as clusterissuers.cert-manager.io/istio-ca`;
      if (signerName === 'kubernetes.io/legacy-unknown')
        return 'kubernetes.io/legacy-unknown cannot be asked through this API version';
      return signerName.startsWith('kubernetes.io/')
        ? `${signerName} signs for the cluster itself, never for workloads`
        : undefined;
    },
  },
];

const CSR_LABEL = 'CERTIFICATE REQUEST';

/** As Go reads a URI (net/url, `Parse`), and so istio-csr. */
const lowerScheme = (uri: string) =>
  uri.replace(/^[A-Za-z][A-Za-z0-9+.-]*:/, (scheme) => scheme.toLowerCase());

const moreBlocks = (labels: readonly string[]) =>
  labels.length > 1 ? `the file holds ${labels.length} PEM blocks` : undefined;

/** Well signed, with an algorithm that our own authorities do not take. Of Ed25519 `csr-key` speaks. */
const isSignedOtherwise = ({ signed, signatureAlgorithm }: CsrReading) =>
  signed === true &&
  signatureAlgorithm.usable === undefined &&
  signatureAlgorithm.text !== 'Ed25519';

function notSpiffe(uri: string): string | undefined {
  try {
    parseSpiffeId(uri);
    return undefined;
  } catch (caught) {
    return `${uri} is not a SPIFFE ID: ${AgentError.from(caught).message}`;
  }
}

function otherThan(extensions: readonly string[], allowed: readonly string[]): string | undefined {
  const others = extensions
    .filter((oid) => !allowed.includes(oid))
    .map((oid) => EXTENSION_NAMES.get(oid) ?? oid);
  return others.length === 0 ? undefined : `it asks for extensions: ${others.join(', ')}`;
}

const PURPOSE_NAMES = new Map<string, string>([
  [PURPOSE.clientAuth, 'clientAuth'],
  [PURPOSE.serverAuth, 'serverAuth'],
]);
const EXTENSION_NAMES = new Map<string, string>(
  Object.entries(EXTENSION).map(([name, oid]) => [oid, name]),
);

const life = (seconds: number) =>
  seconds === 0 ? 'a life of 0' : `a life of ${formatDuration(seconds * 1_000)}`;
