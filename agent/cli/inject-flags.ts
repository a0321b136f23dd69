import { type Command, Option } from 'commander';
import { AgentError, invalid } from '../base/errors';
import { parseHostPort } from '../base/host-port';
import { VERSION } from '../base/version';
import { readSetting, readSettings, settingsError } from '../config/load';
import type { SettingName } from '../config/options';
import type { Flags } from '../config/sources';
import { ISTIO_PROXY } from '../inject/names';
import {
  type EnvoyChoice,
  INJECTABLE_CAS,
  type InjectableCa,
  type InjectOptions,
} from '../inject/options';
import { addEnvoyFlags, ENVOY_FLAGS, readEnvoyFlags } from './envoy-flags';
import { addSettings } from './settings-options';
import type { Terminal } from './terminal';

/** What can be said about every pod alike. The rest comes from the pod, or is ours to decide. */
const POD_SETTINGS = [
  'ca',
  'ca-address',
  'ca-server-name',
  'cluster-id',
  'cert-signer',
  'signer-name',
  'csr-usages',
  'crl',
  'trust-domain',
  'root-trust-domains',
  'key-algorithm',
  'key-format',
  'ttl',
  'renew-ratio',
  'renew-jitter',
  'crypto',
  'sds-socket-mode',
  'log-level',
  'log-format',
  'admin-address',
] as const satisfies readonly SettingName[];
/** Written down even where nobody gave them, so that a manifest says whom its pods trust. */
const ALWAYS: readonly SettingName[] = ['ca', 'ca-address', 'trust-domain', 'admin-address'];

const ADMIN_ADDRESS = '0.0.0.0:15020';
/** Where Istio's agent has 15020. */
const BESIDE_ISTIO_AGENT = '0.0.0.0:15022';
const ROOT_CONFIG_MAP = 'istio-ca-root-cert';
/** The file in which the agent finds the roots of that ConfigMap. */
const ROOT_PATH = '/var/run/secrets/istio/root-cert.pem';

/** Adds the flags that say what is put into pods. */
export function addInjectFlags(command: Command): Command {
  addSettings(command, [...POD_SETTINGS.filter((name) => name !== 'admin-address'), 'config']);
  command
    .addOption(
      new Option(
        '--admin-address <host:port>',
        `Address of health and metrics, on all addresses (default: ${ADMIN_ADDRESS}, with --join ${ISTIO_PROXY} ${BESIDE_ISTIO_AGENT}; [::]:15020 where pods have IPv6 only)`,
      ),
    )
    .option('--image <image>', 'Image of the agent', `keyturn:${VERSION}`)
    .option(
      '--plain',
      'One more container, for Kubernetes before 1.29, instead of a native sidecar',
    )
    .option('--audience <name>', 'Audience of the service account token', 'istio-ca')
    .option(
      '--root-configmap <name>',
      `ConfigMap with root-cert.pem (default: ${ROOT_CONFIG_MAP}; none for kubernetes-csr alone)`,
    )
    .option('--cpu-request <quantity>', 'CPU request of the agent', '10m')
    .option('--cpu-limit <quantity>', 'CPU limit of the agent (default: no limit)')
    .option('--memory-request <quantity>', 'Memory request of the agent', '48Mi')
    .option('--memory-limit <quantity>', 'Memory limit of the agent', '96Mi')
    .addOption(
      new Option('--envoy <image>', 'Put an Envoy of this image beside it').conflicts('join'),
    )
    .option('--join <container>', 'Give the socket to the Envoy that this container is');
  return addEnvoyFlags(command);
}

/**
 * What the flags and the file of `--config` say. The environment says nothing: it is not the pods'.
 *
 * @param given  The parsed options of a command with `addInjectFlags`.
 * @throws       AgentError ERR_CONFIG | ERR_USAGE | ERR_IDENTITY_INVALID naming flag or file.
 */
export async function readInjectFlags(
  given: Readonly<Record<string, unknown>>,
  flags: Flags,
  terminal: Pick<Terminal, 'cwd'>,
): Promise<InjectOptions> {
  const { values, written } = await readPodSettings(
    flags,
    given.join === ISTIO_PROXY ? BESIDE_ISTIO_AGENT : ADMIN_ADDRESS,
    terminal.cwd,
  );
  const cas = values.ca.map(injectableCa);
  const byToken = cas.some((name) => name !== 'kubernetes-csr');
  const named =
    given.rootConfigmap === undefined
      ? undefined
      : text(given, 'root-configmap', OBJECT_NAME, 'a name of a ConfigMap');
  const rootConfigMap = named ?? (byToken ? ROOT_CONFIG_MAP : undefined);
  return {
    image: text(given, 'image', IMAGE, 'an image'),
    cas,
    // Without a flag, a signer's roots are asked of the API.
    settings: { ...written, ...(!byToken && named !== undefined && { 'trust-bundle': ROOT_PATH }) },
    adminPort: adminPort(values['admin-address']),
    audience: text(given, 'audience', /^[\x21-\x7e]{1,253}$/, 'an audience'),
    rootConfigMap,
    sidecar: given.plain === true ? 'plain' : 'native',
    resources: {
      cpuRequest: text(given, 'cpu-request', QUANTITY, QUANTITY_RULE),
      memoryRequest: text(given, 'memory-request', QUANTITY, QUANTITY_RULE),
      cpuLimit:
        given.cpuLimit === undefined
          ? undefined
          : text(given, 'cpu-limit', QUANTITY, QUANTITY_RULE),
      memoryLimit: text(given, 'memory-limit', QUANTITY, QUANTITY_RULE),
    },
    envoy: envoyChoice(given, values['trust-domain']),
  };
}

