import { accessSync, constants } from 'node:fs';
import { join, resolve } from 'node:path';
import { AgentError, errorText, invalid, oneError } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import type { SpiffeId } from '../identity/spiffe-id';
import {
  checkCaList,
  checkCertProvider,
  checkKubernetesCsr,
  checkMountedFiles,
  chooseAddresses,
  chooseCa,
  chooseToken,
} from './ca-rules';
import type { Config, LoadedConfig, WorkloadEntry } from './config';
import { checkDirectories } from './directory-rules';
import { OPTIONS, type Option, SETTING_NAMES, type SettingName, type Values } from './options';
import { resolvePath } from './resolve-path';
import {
  checkFederation,
  checkOwnIdentity,
  checkRotation,
  chooseAdminAddress,
  chooseCredentialsDir,
  chooseIdentity,
  collect,
  type SettingsDraft,
} from './rules';
import { type FileEntry, MAX_FILE_BYTES, parseSettingsFile } from './settings-file';
import {
  cleanEnvironment,
  type Flags,
  lookUp,
  type Reading,
  unknownFlags,
  unknownKeys,
  unknownVariables,
} from './sources';
import type { Environment } from './upstream';
import { MAX_VALUE } from './value-types';
import {
  placeWorkload,
  unknownWorkloadKeys,
  workloadError,
  workloadReading,
} from './workload-settings';

/** Everything that settings are read from. */
export interface SettingSources {
  readonly flags: Flags;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What relative paths are relative to; default: the process's own. */
  readonly cwd?: string;
  /** Reads the settings file, by its absolute path; default: from disk, at most 256 KiB. */
  readonly readFile?: (path: string) => Promise<Uint8Array>;
}

/** What was found, also where some of it is wrong: `config show` prints both. `loaded` is there exactly when there are no problems. */
export interface SettingsReport {
  readonly settings: LoadedConfig['settings'];
  readonly values: SettingsDraft['values'];
  readonly problems: readonly AgentError[];
  readonly loaded: LoadedConfig | undefined;
}

/**
 * Reads all settings: flag, then environment, then file, then default.
 *
 * @throws AgentError ERR_CONFIG or ERR_IDENTITY_INVALID naming each origin; several problems are one error whose cause is an
 *         AggregateError of them.
 */
export async function loadConfig(sources: SettingSources): Promise<LoadedConfig> {
  const report = await readSettings(sources);
  if (report.loaded) return report.loaded;
  throw settingsError(report.problems);
}

/** As `loadConfig`, but problems are returned beside what is right. */
export async function readSettings(sources: SettingSources): Promise<SettingsReport> {
  const told = await readTold(sources);
  const report = evaluateSettings(told, undefined);
  const problems = [...told.problems, ...report.problems];
  return { ...report, problems, loaded: problems.length === 0 ? report.loaded : undefined };
}

/** All that a process is told, wherever it stands. */
interface SettingsInput {
  readonly flags: Flags;
  readonly env: Environment;
  readonly cwd: string;
  /** How errors call the settings file. */
  readonly file: string;
  readonly entries: readonly FileEntry[];
  /** Whether the file could be read: what it would have said is not missing. */
  readonly complete: boolean;
  readonly problems: readonly AgentError[];
}

async function readTold(sources: SettingSources): Promise<SettingsInput> {
  const cwd = sources.cwd ?? process.cwd();
  const env = cleanEnvironment(sources.env);
  const problems: AgentError[] = [...unknownFlags(sources.flags), ...unknownVariables(env)];
  const { file, entries, complete } = await readFileEntries(sources, env, cwd, problems);
  return { flags: sources.flags, env, cwd, file, entries, complete, problems };
}

