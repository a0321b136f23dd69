import { LOG_FORMATS, LOG_LEVELS } from '../base/log';
import { ENGINES } from '../identity/engine';
import { KEY_ALGORITHMS } from '../identity/keys';
import {
  caHeaders,
  caRootNames,
  fileMountedCerts,
  gracePeriodRatio,
  keyAlgorithmNames,
  pkcs8Key,
  sameAs,
  type UpstreamNames,
  workloadSocketFile,
} from './upstream';
import {
  addresses,
  bundlePlaces,
  choice,
  choiceList,
  directories,
  duration,
  fraction,
  group,
  headers,
  hostPort,
  path,
  pathOrUrl,
  segment,
  signerName,
  socketMode,
  spiffeId,
  trustDomain,
  trustDomains,
  user,
  type ValueType,
  word,
} from './value-types';

/** Where certificates can come from. A new client is a line here and one in choose-ca.ts. */
export const CA_CHOICES = {
  istiod: 'istiod at --ca-address',
  'istio-csr': "cert-manager's istio-csr at --ca-address",
  'kubernetes-csr': 'a signer of the Kubernetes CSR API, --signer-name',
  builtin: 'an authority inside this agent, its state in --ca-dir',
  file: 'certificates that others mount in --credentials-dir or as --credential-bundle',
} as const;
export type CaName = keyof typeof CA_CHOICES;
export const CA_NAMES = Object.keys(CA_CHOICES) as CaName[];

/** `builtin (...), file (...)`: how an error offers the choice. */
export const CA_HINT = `choose ${CA_NAMES.map((name) => `--ca ${name} (${CA_CHOICES[name]})`).join(' or ')}`;

/** Key usages of a request to a Kubernetes signer: see `csr-object.ts`. */
export const CSR_USAGES = ['by-key', 'istio'] as const;

/** In which part of help and of docs/settings.md a setting stands. */
export const GROUPS = [
  'Certificate authority',
  'Identity',
  'Keys and rotation',
  'Serving over SDS',
  'Files',
  'Many workloads',
  'Operation',
] as const;
export type Group = (typeof GROUPS)[number];

/**
 * One setting. Its name is the flag without dashes and the key in the file; KEYTURN_NAME is its environment variable.
 *
 * @example
 *   'renew-ratio': row(
 *     'Keys and rotation',
 *     fraction({ zero: false }),
 *     '0.5',
 *     'Share of the remaining life after which to renew',
 *   ),
 */
export interface Option<T> {
  readonly type: ValueType<T>;
  /** Text, read like any other; undefined where there is none. */
  readonly default: string | undefined;
  /** One sentence without a full stop. */
  readonly help: string;
  readonly group: Group;
  readonly upstream: UpstreamNames | undefined;
}

const row = <T>(
  group: Group,
  type: ValueType<T>,
  fallback: string | undefined,
  help: string,
  upstream?: UpstreamNames,
): Option<T> => ({
  type,
  default: fallback,
  help,
  group,
  upstream,
});