const IMAGE = /^[a-zA-Z0-9][\w.:/@-]{0,499}$/;
const OBJECT_NAME = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/;
const CONTAINER_NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const QUANTITY = /^\d{1,10}(?:\.\d{1,3})?(?:m|k|M|G|T|Ki|Mi|Gi|Ti)?$/;
const QUANTITY_RULE = 'a quantity, e.g. 10m or 64Mi';

/** The settings for a pod: as values, and as the text that its agent is given. */
async function readPodSettings(flags: Flags, usualAdmin: string, cwd: string) {
  const sources = { flags, env: {}, cwd };
  const ca = await readSetting('ca', sources);
  const first = await readSettings({
    ...sources,
    flags: ca === undefined ? { ...flags, ca: 'istiod' } : flags,
  });
  const isGiven = (origin: string) => origin.startsWith('flag ') || origin.startsWith('file ');
  const misplaced = first.settings.find(
    ({ name, origin }) => isGiven(origin) && name !== 'config' && !isForPods(name),
  );
  if (misplaced) {
    throw invalid('ERR_CONFIG', misplaced.origin, 'cannot be said for pods', {
      hint: `settings for pods are ${POD_SETTINGS.join(', ')}`,
    });
  }
  if (!first.loaded) throw settingsError(first.problems);
  const found = new Map(first.settings.map((each) => [each.name, each]));
  const admin = found.get('admin-address')!;
  const text = (name: SettingName) =>
    name === 'admin-address' && !isGiven(admin.origin) ? usualAdmin : found.get(name)!.value;
  const crl = text('crl');
  if (crl !== '' && !/^https?:\/\//.test(crl))
    throw invalid('ERR_CONFIG', found.get('crl')!.origin, 'must be a URL: a pod has no such file');
  const names = POD_SETTINGS.filter(
    (name) => text(name) !== '' && (isGiven(found.get(name)!.origin) || ALWAYS.includes(name)),
  );
  const { values } = first;
  if (values.ca === undefined || values['trust-domain'] === undefined)
    throw new AgentError('ERR_BUG', 'inject: settings without a CA');
  return {
    values: {
      ca: values.ca,
      'trust-domain': values['trust-domain'],
      'admin-address': { text: text('admin-address'), origin: admin.origin },
    },
    written: Object.fromEntries(names.map((name) => [name, text(name)])),
  };
}

function isForPods(name: string): boolean {
  return POD_SETTINGS.some((each) => each === name);
}

function injectableCa(name: string): InjectableCa {
  const found = INJECTABLE_CAS.find((each) => each === name);
  if (found !== undefined) return found;
  const why =
    name === 'builtin'
      ? 'every pod would be an authority of its own'
      : 'inject mounts no certificates';
  throw invalid('ERR_CONFIG', 'flag --ca', `cannot be ${name} for pods: ${why}`, {
    hint: `choose ${INJECTABLE_CAS.join(', ')}; keyturn ca serve is asked as istiod is`,
  });
}

/** Probes come from the node, to whatever address the pod has. */
function adminPort({ text, origin }: { readonly text: string; readonly origin: string }): number {
  const { host, port } = parseHostPort(text, origin);
  if (host !== '0.0.0.0' && host !== '::')
    throw invalid(
      'ERR_CONFIG',
      origin,
      'must be all addresses, 0.0.0.0 or [::]: probes come from the node',
    );
  if (port === 0) throw invalid('ERR_CONFIG', origin, 'must name a port: probes use it');
  return port;
}

function envoyChoice(
  given: Readonly<Record<string, unknown>>,
  trustDomain: string,
): EnvoyChoice | undefined {
  if (given.envoy !== undefined) {
    const flags = readEnvoyFlags(given);
    const chosen = {
      listen: flags.inbound?.listen,
      'peer-listen': flags.outbound?.listen,
      admin: flags.admin,
    };
    const [free] = Object.entries(chosen).find(([, address]) => address?.port === 0) ?? [];
    if (free !== undefined)
      throw invalid('ERR_CONFIG', `flag --${free}`, 'must name a port: clients use it');
    return {
      kind: 'beside',
      image: text(given, 'envoy', IMAGE, 'an image'),
      bootstrap: { trustDomain, ...flags },
    };
  }
  const needless = ENVOY_FLAGS.find(
    (name) => given[name] !== undefined && !HAVE_DEFAULTS.includes(name),
  );
  if (needless !== undefined)
    throw invalid('ERR_USAGE', `flag --${dashed(needless)}`, 'is for the Envoy of --envoy');
  if (given.join === undefined) return undefined;
  return { kind: 'join', container: text(given, 'join', CONTAINER_NAME, 'a name of a container') };
}

const HAVE_DEFAULTS: readonly string[] = ['peerListen', 'sessionResumption', 'admin'];

function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function text(
  given: Readonly<Record<string, unknown>>,
  flag: string,
  rule: RegExp,
  what: string,
): string {
  const value = given[flag.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())];
  if (typeof value !== 'string' || !rule.test(value))
    throw invalid('ERR_USAGE', `flag --${flag}`, `must be ${what}`);
  return value;
}
