import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { compile } from '../policy/compile';
import type { Call } from '../policy/evaluate/call';
import { evaluateCall, type Verdict } from '../policy/evaluate/listener';
import { requestOf } from '../policy/evaluate/request';
import type { Mesh } from '../policy/mesh';
import type { JsonObject } from '../policy/resources/resource';
import { ResourceIndex } from '../policy/select';
import { type CommandContext, type CommandOptions, onRun, withOutput } from './command';
import { readPolicyInput, withPolicies } from './policy-input';
import { withLabels, workloadOf } from './policy-workload';
import { json } from './render';
import type { Terminal } from './terminal';

/** `keyturn policy explain`, below `keyturn policy`. */
export function addPolicyExplain(policy: Command, context: CommandContext): void {
  const command = withOutput(withLabels(withPolicies(policy.command('explain'))))
    .summary('Say whether a call is allowed, and by which rule')
    .description(
      'Evaluate what policies compile to for one call: ALLOW or DENY, the rule that decided, and for each rule that did not match the condition that failed.',
    )
    .addOption(new Option('--from <spiffe-id>', 'The caller, by mutual TLS').conflicts('plain'))
    .option('--plain', 'The caller speaks plain text')
    .requiredOption('--to <port>', 'The port that is called')
    .option('--method <method>', 'Method of the request', 'GET')
    .option('--path <path>', 'Path of the request, as it is sent', '/')
    .option(
      '--host <host>',
      'Host of the request, with its port where it is sent with one',
      'localhost',
    )
    .option('--header <name:value>', 'Header of the request; may be given again', several, [])
    .option('--address <ip>', "The workload's address", '127.0.0.1')
    .option('--ip <address>', "The caller's address", '127.0.0.1')
    .option('--forwarded-for <address>', 'The address by x-forwarded-for, if another')
    .option('--sni <name>', 'The server name that TLS asks for', '')
    .option('--jwt <file>', 'Claims of a verified token, as JSON')
    .option('--tcp', 'A connection without a request')
    .addHelpText(
      'after',
      `
Examples:
  keyturn policy explain policies/ --policy-labels app=ratings \\
    --from spiffe://cluster.local/ns/shop/sa/reviews --to 8080 --path /ratings/1`,
    );
  onRun(command, context, (options, [paths]) =>
    explain(options, paths as readonly string[], context.terminal),
  );
}

const several = (value: string, before: readonly string[]) => [...before, value];

async function explain(
  options: CommandOptions,
  paths: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const input = await readPolicyInput(options, paths, terminal);
  const workload = await workloadOf(options, input, terminal);
  const call = await callOf(options.given, input.mesh, terminal);
  const { listeners } = compile(new ResourceIndex(input.resources), workload, input.mesh);
  const verdict = evaluate(listeners, call);
  terminal.out(options.format === 'json' ? json(verdict) : textOf(verdict));
  return 0;
}

function evaluate(listeners: readonly JsonObject[], call: Call): Verdict {
  try {
    return evaluateCall(listeners, call);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new AgentError('ERR_POLICY', cause.message, {
      cause,
      hint: 'try it on an Envoy',
    });
  }
}

async function callOf(
  given: Readonly<Record<string, unknown>>,
  mesh: Mesh,
  terminal: Terminal,
): Promise<Call> {
  if (typeof given.from !== 'string' && !given.plain)
    throw invalid('ERR_USAGE', '--from', 'must be given, or --plain');
  const ip = String(given.ip);
  return {
    peer: given.from as string | undefined,
    port: portOf(String(given.to)),
    serverName: String(given.sni),
    directIp: ip,
    remoteIp: typeof given.forwardedFor === 'string' ? given.forwardedFor : ip,
    destinationIp: String(given.address),
    request: given.tcp
      ? undefined
      : requestOf(
          {
            method: String(given.method),
            path: String(given.path),
            host: String(given.host),
            headers: (given.header as readonly string[]).map(headerOf),
            claims: await claimsOf(given.jwt, terminal),
          },
          mesh.pathNormalization,
        ),
  };
}

function portOf(text: string): number {
  if (/^[1-9]\d{0,4}$/.test(text) && Number(text) <= 65_535) return Number(text);
  throw invalid('ERR_USAGE', '--to', `must be a port, 1 to 65535, not ${text}`);
}

function headerOf(text: string): readonly [string, string] {
  const at = text.indexOf(':', 1);
  if (at < 1) throw invalid('ERR_USAGE', '--header', `must be NAME:VALUE, not ${text}`);
  return [text.slice(0, at), text.slice(at + 1).trim()];
}

async function claimsOf(file: unknown, terminal: Terminal): Promise<JsonObject | undefined> {
  if (typeof file !== 'string') return undefined;
  const bytes = await readSmallFile(resolve(terminal.cwd, file), {
    field: file,
    code: 'ERR_INPUT',
  });
  try {
    const claims: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof claims === 'object' && claims !== null && !Array.isArray(claims))
      return claims as JsonObject;
  } catch {
    // The same refusal as for JSON that is no object.
  }
  throw invalid('ERR_INPUT', file, 'must be a JSON object of claims', {
    hint: 'give the claims, not the token',
  });
}

const WORDS = {
  allow: 'ALLOW',
  deny: 'DENY',
  refused: 'REFUSED',
  ask: 'ASKED ELSEWHERE',
} as const;

function textOf({ outcome, by, steps }: Verdict): string {
  const lines = [`${WORDS[outcome]} by ${by}`];
  for (const { guard, says, missed } of steps) {
    lines.push(`  ${guard}: ${says}`);
    for (const { policy, why } of missed) lines.push(`    not ${policy}: ${why}`);
  }
  return `${lines.join('\n')}\n`;
}