/** Every setting of `keyturn run`: what flags, environment, file, help, `config show` and docs/settings.md know, they know from here. */
export const OPTIONS = {
  ca: row(
    'Certificate authority',
    choiceList(CA_NAMES, 'name', { Citadel: 'istiod' }),
    undefined,
    'Where certificates come from; required, unless mounted certificates or CA_ADDR are found',
    fileMountedCerts,
  ),
  'ca-address': row(
    'Certificate authority',
    addresses,
    undefined,
    'Where istiod or istio-csr listens; where both are asked, one address for each, in that order',
    sameAs('CA_ADDR'),
  ),
  'ca-root': row(
    'Certificate authority',
    path('file'),
    undefined,
    'PEM file of the roots of the CA server itself, or SYSTEM for those of this machine',
    caRootNames,
  ),
  'ca-server-name': row(
    'Certificate authority',
    word('name', 'host name'),
    undefined,
    "Name that the CA server's certificate must hold, instead of the host of --ca-address",
    { ...sameAs('ISTIOD_SAN'), note: 'where no address is given' },
  ),
  token: row(
    'Certificate authority',
    path('file'),
    './var/run/secrets/tokens/istio-token',
    'Token that authenticates to the CA, read on each request',
  ),
  'prov-cert': row(
    'Certificate authority',
    path('directory'),
    undefined,
    'Directory of key.pem, cert-chain.pem and root-cert.pem that authenticate to the CA',
    sameAs('PROV_CERT'),
  ),
  'cluster-id': row(
    'Certificate authority',
    word('text', 'name of a cluster'),
    undefined,
    'Cluster ID of the token, as configured in istiod and istio-csr',
    sameAs('ISTIO_META_CLUSTER_ID'),
  ),
  'cert-signer': row(
    'Certificate authority',
    word('name', 'name of a signer'),
    undefined,
    'Signer that istiod is to have sign, where it is an RA',
    sameAs('ISTIO_META_CERT_SIGNER'),
  ),
  'ca-header': row(
    'Certificate authority',
    headers,
    undefined,
    'Header to send to the CA; may be given again',
    caHeaders,
  ),
  'ca-timeout': row(
    'Certificate authority',
    duration({ atLeast: '1s', atMost: '10m' }),
    '60s',
    'Timeout of a request to the CA; grows after each timeout while a certificate is valid, up to 10m or a quarter of its remaining life',
  ),
  'ca-dir': row(
    'Certificate authority',
    path('directory'),
    './var/lib/keyturn/ca',
    'State of the built-in authority',
  ),
  'ca-key-algorithm': row(
    'Certificate authority',
    choice(KEY_ALGORITHMS, 'algorithm'),
    'ecdsa-p256',
    'Keys that the built-in authority makes, for its root and for JWT-SVIDs',
  ),
  'credentials-dir': row(
    'Certificate authority',
    path('directory'),
    './var/run/secrets/workload-spiffe-credentials',
    'Mounted cert-chain.pem, key.pem and root-cert.pem, for --ca file',
  ),
  'signer-name': row(
    'Certificate authority',
    signerName,
    undefined,
    'Signer to ask over the Kubernetes CSR API, for --ca kubernetes-csr',
  ),
  'csr-usages': row(
    'Certificate authority',
    choice(CSR_USAGES, 'usages'),
    'by-key',
    'Key usages to ask that signer for: those that fit the key, or those of istiod',
  ),
  kubeconfig: row(
    'Certificate authority',
    path('file'),
    undefined,
    'How to reach the Kubernetes API; a pod needs none',
    sameAs('KUBECONFIG'),
  ),
  'credential-bundle': row(
    'Certificate authority',
    path('file'),
    undefined,
    'Mounted key and certificates in one PEM file, as a PodCertificateRequest projects them, instead of --credentials-dir',
  ),
  'trust-bundle': row(
    'Certificate authority',
    path('file'),
    undefined,
    'PEM file of the roots that verify certificates, instead of the mounted root-cert.pem',
  ),
  'root-trust-domains': row(
    'Certificate authority',
    trustDomains,
    undefined,
    'Other trust domains whose roots the bundle may hold, e.g. during a migration; roots of any other are refused',
  ),
  crl: row(
    'Certificate authority',
    pathOrUrl(),
    undefined,
    'Certificate revocation lists of every CA of the bundle, PEM, for the proxy to enforce; ROOTCA waits for the first',
  ),
  'federated-bundle': row(
    'Certificate authority',
    bundlePlaces,
    undefined,
    'Bundle of a federated trust domain, PEM or SPIFFE JSON; may be given again',
  ),
  'trust-domain': row(
    'Identity',
    trustDomain,
    'cluster.local',
    'Trust domain of the identity',
    sameAs('TRUST_DOMAIN'),
  ),
  namespace: row(
    'Identity',
    segment,
    'default',
    'Namespace of the identity',
    sameAs('POD_NAMESPACE'),
  ),
  'service-account': row(
    'Identity',
    segment,
    'default',
    'Service account of the identity',
    sameAs('SERVICE_ACCOUNT'),
  ),
  'spiffe-id': row(
    'Identity',
    spiffeId,
    undefined,
    'The whole identity, instead of trust domain, namespace and service account',
  ),
  'key-algorithm': row(
    'Keys and rotation',
    choice(KEY_ALGORITHMS, 'algorithm'),
    'ecdsa-p256',
    'Key of the workload, made anew for every certificate; Envoys that speak TLS 1.2 want P-384 among their `ecdh_curves` for ecdsa-p384 (`keyturn bootstrap` says so)',
    keyAlgorithmNames,
  ),
  'key-format': row(
    'Keys and rotation',
    choice(['pkcs8', 'traditional'], 'format'),
    'pkcs8',
    'Form of private keys: PKCS#8, or PKCS#1 and SEC1',
    pkcs8Key,
  ),
  ttl: row(
    'Keys and rotation',
    duration({ atLeast: '1s', atMost: '3650d' }),
    '24h',
    'Life to ask for; the authority may give less',
    sameAs('SECRET_TTL'),
  ),
  'renew-ratio': row(
    'Keys and rotation',
    fraction({ zero: false }),
    '0.5',
    'Share of the remaining life after which to renew',
    gracePeriodRatio,
  ),
  'renew-jitter': row(
    'Keys and rotation',
    fraction({ zero: true }),
    '0.05',
    'Share of life by which a renewal may be earlier, by chance',
    {
      ...sameAs('SECRET_GRACE_PERIOD_RATIO_JITTER'),
      note: 'earlier only',
    },
  ),
  crypto: row(
    'Keys and rotation',
    choice(ENGINES, 'engine'),
    'direct',
    'Which code makes keys, requests and certificates',
  ),
  'sds-socket': row(
    'Serving over SDS',
    path('file'),
    './var/run/secrets/workload-spiffe-uds/socket',
    'Unix socket that Envoy connects to',
    workloadSocketFile,
  ),
  'sds-socket-mode': row(
    'Serving over SDS',
    socketMode,
    '0600',
    'Its permissions; 0600 shuts out an Envoy that runs as another user',
  ),
  'sds-socket-owner': row(
    'Serving over SDS',
    user,
    undefined,
    'Its owner, which only root may give away',
  ),
  'sds-socket-group': row('Serving over SDS', group, undefined, 'Its group, for 0660'),
  'sds-file-dir': row(
    'Serving over SDS',
    directories,
    './etc/certs,./var/run/secrets/workload-spiffe-credentials',
    'Where file-cert: and file-root: names may point; may be given again',
  ),
  'jwt-svid-ttl': row(
    'Serving over SDS',
    duration({ atLeast: '10s', atMost: '24h' }),
    '5m',
    'Life of the JWT-SVIDs that the built-in authority signs; none outlives the certificate',
  ),
  'svid-hint': row(
    'Serving over SDS',
    word('text', 'a word'),
    undefined,
    'What this identity is for, in a word, for clients of the SPIFFE Workload API',
  ),
  'output-certs': row(
    'Files',
    path('directory'),
    undefined,
    'Directory to keep key.pem, cert-chain.pem and root-cert.pem in',
    sameAs('OUTPUT_CERTS'),
  ),
  'state-dir': row(
    'Files',
    path('directory'),
    undefined,
    'Directory to keep the certificate in across restarts',
  ),
  workloads: row(
    'Many workloads',
    path('file'),
    undefined,
    'Directory of YAML files, one for each workload, or one YAML file with a list of them; followed while the agent runs',
  ),
  'workloads-ready': row(
    'Many workloads',
    choice(['all', 'any'], 'which'),
    'all',
    'How many workloads must be ready for the agent to be ready',
  ),
  'on-removal': row(
    'Many workloads',
    choice(['keep', 'delete'], 'what'),
    'keep',
    'What happens to files in state-dir and output-certs when a workload leaves the list',
  ),
  'admin-address': row(
    'Operation',
    hostPort,
    '127.0.0.1:15020',
    'Where health and metrics are served over HTTP',
  ),
  'control-socket': row(
    'Operation',
    path('file'),
    './var/run/keyturn/control.sock',
    'Unix socket of status, plan and rotate',
  ),
  config: row('Operation', path('file'), undefined, 'YAML file with settings, by their names'),
  'log-level': row(
    'Operation',
    choice(LOG_LEVELS, 'level'),
    'info',
    'Least important event to log',
  ),
  'log-format': row('Operation', choice(LOG_FORMATS, 'format'), 'text', 'Form of log lines'),
} as const satisfies Record<string, Option<unknown>>;

export type SettingName = keyof typeof OPTIONS;

/** What is of the process as a whole: a workload of a list may set everything else for itself. */
export const PROCESS_SETTINGS: readonly SettingName[] = [
  'workloads',
  'workloads-ready',
  'crypto',
  'admin-address',
  'control-socket',
  'config',
  'log-level',
  'log-format',
];
export const SETTING_NAMES = Object.keys(OPTIONS) as SettingName[];

/** The values of the settings, as their types read them. */
export type Values = {
  readonly [N in SettingName]: (typeof OPTIONS)[N] extends Option<infer T> ? T : never;
};

/** `KEYTURN_SDS_SOCKET` for `sds-socket`. */
export function environmentName(name: SettingName): string {
  return `KEYTURN_${name.toUpperCase().replaceAll('-', '_')}`;
}

/** All environment variables that may set it, ours first. */
export function environmentNames(name: SettingName): readonly string[] {
  const option: Option<unknown> = OPTIONS[name];
  return [environmentName(name), ...(option.upstream?.names ?? [])];
}

export function isSettingName(name: string): name is SettingName {
  return Object.hasOwn(OPTIONS, name);
}
