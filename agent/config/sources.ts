import { type AgentError, invalid } from '../base/errors';
import { suggestion } from '../base/suggestion';
import type { Origin } from './config';
import {
  environmentName,
  isSettingName,
  OPTIONS,
  type Option,
  SETTING_NAMES,
  type SettingName,
} from './options';
import type { FileEntry } from './settings-file';
import type { Environment } from './upstream';

/** Flags by their name without dashes. A repeated flag is a list. */
export type Flags = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** The text of a setting and where it was found. `upstream` is Istio's name for it in the environment, `workload` an entry of a list. */
export interface Reading {
  readonly text: string;
  readonly origin: Origin;
  readonly from: 'flag' | 'environment' | 'upstream' | 'file' | 'default' | 'workload';
}

const PREFIX = 'KEYTURN_';

/** Names that begin like ours but are none of our settings: switches of the tests and scripts, and what Kubernetes sets for a Service `keyturn`. */
const NOT_SETTINGS = [
  /^KEYTURN_(?:TEST|CACHE)$/,
  /^KEYTURN_(?:[A-Z0-9_]+_)?SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)$/,
  /^KEYTURN_(?:[A-Z0-9_]+_)?PORT(?:_\d{1,5}_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?$/,
];

/** The environment without its empty variables: those count as unset, as a unit file's `X=` means. */
export function cleanEnvironment(env: Readonly<Record<string, string | undefined>>): Environment {
  const clean: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(env))
    if (value !== undefined && value !== '') clean[name] = value;
  return clean;
}

/** Every KEYTURN_* variable that is no setting, as errors. */
export function unknownVariables(env: Environment): AgentError[] {
  // Compared without the common prefix, which would make all of them look alike.
  const known = SETTING_NAMES.map((name) => environmentName(name).slice(PREFIX.length));
  return Object.keys(env)
    .filter(
      (name) => name.startsWith(PREFIX) && !NOT_SETTINGS.some((pattern) => pattern.test(name)),
    )
    .map((name) => name.slice(PREFIX.length))
    .filter((rest) => !known.includes(rest))
    .map((rest) => unknown(`environment ${PREFIX}${rest.slice(0, 100)}`, rest, known, PREFIX));
}

export function unknownFlags(flags: Flags): AgentError[] {
  return Object.keys(flags)
    .filter((name) => !isSettingName(name))
    .map((name) => unknown(`flag --${name}`, name, SETTING_NAMES, '--'));
}

/** @param without  Settings that cannot be made there; by default that of the file itself, which would be a riddle. */
export function unknownKeys(
  entries: readonly FileEntry[],
  file: string,
  without: readonly SettingName[] = ['config'],
): AgentError[] {
  const keys = SETTING_NAMES.filter((name) => !without.includes(name));
  return entries
    .filter((entry) => !keys.some((name) => name === entry.key))
    .map((entry) => unknown(`${file}: ${entry.key.slice(0, 100)}`, entry.key, keys));
}

/**
 * The first that says something about a setting: flag, our variable, upstream's variable, file, default.
 *
 * @throws AgentError ERR_CONFIG where upstream's variable cannot be understood.
 */
export function lookUp(
  name: SettingName,
  flags: Flags,
  env: Environment,
  entries: readonly FileEntry[],
  file: string,
): Reading | undefined {
  const flag = flags[name];
  if (flag !== undefined)
    return {
      text: typeof flag === 'object' ? flag.join(',') : String(flag),
      origin: `flag --${name}`,
      from: 'flag',
    };
  const own = env[environmentName(name)];
  if (own !== undefined)
    return { text: own, origin: `environment ${environmentName(name)}`, from: 'environment' };
  const option: Option<unknown> = OPTIONS[name];
  const upstream = option.upstream?.read(env);
  if (upstream)
    return { text: upstream.text, origin: `environment ${upstream.name}`, from: 'upstream' };
  const entry = entries.find((each) => each.key === name);
  if (entry) return { text: entry.text, origin: `${file}: ${name}`, from: 'file' };
  return option.default === undefined
    ? undefined
    : { text: option.default, origin: 'default', from: 'default' };
}

function unknown(field: string, name: string, known: Iterable<string>, prefix = ''): AgentError {
  const near = suggestion(name, known);
  return invalid('ERR_CONFIG', field, 'is not a setting', {
    hint: near ? `did you mean ${prefix}${near}?` : '`keyturn run --help` lists all settings',
  });
}
