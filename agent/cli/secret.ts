import type { Command } from 'commander';
import type { AgentStatus } from '../admin/agent-view';
import { systemClock, withDeadline } from '../base/clock';
import { parseDuration } from '../base/duration';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { certificateText, inspectPem } from './certificate-text';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { counted, json } from './render';
import { type OutputFormat, printable, report } from './report';
import type { ReceivedSecret, SdsUpdate } from './sds-client';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

const DEFAULT_NAMES = ['default', 'ROOTCA'];
/** Between two looks for an agent that is not there. */
const AGAIN_MS = 500;

/** `keyturn secret get` and `secret watch`: what an Envoy would get. */
export function addSecret(program: Command, context: CommandContext): void {
  const secret = program
    .command('secret')
    .helpCommand(false)
    .summary('Act as an Envoy and show what SDS gives')
    .description(
      'Act as an Envoy and show what SDS gives. Private keys are shown only where a flag asks for them.',
    );
  addGet(secret, context);
  addWatch(secret, context);
}

function addGet(secret: Command, context: CommandContext): void {
  const command = secretCommand(secret, 'get')
    .summary('Get secrets once')
    .description('Get secrets once over SDS and show them. An unknown name is an error.')
    .option('--pem', 'Print the certificates as PEM, and nothing else')
    .option('--show-private-key', 'Print the private key too, as PEM')
    .option('--timeout <duration>', 'How long the agent may take', '5s')
    .option(
      '--wait',
      'Wait for an agent that is not there yet, and without end unless --timeout is given',
    )
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn secret get\n  keyturn secret get ROOTCA --pem > roots.pem\n  keyturn secret get default --wait --timeout 1m',
    );
  onRun(command, context, async (options, [names]) => {
    const secrets = await getAll(
      await target(options, names, context.terminal, 'secret get'),
      options,
      command.getOptionValueSource('timeout') === 'cli',
    );
    const shown: string[] = [];
    for (const each of secrets) shown.push(await secretText(each, options));
    context.terminal.out(
      options.format === 'json'
        ? json({ secrets: await Promise.all(secrets.map((each) => secretFacts(each, options))) })
        : shown.join(''),
    );
    return 0;
  });
}

function addWatch(secret: Command, context: CommandContext): void {
  const command = secretCommand(secret, 'watch')
    .summary('Show secrets as they change')
    .description(
      'Stay subscribed and show each secret whenever it changes, until Ctrl-C. Finds a restarted agent again.',
    )
    .option('--count <number>', 'End after this many secrets were shown')
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn secret watch default\n  keyturn secret watch --output json --count 2',
    );
  onRun(command, context, async (options, [names]) => {
    const count = readCount(options.given.count);
    const where = await target(options, names, context.terminal, 'secret watch');
    let shown = 0;
    const notice = (error: AgentError) => report(error, options.format, context.terminal);
    for await (const update of follow(where, new AbortController().signal, notice)) {
      for (const name of update.removed)
        context.terminal.err(`keyturn: ${printable(name)} is not served\n`);
      for (const each of update.secrets.slice(0, count - shown))
        context.terminal.out(await changeText(each, options.format));
      shown += update.secrets.length;
      if (shown >= count) break;
    }
    return 0;
  });
}

function secretCommand(secret: Command, name: string): Command {
  const command = withOutput(secret.command(name)).argument(
    '[names...]',
    'Names of secrets (default: default ROOTCA); also ALL, a SPIFFE ID, spiffe://TRUST-DOMAIN, file-cert:CERT~KEY, file-root:CA',
  );
  command.option(
    '--workload <name>',
    'Of many workloads the one whose socket is asked, as the agent says over --control-socket',
  );
  return addSettings(command, ['sds-socket', 'control-socket', 'config']);
}

interface Target {
  readonly socket: string;
  readonly names: readonly string[];
  readonly node: string;
}

async function target(
  options: CommandOptions,
  names: unknown,
  terminal: Terminal,
  command: string,
): Promise<Target> {
  const given = Array.isArray(names) && names.length > 0 ? names.map(String) : DEFAULT_NAMES;
  return {
    socket: await socketOf(options, terminal),
    names: [...new Set(given)],
    node: `keyturn ${command}`,
  };
}

async function socketOf({ given, flags }: CommandOptions, terminal: Terminal): Promise<string> {
  if (given.workload === undefined) return settingOf('sds-socket', flags, terminal);
  const { callControl } = await import('../admin/control-client');
  const control = await settingOf('control-socket', flags, terminal);
  const status = await callControl<AgentStatus>(
    control,
    'GET',
    `/status?workload=${encodeURIComponent(String(given.workload))}`,
  );
  const [workload] = status.workloads;
  if (workload) return workload.sds.socket;
  throw new AgentError(
    'ERR_CONTROL',
    `workload ${given.workload}: is not in service: ${status.reasons.join('; ')}`,
    { retry: 'soon' },
  );
}

