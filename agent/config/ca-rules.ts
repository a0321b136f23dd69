import { invalid } from '../base/errors';
import { CA_HINT, type CaName, OPTIONS } from './options';
import { isDefault, readsFiles, type SettingsDraft, type Surroundings, settle } from './rules';

/** The CAs that have an address, and where each is in a cluster that was set up by its own documentation. */
const DEFAULT_ADDRESSES: Readonly<Partial<Record<CaName, string>>> = {
  istiod: 'istiod.istio-system.svc:15012',
  'istio-csr': 'cert-manager-istio-csr.cert-manager.svc:443',
};

/**
 * Where nobody chose a CA: a credential bundle chooses files; so do mounted credentials where they are found; else CA_PROVIDER says, and
 * CA_ADDR alone means istiod, as upstream.
 *
 * @throws AgentError ERR_CONFIG where nothing chooses: an agent must not become its own authority by accident.
 */
export function chooseCa(draft: SettingsDraft, around: Surroundings): void {
  const { CA_PROVIDER: provider, CA_ADDR: address } = around.env;
  if (draft.readings.has('ca')) return;
  const bundle = draft.readings.get('credential-bundle');
  const dir = draft.values['credentials-dir'];
  if (bundle !== undefined) settle(draft, 'ca', ['file'], bundle.origin);
  else if (dir !== undefined && around.holdsCredentials(dir))
    settle(draft, 'ca', ['file'], `found certificates in ${dir}`);
  else if (provider !== undefined) takeUpstream(draft, provider, 'environment CA_PROVIDER');
  else if (address !== undefined) takeUpstream(draft, 'istiod', 'environment CA_ADDR');
  else throw invalid('ERR_CONFIG', 'flag --ca', 'is required', { hint: CA_HINT });
}

function takeUpstream(draft: SettingsDraft, text: string, origin: string): void {
  draft.readings.set('ca', { text, origin, from: 'upstream' });
  draft.values.ca = OPTIONS.ca.type.parse(text, origin);
}

/** What systemd calls the join token of a machine: it reads it as root and shows it to the agent alone. */
const TOKEN_CREDENTIAL = 'keyturn.join-token';

/**
 * Where nobody named a token and systemd hands out credentials, ours is among them.
 *
 * @see systemd.exec(5) LoadCredential.
 */
export function chooseToken(draft: SettingsDraft, around: Surroundings): void {
  const { CREDENTIALS_DIRECTORY: dir } = around.env;
  if (dir === undefined || !isDefault(draft, 'token')) return;
  settle(draft, 'token', `${dir}/${TOKEN_CREDENTIAL}`, 'environment CREDENTIALS_DIRECTORY');
}

/**
 * What others renew cannot be one of several, and a certificate to ask with is for those who ask.
 *
 * @throws AgentError ERR_CONFIG.
 */
export function checkCaList(draft: SettingsDraft): void {
  const { readings, values } = draft;
  if (!readsFiles(draft)) return;
  const { origin, from } = readings.get('ca')!;
  if (values.ca!.length > 1)
    throw invalid(
      'ERR_CONFIG',
      origin,
      'cannot name file beside a CA: mounted certificates need no CA',
    );
  const provided = readings.get('prov-cert');
  if (provided && from !== 'default')
    throw invalid('ERR_CONFIG', provided.origin, `cannot be given together with ${origin}`);
}

/** The API refuses a request for less. */
const KUBERNETES_MIN_MS = 600_000;

/**
 * The Kubernetes API needs to be told which signer is meant, and has a least life.
 *
 * @throws AgentError ERR_CONFIG.
 */
export function checkKubernetesCsr({ readings, values }: SettingsDraft): void {
  if (!values.ca?.includes('kubernetes-csr')) return;
  if (!readings.has('signer-name')) {
    throw invalid('ERR_CONFIG', 'flag --signer-name', 'is required for kubernetes-csr', {
      hint: 'e.g. clusterissuers.cert-manager.io/istio-ca',
    });
  }
  if (values.ttl === undefined || values.ttl >= KUBERNETES_MIN_MS) return;
  throw invalid(
    'ERR_CONFIG',
    readings.get('ttl')!.origin,
    'must be at least 10m for kubernetes-csr: the Kubernetes API refuses less',
  );
}

/**
 * One address for each CA that has one, and by upstream's rule no ISTIOD_SAN where an address was given.
 *
 * @throws AgentError ERR_CONFIG where there are more or fewer.
 */
export function chooseAddresses(draft: SettingsDraft): void {
  const { readings, values } = draft;
  const asked = values.ca?.filter((name) => DEFAULT_ADDRESSES[name] !== undefined) ?? [];
  const defaults = asked.map((name) => DEFAULT_ADDRESSES[name]!);
  const given = readings.get('ca-address');
  const name = readings.get('ca-server-name');
  if (given && name?.from === 'upstream') {
    readings.set('ca-server-name', {
      text: '',
      origin: `not used: ${given.origin} says where`,
      from: 'default',
    });
    delete values['ca-server-name'];
  }
  if (asked.length > 0 && !given) {
    settle(draft, 'ca-address', defaults, `default of ${asked.join(', ')}`);
  }
  const count = values['ca-address']?.length;
  if (asked.length === 0 || !given || count === undefined || count === asked.length) return;
  throw invalid(
    'ERR_CONFIG',
    given.origin,
    `names ${count} of them, for ${asked.length} (${asked.join(', ')})`,
    {
      hint: 'give one address for each, in the order of --ca',
    },
  );
}

/**
 * PILOT_CERT_PROVIDER `none` says that nothing is mounted to judge the CA's server by; then something else must be named.
 *
 * @throws AgentError ERR_CONFIG.
 */
export function checkCertProvider(
  { readings, values }: SettingsDraft,
  { env }: Surroundings,
): void {
  const asksServer = values.ca?.some((name) => DEFAULT_ADDRESSES[name] !== undefined) ?? false;
  if (
    env.PILOT_CERT_PROVIDER !== 'none' ||
    !asksServer ||
    readings.has('ca-root') ||
    readings.has('prov-cert')
  )
    return;
  throw invalid(
    'ERR_CONFIG',
    'environment PILOT_CERT_PROVIDER',
    '"none" leaves no roots to verify the CA server',
    {
      hint: "set --ca-root (or CA_ROOT_CA) to a file of the server's roots or to SYSTEM, or unset the variable",
    },
  );
}

/**
 * A credential bundle holds no roots, and what judges certificates is never guessed.
 *
 * @throws AgentError ERR_CONFIG.
 */
export function checkMountedFiles(draft: SettingsDraft): void {
  const bundle = draft.readings.get('credential-bundle');
  if (bundle === undefined || !readsFiles(draft) || draft.readings.has('trust-bundle')) return;
  throw invalid('ERR_CONFIG', bundle.origin, 'needs --trust-bundle', {
    hint: 'name the file of roots too, e.g. the clusterTrustBundle that is projected beside it',
  });
}
