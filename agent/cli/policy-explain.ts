import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../base/clock';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { compile } from '../policy/compile';
import { readEnvoyConfig } from '../policy/evaluate/envoy-config';
import { evaluate, type Verdict } from '../policy/evaluate/evaluate';
import type { EngineResult } from '../policy/evaluate/rbac';
import type { PolicyRequest } from '../policy/evaluate/request';
import type { JsonObject } from '../policy/resources/resource';
import { ResourceIndex } from '../policy/select';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { readInput } from './input';
import { readPolicyInput, withPolicies } from './policy-input';
import { bearer, type GivenToken, givenToken, listenerAt, verifier } from './policy-request';
import { withLabels, workloadOf } from './policy-workload';
import { facts, json, table } from './render';
import type { Terminal } from './terminal';

const MAX_DUMP_BYTES = 256 << 20;

/** `keyturn policy explain`, below `keyturn policy`. */
export function addPolicyExplain(policy: Command, context: CommandContext): void {
  const command = withOutput(withLabels(withPolicies(policy.command('explain'), '[path...]')))
    .summary('Say what becomes of a request, and why')
    .description(
      'Say whether a request is allowed, which rule decided, and for each that did not which condition failed. What is explained is the config of an Envoy: what the policies compile to, or a dump of any Envoy.',
    )
    .addOption(new Option('--from <spiffe-id>', 'Who calls, by mutual TLS').conflicts('plain'))
    .option('--plain', 'The caller speaks plain text')
    .requiredOption('--to <port>', 'The port that is called')
    .option('--method <method>', 'Of the request', 'GET')
    .option('--path <path>', 'With its query', '/')
    .option('--host <host>', 'The Host header', 'localhost')
    .option('--header <name:value>', 'A header; may be given several times', collect, [])
    .option('--address <ip>', "The workload's address", '0.0.0.0')
    .option('--sni <name>', 'The name that the caller asks for by TLS', '')
    .option('--ip <address>', "The caller's address")
    .option('--jwt <file>', 'A token, or the claims of one as JSON, which are trusted')
    .addOption(
      new Option(
        '--config-dump <file>',
        "An Envoy's /config_dump instead of policies; - is standard input",
      ),
    )
    .addHelpText(
      'after',
      `
Examples:
  keyturn policy explain policies/ --policy-labels app=cart \\
    --from spiffe://td/ns/shop/sa/web --to 8080 --path /cart
  curl -s localhost:15000/config_dump | keyturn policy explain --config-dump - --plain --to 8080`,
    );
  onRun(command, context, (options, [paths]) =>
    explain(options, paths as readonly string[], context.terminal),
  );
}

function collect(value: string, all: readonly string[]): readonly string[] {
  return [...all, value];
}

async function explain(
  options: CommandOptions,
  paths: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const { given } = options;
  if (given.from === undefined && given.plain !== true)
    throw new AgentError('ERR_USAGE', 'no caller was given', {
      hint: 'give --from spiffe://..., or --plain',
    });
  const token = await tokenOf(given.jwt, terminal);
  const request = requestOf(options, token);
  const listeners = await listenersOf(options, paths, terminal);
  const verdict = await evaluate(listenerAt(listeners, request.port), request, {
    verify: verifier(token),
    now: systemClock.now() / 1_000,
  });
  terminal.out(options.format === 'json' ? json(verdict) : asText(verdict));
  return 0;
}

async function listenersOf(
  options: CommandOptions,
  paths: readonly string[],
  terminal: Terminal,
): Promise<readonly JsonObject[]> {
  const dump = options.given.configDump;
  if (typeof dump === 'string') {
    if (paths.length > 0)
      throw new AgentError('ERR_USAGE', '--config-dump and policies were given', {
        hint: 'give one of them',
      });
    const bytes = await readInput(dump, terminal, MAX_DUMP_BYTES);
    try {
      return readEnvoyConfig(JSON.parse(Buffer.from(bytes).toString('utf8')), dump);
    } catch (cause) {
      throw cause instanceof SyntaxError
        ? invalid('ERR_INPUT', dump, 'must be JSON', { cause })
        : cause;
    }
  }
  if (paths.length === 0)
    throw new AgentError('ERR_USAGE', 'no policies were given', {
      hint: 'give a directory of policies, or --config-dump FILE',
    });
  const input = await readPolicyInput(options, paths, terminal);
  const workload = await workloadOf(options, input, terminal);
  return compile(new ResourceIndex(input.resources), workload, input.mesh).listeners;
}

function requestOf({ given }: CommandOptions, token: GivenToken | undefined): PolicyRequest {
  const port = Number(given.to);
  if (!/^\d{1,5}$/.test(String(given.to)) || port < 1 || port > 65_535)
    throw invalid('ERR_USAGE', '--to', `must be a port, not ${given.to}`);
  const headers = (given.header as readonly string[]).map((each) => {
    const at = each.indexOf(':');
    if (at < 1) throw invalid('ERR_USAGE', '--header', `must be NAME:VALUE, not ${each}`);
    return [each.slice(0, at).trim().toLowerCase(), each.slice(at + 1).trim()] as const;
  });
  return {
    from: given.from as string | undefined,
    port,
    method: String(given.method),
    path: String(given.path),
    host: String(given.host),
    headers: [...headers, ...bearer(token)],
    ip: given.ip as string | undefined,
    localIp: undefined,
    serverName: String(given.sni),
  };
}

async function tokenOf(file: unknown, terminal: Terminal): Promise<GivenToken | undefined> {
  if (typeof file !== 'string') return undefined;
  const bytes = await readSmallFile(resolve(terminal.cwd, file), {
    field: file,
    code: 'ERR_INPUT',
  });
  return givenToken(bytes.toString('utf8'));
}

const WORDS = {
  allow: 'ALLOW',
  deny: 'DENY',
  reset: 'DENY, no connection',
  ask: 'ASK',
} as const;

function asText({ kind, status, decidedBy, reason, asks, filters }: Verdict): string {
  const rows = filters.flatMap(({ rules, shadow }) => [
    ...(rules ? rowsOf(rules, rules.action) : []),
    ...(shadow ? rowsOf(shadow, `${shadow.action}, not enforced`) : []),
  ]);
  return [
    `${WORDS[kind]}${status === undefined ? '' : ` ${status}`}: ${reason}\n`,
    facts([
      ['rule', decidedBy],
      ['asks', asks.join(', ')],
    ]),
    ...(rows.length === 0 ? [] : ['\n', table([['ACTION', 'RULE', 'MATCHES', 'FAILED'], ...rows])]),
  ].join('');
}

function rowsOf({ policies }: EngineResult, action: string) {
  return policies.map(({ name, matched, failed }) => [
    action,
    name,
    matched ? 'yes' : 'no',
    failed,
  ]);
}
