import { AgentError, invalid } from '../base/errors';
import {
  formatSpiffeId,
  parseSpiffeId,
  type SpiffeId,
  serviceAccountId,
} from '../identity/spiffe-id';
import type { Origin } from './config';
import type { SettingName, Values } from './options';
import type { Reading } from './sources';
import { besideIstioAgent, type Environment } from './upstream';

/** What the single settings said, before the rules between them are applied. Values that were refused are absent. */
export interface SettingsDraft {
  readonly values: { -readonly [N in SettingName]?: Values[N] };
  readonly readings: Map<SettingName, Reading>;
}

/** What the rules need from outside. */
export interface Surroundings {
  readonly env: Environment;
  /** Whether a directory holds all of cert-chain.pem, key.pem and root-cert.pem. */
  readonly holdsCredentials: (dir: string) => boolean;
}

const LEGACY_DIR = './etc/certs';
const IDENTITY_PARTS = ['trust-domain', 'namespace', 'service-account'] as const;

/** Where files are the source and nobody said which: upstream's newer directory, or its older one where only that has them. */
export function chooseCredentialsDir(draft: SettingsDraft, around: Surroundings): void {
  const dir = draft.values['credentials-dir'];
  if (readsFiles(draft) && dir !== undefined && isDefault(draft, 'credentials-dir')) {
    if (!around.holdsCredentials(dir) && around.holdsCredentials(LEGACY_DIR))
      settle(draft, 'credentials-dir', LEGACY_DIR, `found certificates in ${LEGACY_DIR}`);
  }
  const served = draft.values['credentials-dir'];
  if (
    served !== undefined &&
    isDefault(draft, 'sds-file-dir') &&
    !draft.values['sds-file-dir']?.includes(served)
  )
    settle(draft, 'sds-file-dir', [LEGACY_DIR, served], 'default, with credentials-dir');
}

/** Where Istio's agent has 15020, for `/healthz` of its Envoy and for metrics, on all addresses. */
const BESIDE_ISTIO_AGENT = '127.0.0.1:15022';

/** Nobody chose a port, and the usual one is that of Istio's agent beside us: on it we would answer for the health of its proxy. */
export function chooseAdminAddress(draft: SettingsDraft, env: Environment): void {
  const variable = besideIstioAgent(env);
  if (variable === undefined || !isDefault(draft, 'admin-address')) return;
  settle(
    draft,
    'admin-address',
    BESIDE_ISTIO_AGENT,
    `beside Istio's agent, by environment ${variable}`,
  );
}

/**
 * A jitter as wide as the ratio would renew at once. The default gives way to a small ratio; a chosen one is refused.
 *
 * @throws AgentError ERR_CONFIG.
 */
export function checkRotation(draft: SettingsDraft): void {
  const { 'renew-ratio': ratio, 'renew-jitter': jitter } = draft.values;
  if (ratio === undefined || jitter === undefined || jitter < ratio) return;
  if (isDefault(draft, 'renew-jitter')) {
    settle(draft, 'renew-jitter', ratio / 2, 'default (half of renew-ratio)');
    return;
  }
  const reading = draft.readings.get('renew-jitter')!;
  throw invalid('ERR_CONFIG', reading.origin, `"${reading.text}" must be less than renew-ratio`, {
    hint: `renew-ratio is ${ratio} (${draft.readings.get('renew-ratio')?.origin})`,
  });
}

/**
 * The identity: a whole SPIFFE ID or its three parts, whichever was said more explicitly (workload, flag, KEYTURN_ variable, file,
 * upstream's variable, default). Mounted files need none: without one of ours, the certificate says who we are.
 *
 * @throws AgentError ERR_CONFIG where both are given at the same level.
 */
export function chooseIdentity(draft: SettingsDraft): SpiffeId | undefined {
  const whole = draft.readings.get('spiffe-id');
  const parts = IDENTITY_PARTS.filter((name) => rank(draft.readings.get(name)) > 0);
  const strongest = Math.max(0, ...parts.map((name) => rank(draft.readings.get(name))));
  const clash = parts.find((name) => whole && rank(draft.readings.get(name)) === rank(whole));
  if (whole && clash && strongest === rank(whole)) {
    throw invalid(
      'ERR_CONFIG',
      whole.origin,
      `cannot be given together with ${draft.readings.get(clash)!.origin}`,
      {
        hint: 'a SPIFFE ID is the whole identity: give it alone, or give trust domain, namespace and service account',
      },
    );
  }
  if (whole && rank(whole) > strongest) return takeWhole(draft, whole.origin);
  // An entry of a list is checked by `checkOwnIdentity`.
  if (whole && strongest < RANK.workload) checkReplaced(draft, whole, parts);
  return takeParts(draft, strongest);
}