/** Waits until each name was answered, in the order in which they were asked for. */
async function getAll(
  where: Target,
  options: CommandOptions,
  hasTimeout: boolean,
): Promise<ReceivedSecret[]> {
  const timeoutMs = parseDuration(String(options.given.timeout), 'flag --timeout');
  const wait = options.given.wait === true;
  const collect = async (signal: AbortSignal): Promise<ReceivedSecret[]> => {
    const found = new Map<string, ReceivedSecret>();
    const { watchSecrets } = await import('./sds-client');
    for await (const update of wait
      ? follow(where, signal, () => undefined)
      : watchSecrets(where, signal)) {
      const unknown = update.removed.find((name) => where.names.includes(name));
      if (unknown !== undefined) throw unknownName(unknown);
      for (const each of update.secrets) found.set(each.name, each);
      if (found.size >= where.names.length) break;
    }
    return where.names.flatMap((name) => found.get(name) ?? []);
  };
  if (wait && !hasTimeout) return collect(new AbortController().signal);
  return withDeadline(systemClock, timeoutMs, `SDS socket ${where.socket}`, undefined, collect);
}

/** As `watchSecrets`, but looks for the agent again, for ever. `notice` is told once for each time that it goes missing. */
async function* follow(
  where: Target,
  signal: AbortSignal,
  notice: (error: AgentError) => void,
): AsyncGenerator<SdsUpdate, never> {
  const { watchSecrets } = await import('./sds-client');
  for (let missing = false; ; ) {
    try {
      for await (const update of watchSecrets(where, signal)) {
        missing = false;
        yield update;
      }
    } catch (caught) {
      const error = AgentError.from(caught);
      if (error.retry !== 'soon') throw error;
      if (!missing) notice(error);
      missing = true;
      await systemClock.sleepUntil(systemClock.now() + AGAIN_MS, signal);
    }
  }
}

async function secretText(secret: ReceivedSecret, options: CommandOptions): Promise<string> {
  const key =
    options.given.showPrivateKey === true && secret.privateKeyPem
      ? Buffer.from(secret.privateKeyPem).toString('latin1')
      : '';
  if (options.given.pem === true)
    return `${Buffer.from(secret.certificatesPem).toString('latin1')}${key}`;
  const certificates = await inspectPem(secret.certificatesPem, `secret ${secret.name}`);
  const what = secret.kind === 'certificate' ? 'certificate and key' : 'roots to trust';
  const bodies = certificates.map((each) => certificateText(each.facts, systemClock.now(), '  '));
  return `${printable(secret.name)}: ${what}, version ${printable(secret.version)}\n${bodies.join('\n')}${key}\n`;
}

async function secretFacts(secret: ReceivedSecret, options: CommandOptions): Promise<object> {
  return {
    name: secret.name,
    kind: secret.kind,
    version: secret.version,
    certificates: (await inspectPem(secret.certificatesPem, `secret ${secret.name}`)).map(
      (each) => each.facts,
    ),
    ...(options.given.pem === true && {
      certificatesPem: Buffer.from(secret.certificatesPem).toString('latin1'),
    }),
    ...(options.given.showPrivateKey === true &&
      secret.privateKeyPem && {
        privateKeyPem: Buffer.from(secret.privateKeyPem).toString('latin1'),
      }),
  };
}

/** One line for each change, of text or of JSON, so that lines can be followed. */
async function changeText(secret: ReceivedSecret, format: OutputFormat): Promise<string> {
  const at = iso(systemClock.now());
  const certificates = (await inspectPem(secret.certificatesPem, `secret ${secret.name}`)).map(
    (each) => each.facts,
  );
  if (format === 'json')
    return `${JSON.stringify({ at, name: secret.name, kind: secret.kind, version: secret.version, certificates })}\n`;
  const [first] = certificates;
  const head = `${at}  ${printable(secret.name)}  version ${printable(secret.version.slice(0, 12))}`;
  const body =
    secret.kind === 'certificate'
      ? `${first?.uris[0] ?? first?.subject}  serial ${first?.serial}`
      : counted(certificates.length, 'root');
  return `${head}  ${printable(body)}  valid until ${first?.notAfter}\n`;
}

function unknownName(name: string): AgentError {
  return new AgentError(
    'ERR_SECRET_UNKNOWN',
    `secret ${name}: the agent does not serve that name`,
    {
      hint: 'default, ROOTCA, ALL, our SPIFFE ID and trust domain are always served; file-cert: and file-root: only below --sds-file-dir',
    },
  );
}

function readCount(text: unknown): number {
  if (text === undefined) return Number.POSITIVE_INFINITY;
  if (typeof text !== 'string' || !/^[1-9]\d{0,8}$/.test(text))
    throw invalid('ERR_USAGE', 'flag --count', 'must be a whole number from 1');
  return Number(text);
}
