import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import type { Mesh } from '../policy/mesh';
import { defaultMesh, readMesh } from '../policy/read-mesh';
import { type ReadPolicies, readPolicies } from '../policy/read-policies';
import { formatProblem, type Problem } from '../policy/resources/problem';
import type { PolicyWorkload } from '../policy/workload';
import type { CommandOptions } from './command';
import { readPolicyFiles } from './policy-files';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

/** Policies and the mesh that they are of. */
export interface PolicyInput extends ReadPolicies {
  readonly mesh: Mesh;
}

/** Adds what every command over a set of policies takes. */
export function withPolicies(command: Command): Command {
  return addSettings(command, ['trust-domain', 'namespace'])
    .argument('<path...>', 'directory or file of policies; - is standard input')
    .option('--mesh-config <file>', "Istio's MeshConfig, or the ConfigMap that holds it");
}

/** Adds whose policies are meant, for commands about one workload. */
export function withWorkload(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--policy-labels <labels>',
        "The workload's labels, app=reviews,version=v1; '' says that it has none",
      ),
    )
    .option('--address <ip>', 'Where listeners without an address are bound', '0.0.0.0');
}

/**
 * Reads the policies and the mesh of a command. Warnings go to standard error.
 *
 * @throws AgentError ERR_POLICY with all problems, each a cause.
 */
export async function readPolicyInput(
  { given, flags }: Pick<CommandOptions, 'given' | 'flags'>,
  paths: readonly string[],
  terminal: Terminal,
): Promise<PolicyInput> {
  const trustDomain = flags['trust-domain'] as string | undefined;
  const namespace = await settingOf('namespace', flags, terminal);
  const { mesh, problems, unused } = await meshOf(given.meshConfig, trustDomain, terminal);
  const read = readPolicies(await readPolicyFiles(paths, terminal), namespace);
  for (const each of [...unused, ...read.skipped])
    terminal.err(`warning: ${formatProblem(each)}\n`);
  const all = [...problems, ...read.problems];
  if (all.length > 0) throw refusal(all);
  return { ...read, mesh };
}

async function meshOf(file: unknown, trustDomain: string | undefined, terminal: Terminal) {
  if (typeof file !== 'string') return { mesh: defaultMesh(trustDomain), problems: [], unused: [] };
  const bytes = await readSmallFile(resolve(terminal.cwd, file), {
    field: file,
    code: 'ERR_INPUT',
  });
  return readMesh({ name: file, text: bytes.toString('utf8') }, trustDomain);
}

function refusal(problems: readonly Problem[]): AgentError {
  const errors = problems.map(
    ({ source, path, message, hint }) =>
      new AgentError(
        'ERR_POLICY',
        `${source.file}:${source.line}: ${path === '' ? message : `${path} ${message}`}`,
        hint === undefined ? {} : { hint },
      ),
  );
  return errors.length === 1 ? errors[0]! : severalOf(errors);
}

function severalOf(errors: readonly AgentError[]): AgentError {
  return new AgentError('ERR_POLICY', `${errors.length} problems in policies`, {
    cause: new AggregateError(errors),
  });
}

/**
 * The workload of a command's flags.
 *
 * @throws AgentError ERR_USAGE where a policy has a selector and no labels were given.
 */
export async function workloadOf(
  { given, flags }: Pick<CommandOptions, 'given' | 'flags'>,
  { resources }: PolicyInput,
  terminal: Terminal,
): Promise<PolicyWorkload> {
  const namespace = await settingOf('namespace', flags, terminal);
  const labels = given.policyLabels;
  const selecting = resources.find(({ spec }) => 'selector' in spec || 'workloadSelector' in spec);
  if (typeof labels !== 'string' && selecting)
    throw new AgentError(
      'ERR_USAGE',
      `${selecting.kind} ${selecting.namespace}/${selecting.name} has a selector, and no labels were given`,
      { hint: "give --policy-labels app=NAME, or --policy-labels '' where there are none" },
    );
  return {
    namespace,
    labels: typeof labels === 'string' ? parseLabels(labels) : {},
    address: String(given.address),
  };
}

/** @throws AgentError ERR_USAGE */
function parseLabels(text: string): Readonly<Record<string, string>> {
  if (text === '') return {};
  return Object.fromEntries(
    text.split(',').map((each) => {
      const at = each.indexOf('=');
      if (at < 1)
        throw invalid('ERR_USAGE', '--policy-labels', `must be NAME=VALUE,..., not ${each}`);
      return [each.slice(0, at), each.slice(at + 1)];
    }),
  );
}