/** Parts that replace a whole SPIFFE ID replace all of it: a default in between would be an identity that nobody meant. */
function checkReplaced(draft: SettingsDraft, whole: Reading, parts: readonly SettingName[]): void {
  const missing = (['namespace', 'service-account'] as const).find(
    (name) => rank(draft.readings.get(name)) <= rank(whole),
  );
  if (missing === undefined) return;
  const by = parts.map((name) => draft.readings.get(name)!.origin).join(' and ');
  throw invalid('ERR_CONFIG', whole.origin, `is replaced by ${by}, without ${missing}`, {
    hint: `give ${missing} there too, or spiffe-id`,
  });
}

/**
 * A workload of a list names its identity itself: what the process says of itself, and the defaults, are for no workload. So an entry that
 * was cut short by a full disk or a truncating writer is refused instead of becoming another workload.
 *
 * @throws AgentError ERR_CONFIG naming the file and what is missing.
 */
export function checkOwnIdentity(
  draft: SettingsDraft,
  { origin }: { readonly origin: Origin },
): void {
  const own = (name: SettingName) => draft.readings.get(name)?.from === 'workload';
  if (own('spiffe-id') || (own('namespace') && own('service-account'))) return;
  if (readsFiles(draft) && (own('credentials-dir') || own('credential-bundle'))) return;
  const half = (['namespace', 'service-account'] as const).find(own);
  const missing = half === 'namespace' ? 'service-account' : 'namespace';
  const rule =
    half === undefined
      ? 'must name the identity of the workload'
      : `must name ${missing} beside ${half}`;
  const files = readsFiles(draft) ? ', or credentials-dir or credential-bundle of its own' : '';
  throw invalid('ERR_CONFIG', origin, rule, {
    hint: `say spiffe-id, or namespace and service-account, in the entry itself${files}`,
  });
}

/** Half of a name that was given without the other half, which is a default: a warning, since the CA may know no such workload. */
export function defaultedHalf(
  settings: readonly { readonly name: string; readonly origin: Origin }[],
): string | undefined {
  const halves = settings.filter(({ name }) => name === 'namespace' || name === 'service-account');
  const missing = halves.filter(({ origin }) => origin === 'default');
  return missing.length === 1 && halves.length === 2 ? missing[0]!.name : undefined;
}

function takeWhole(draft: SettingsDraft, origin: Origin): SpiffeId | undefined {
  const text = draft.values['spiffe-id'];
  if (text === undefined) return undefined;
  const id = parseSpiffeId(text);
  settle(draft, 'trust-domain', id.trustDomain, `part of ${origin}`);
  for (const name of ['namespace', 'service-account'] as const)
    draft.readings.set(name, { text: '', origin: `not used: ${origin}`, from: 'default' });
  return id;
}

function takeParts(draft: SettingsDraft, strongest: number): SpiffeId | undefined {
  const { 'trust-domain': domain, namespace, 'service-account': account } = draft.values;
  const own = (['namespace', 'service-account'] as const).some(
    (name) => rank(draft.readings.get(name)) > RANK.upstream,
  );
  if (readsFiles(draft) && !own) {
    draft.readings.set('spiffe-id', {
      text: '',
      origin: 'not used: the mounted certificate says it',
      from: 'default',
    });
    return undefined;
  }
  if (domain === undefined || namespace === undefined || account === undefined) return undefined;
  const id = serviceAccountId(domain, namespace, account);
  const origin = strongest === 0 ? 'default' : 'trust-domain, namespace and service-account';
  settle(draft, 'spiffe-id', formatSpiffeId(id), origin);
  return id;
}

/**
 * Our own trust domain has its bundle from the CA.
 *
 * @throws AgentError ERR_CONFIG.
 */
export function checkFederation(
  { readings, values }: SettingsDraft,
  id: SpiffeId | undefined,
): void {
  const reading = readings.get('federated-bundle');
  const own = id?.trustDomain;
  if (reading === undefined || own === undefined || !values['federated-bundle']?.has(own)) return;
  throw invalid('ERR_CONFIG', reading.origin, `names our own trust domain ${own}`, {
    hint: 'its roots come from the CA or --trust-bundle',
  });
}

const RANK = { default: 0, upstream: 1, file: 2, environment: 3, flag: 4, workload: 5 } as const;

function rank(reading: Reading | undefined): number {
  return reading === undefined ? 0 : RANK[reading.from];
}

/** Whether nobody said anything about a setting. */
export function isDefault(draft: SettingsDraft, name: SettingName): boolean {
  return draft.readings.get(name)?.from === 'default';
}

/** Whether mounted files are the source. */
export function readsFiles(draft: SettingsDraft): boolean {
  return draft.values.ca?.includes('file') ?? false;
}

/** Sets what a rule has decided; it counts as a default. */
export function settle<N extends SettingName>(
  draft: SettingsDraft,
  name: N,
  value: Values[N],
  origin: Origin,
): void {
  draft.readings.set(name, { text: String(value), origin, from: 'default' });
  draft.values[name] = value;
}

/** Runs a rule; what it refuses is added to the problems. */
export function collect<T>(problems: AgentError[], rule: () => T): T | undefined {
  try {
    return rule();
  } catch (caught) {
    problems.push(AgentError.from(caught));
    return undefined;
  }
}
