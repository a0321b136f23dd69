import { AgentError } from '../base/errors';
import type { Logger } from '../base/log';
import { BUN_VERSION } from '../base/runtime';

/** What surrounds the process and was read by its runtime before us. */
export interface Surroundings {
  readonly env: Readonly<NodeJS.ProcessEnv>;
  /** Switches of the runtime on the command line, `process.execArgv`. */
  readonly runtimeSwitches: readonly string[];
}

/** A variable that was taken away, and why. */
export interface IgnoredVariable {
  readonly name: string;
  readonly level: 'info' | 'warn';
  readonly event: string;
}

/** Switches of Node.js that let nobody in, write nothing down and leave TLS as it is. */
const SWITCHES: Readonly<Record<string, RegExp>> = {
  '--max-old-space-size': /^\d+$/,
  '--max-semi-space-size': /^\d+$/,
  '--stack-trace-limit': /^\d+$/,
  '--dns-result-order': /^(?:ipv4first|ipv6first|verbatim)$/,
  '--disable-warning': /^\w+$/,
  '--no-warnings': /^$/,
  '--trace-warnings': /^$/,
  '--disable-sigusr1': /^$/,
  '--disable-wasm-trap-handler': /^$/,
};

/** Variables of Bun that do the same, with their values. Those of its installer and its images do nothing here. */
const BUN_VARIABLES: Readonly<Record<string, RegExp>> = {
  BUN_JSC_forceRAMSize: /^\d+$/,
  BUN_JSC_useJIT: /^(?:[01]|true|false)$/,
  BUN_INSTALL: /^/,
  BUN_INSTALL_BIN: /^/,
  BUN_RUNTIME_TRANSPILER_CACHE_PATH: /^0$/,
};

/** What Kubernetes sets in every container for a Service whose name begins with `bun`. */
const SERVICE_LINK =
  /^[A-Z0-9_]+_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)$/;

/** Variables that the runtime and its libraries have acted on before us, and what they do. */
const REFUSED: Readonly<Record<string, string>> = {
  LD_PRELOAD: 'its library runs inside a process that holds keys',
  LD_AUDIT: 'its library runs inside a process that holds keys',
  OPENSSL_CONF: 'its file changes TLS and can load libraries',
  OPENSSL_MODULES: 'libraries are loaded from there',
  OPENSSL_ENGINES: 'libraries are loaded from there',
  NODE_COMPILE_CACHE: 'compiled code is loaded from there',
  NODE_DEBUG: 'it writes tokens to the log',
  NODE_DEBUG_NATIVE: 'it writes to the log what the runtime does with keys',
  NODE_ICU_DATA: 'tables of the runtime are read from there',
  NODE_REDIRECT_WARNINGS: 'the runtime writes to that file',
  NODE_V8_COVERAGE: 'the runtime opens its inspector and writes files there',
  NODE_USE_ENV_PROXY: 'no connection goes through a proxy',
};

/** Variables that nothing has read yet. */
const NEUTRALISED: readonly IgnoredVariable[] = [
  {
    name: 'NODE_TLS_REJECT_UNAUTHORIZED',
    level: 'warn',
    event: 'environment variable ignored: certificates are always verified',
  },
  {
    name: 'SSLKEYLOGFILE',
    level: 'warn',
    event: 'environment variable ignored: keys of TLS sessions are not written down',
  },
  {
    name: 'GRPC_SSL_CIPHER_SUITES',
    level: 'warn',
    event: 'environment variable ignored: the cipher suites are those of the runtime',
  },
  {
    name: 'GRPC_TRACE',
    level: 'warn',
    event: 'environment variable ignored: a trace of gRPC shows tokens',
  },
  {
    name: 'GRPC_NODE_TRACE',
    level: 'warn',
    event: 'environment variable ignored: a trace of gRPC shows tokens',
  },
  {
    name: 'LOG_TOKENS',
    level: 'info',
    event: 'environment variable ignored: what is read of YAML is not written down',
  },
  {
    name: 'LOG_STREAM',
    level: 'info',
    event: 'environment variable ignored: what is read of YAML is not written down',
  },
  // Set for the whole machine in many images: no reason to worry anybody.
  {
    name: 'NODE_EXTRA_CA_CERTS',
    level: 'info',
    event: 'environment variable ignored: every connection names its own roots',
  },
];

/**
 * Refuses to hold keys in a process into which the environment, or the command line of the runtime, has already let others: what they loaded
 * cannot be taken out again. Switches and Bun's variables pass by an allow-list, since runtimes learn new ones, and spell each in many ways.
 * HTTP(S)_PROXY is left alone: nothing here goes through a proxy.
 *
 * @throws AgentError ERR_CONFIG naming the variable or switch.
 */
export function refuseDangerousSurroundings({ env, runtimeSwitches }: Surroundings): void {
  for (const [name, why] of Object.entries(REFUSED))
    if (env[name]) throw refuse(name, `must not be set: ${why}`);
  for (const [name, value] of BUN_VERSION === undefined ? [] : Object.entries(env)) {
    if (!name.startsWith('BUN_') || !value || SERVICE_LINK.test(name)) continue;
    if (!BUN_VARIABLES[name]?.test(value))
      throw refuse(name, 'must not be set so in a process that holds keys', BUN_VARIABLES);
  }
  // Node.js splits at spaces outside of quotes. To split inside of them too, and to drop them, only makes more words that must pass.
  const options = (env.NODE_OPTIONS ?? '').replaceAll('"', '').split(' ');
  const option = options.find(isForeignSwitch);
  if (option !== undefined) throw refuse('NODE_OPTIONS', switchRule(option), SWITCHES);
  const flag = runtimeSwitches.find(isForeignSwitch);
  if (flag !== undefined) throw refuse(undefined, switchRule(flag), SWITCHES);
}

/**
 * Takes variables away that would weaken the process, before anything reads them.
 *
 * @returns  Those that had an effect, to be told of.
 */
export function neutraliseEnvironment(env: NodeJS.ProcessEnv): readonly IgnoredVariable[] {
  return NEUTRALISED.filter(({ name }) => {
    const value = env[name];
    delete env[name];
    return value && !(name === 'NODE_TLS_REJECT_UNAUTHORIZED' && value !== '0');
  });
}

/** Without their values, which may be secret. */
export function tellOfIgnored(ignored: readonly IgnoredVariable[], log: Logger): void {
  for (const { name, level, event } of ignored) log[level](event, { variable: name });
}

/** Node.js takes `_` for `-` in names. */
function isForeignSwitch(word: string): boolean {
  const [name, ...value] = word.split('=');
  return word !== '' && !SWITCHES[name!.replaceAll('_', '-')]?.test(value.join('='));
}

const switchRule = (word: string) =>
  `must not have ${word.split('=')[0]} in a process that holds keys`;

/** @param name  Of the variable; else it is about the command line. */
function refuse(
  name: string | undefined,
  rule: string,
  permitted?: Readonly<Record<string, RegExp>>,
): AgentError {
  const field = name === undefined ? 'command line of Node.js' : `environment ${name}`;
  const remedy =
    name === undefined
      ? 'start keyturn without it'
      : `start keyturn without it, e.g. env -u ${name} keyturn ...`;
  const others = permitted ? `; permitted are ${Object.keys(permitted).join(', ')}` : '';
  return new AgentError('ERR_CONFIG', `${field}: ${rule}`, {
    field,
    rule,
    hint: `${remedy}${others}`,
  });
}