/** The settings of the process, or of one workload of its list. */
function evaluateSettings(
  told: SettingsInput,
  workload: WorkloadEntry | undefined,
): SettingsReport {
  const problems: AgentError[] = workload ? unknownWorkloadKeys(workload) : [];
  const draft = readEach(told, workload, problems);
  if (workload) placeWorkload(draft, workload);
  chooseAdminAddress(draft, told.env);
  // A misspelt setting is told as that, not as what it leaves missing.
  if (workload && problems.length === 0) collect(problems, () => checkOwnIdentity(draft, workload));
  // What is said for all workloads need not be whole: each is judged with what it says itself.
  const id =
    workload || !draft.readings.has('workloads') ? applyRules(draft, told, problems) : undefined;
  const settings = SETTING_NAMES.map((name) => {
    const { text, origin } = draft.readings.get(name) ?? { text: '', origin: 'default' };
    const option: Option<unknown> = OPTIONS[name];
    return { name, value: option.type.shown?.(text) ?? text, origin };
  });
  if (problems.length > 0) return { settings, values: draft.values, problems, loaded: undefined };
  // No problem means that every setting with a text has its value.
  const config = toConfig(draft.values as Values, id);
  const judgeWorkload = (entry: WorkloadEntry) => {
    const { loaded, problems: wrong } = evaluateSettings(told, entry);
    return loaded ? loaded.config : workloadError(entry.name, settingsError(wrong));
  };
  return { settings, values: draft.values, problems, loaded: { config, settings, judgeWorkload } };
}

/**
 * One setting, for a command that needs no others: what is wrong elsewhere is not its business.
 *
 * @throws AgentError ERR_CONFIG or ERR_IDENTITY_INVALID.
 */
export async function readSetting<N extends SettingName>(
  name: N,
  sources: SettingSources,
): Promise<Values[N] | undefined> {
  const env = cleanEnvironment(sources.env);
  const problems: AgentError[] = [];
  const { file, entries } = await readFileEntries(
    sources,
    env,
    sources.cwd ?? process.cwd(),
    problems,
  );
  if (problems.length > 0) throw settingsError(problems);
  const reading = lookUp(name, sources.flags, env, entries, file);
  return reading && (parseReading(name, reading) as Values[N]);
}

async function readFileEntries(
  sources: SettingSources,
  env: Environment,
  cwd: string,
  problems: AgentError[],
) {
  const reading = lookUp('config', sources.flags, env, [], '');
  const file = `file ${reading?.text}`;
  let entries: FileEntry[] = [];
  let complete = true;
  if (reading !== undefined) {
    try {
      entries = await parseSettingsFile(await readFile(reading, file, sources, cwd), file);
      problems.push(...unknownKeys(entries, file));
    } catch (caught) {
      complete = false;
      problems.push(AgentError.from(caught, 'ERR_CONFIG'));
    }
  }
  return { file, entries, complete };
}

async function readFile(
  { text, origin }: Reading,
  file: string,
  sources: SettingSources,
  cwd: string,
): Promise<Uint8Array> {
  const path = resolve(cwd, text);
  if (sources.readFile) return sources.readFile(path);
  try {
    return await readSmallFile(path, { field: file, code: 'ERR_CONFIG', maxBytes: MAX_FILE_BYTES });
  } catch (cause) {
    throw new AgentError('ERR_CONFIG', `${origin}: ${errorText(cause)}`, { field: origin, cause });
  }
}

function readEach(
  { flags, env, entries, file }: SettingsInput,
  workload: WorkloadEntry | undefined,
  problems: AgentError[],
): SettingsDraft {
  const draft: SettingsDraft = { values: {}, readings: new Map() };
  for (const name of SETTING_NAMES) {
    collect(problems, () => {
      // Whatever refuses it: something was said about this setting, so no rule may choose for it.
      draft.readings.set(name, { text: '', origin: 'refused', from: 'upstream' });
      const reading =
        (workload && workloadReading(workload, name)) ?? lookUp(name, flags, env, entries, file);
      if (reading === undefined) return draft.readings.delete(name);
      draft.readings.set(name, reading);
      return Object.assign(draft.values, { [name]: parseReading(name, reading) });
    });
  }
  return draft;
}

function parseReading(name: SettingName, { text, origin }: Reading): unknown {
  if (text.length > MAX_VALUE)
    throw invalid('ERR_CONFIG', origin, `must not be longer than ${MAX_VALUE} characters`);
  const option: Option<unknown> = OPTIONS[name];
  return option.type.parse(text, origin);
}

function toConfig(values: Values, id: SpiffeId | undefined): Config {
  return {
    ca: values.ca ?? [],
    caAddresses: values['ca-address'] ?? [],
    caRoot: values['ca-root'],
    caServerName: values['ca-server-name'],
    token: values.token,
    provCert: values['prov-cert'],
    clusterId: values['cluster-id'],
    certSigner: values['cert-signer'],
    signerName: values['signer-name'],
    csrUsages: values['csr-usages'],
    kubeconfig: values.kubeconfig,
    caHeaders: values['ca-header'] ?? new Map(),
    caTimeoutMs: values['ca-timeout'],
    caDir: values['ca-dir'],
    caKeyAlgorithm: values['ca-key-algorithm'],
    id,
    keyAlgorithm: values['key-algorithm'],
    keyFormat: values['key-format'],
    engine: values.crypto,
    ttlMs: values.ttl,
    renewRatio: values['renew-ratio'],
    renewJitter: values['renew-jitter'],
    sdsSocket: values['sds-socket'],
    sdsSocketMode: values['sds-socket-mode'],
    sdsSocketOwner: values['sds-socket-owner'],
    sdsSocketGroup: values['sds-socket-group'],
    sdsFileDirs: values['sds-file-dir'],
    svidHint: values['svid-hint'],
    jwtSvidTtlMs: values['jwt-svid-ttl'],
    credentialsDir: values['credentials-dir'],
    credentialBundle: values['credential-bundle'],
    trustBundle: values['trust-bundle'],
    rootTrustDomains: values['root-trust-domains'] ?? [],
    crl: values.crl,
    federatedBundles: values['federated-bundle'] ?? new Map(),
    outputCerts: values['output-certs'],
    stateDir: values['state-dir'],
    workloads: values.workloads,
    workloadsReady: values['workloads-ready'],
    onRemoval: values['on-removal'],
    adminAddress: values['admin-address'],
    controlSocket: values['control-socket'],
    logLevel: values['log-level'],
    logFormat: values['log-format'],
  };
}

function holdsCredentials(dir: string): boolean {
  try {
    for (const name of ['cert-chain.pem', 'key.pem', 'root-cert.pem'])
      accessSync(join(dir, name), constants.F_OK);
    return true;
  } catch {
    return false;
  }
}

/** The rules between settings. What a file that could not be read would have said is not missing. */
function applyRules(
  draft: SettingsDraft,
  { env, cwd, complete }: SettingsInput,
  problems: AgentError[],
): SpiffeId | undefined {
  const around = { env, holdsCredentials: (dir: string) => holdsCredentials(resolve(cwd, dir)) };
  if (complete) collect(problems, () => chooseCa(draft, around));
  chooseToken(draft, around);
  collect(problems, () => checkCaList(draft));
  if (complete) collect(problems, () => checkKubernetesCsr(draft));
  collect(problems, () => chooseAddresses(draft));
  collect(problems, () => checkCertProvider(draft, around));
  chooseCredentialsDir(draft, around);
  collect(problems, () => checkMountedFiles(draft));
  collect(problems, () => checkDirectories(draft, (dir) => resolvePath(resolve(cwd, dir))));
  collect(problems, () => checkRotation(draft));
  const id = collect(problems, () => chooseIdentity(draft));
  collect(problems, () => checkFederation(draft, id));
  return id;
}

/** All that is wrong with settings, at least one problem. */
export function settingsError(problems: readonly AgentError[]): AgentError {
  const all = problems.map(({ message }) => message).join('; ');
  return oneError('ERR_CONFIG', problems, `settings: ${problems.length} are wrong: ${all}`);
}
