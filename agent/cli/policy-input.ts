import { resolve } from 'node:path';
import type { Command } from 'commander';
import { AgentError, oneError } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import type { Mesh } from '../policy/mesh';
import { defaultMesh, readMesh } from '../policy/read-mesh';
import { type ReadPolicies, readPolicies } from '../policy/read-policies';
import { formatProblem, type Problem } from '../policy/resources/problem';
import type { CommandOptions } from './command';
import { readPolicyFiles } from './policy-files';
import { addSettings, settingOf } from './settings-options';
import type { Terminal } from './terminal';

/** Policies and the mesh that they are of. */
export interface PolicyInput extends ReadPolicies {
  readonly mesh: Mesh;
}

/** Adds what every command over a set of policies takes. */
export function withPolicies(command: Command, paths = '<path...>'): Command {
  return addSettings(command, ['trust-domain', 'namespace'])
    .argument(paths, 'directory or file of policies; - is standard input')
    .option('--mesh-config <file>', "Istio's MeshConfig, or the ConfigMap that holds it");
}

/** The same, with all that is wrong in them. */
interface CheckedInput extends PolicyInput {
  /** What has no effect here. */
  readonly notes: readonly Problem[];
}

/**
 * Reads the policies and the mesh of a command. Warnings go to standard error.
 *
 * @throws AgentError ERR_POLICY with all problems, each a cause.
 */
export async function readPolicyInput(
  options: Pick<CommandOptions, 'given' | 'flags'>,
  paths: readonly string[],
  terminal: Terminal,
): Promise<PolicyInput> {
  const input = await checkPolicyInput(options, paths, terminal);
  for (const each of input.notes) terminal.err(`warning: ${formatProblem(each)}\n`);
  if (input.problems.length > 0) throw refusal(input.problems);
  return input;
}

/**
 * Reads the policies and the mesh of a command, whatever is wrong in them.
 *
 * @throws AgentError ERR_INPUT for files that cannot be read.
 */
export async function checkPolicyInput(
  { given, flags }: Pick<CommandOptions, 'given' | 'flags'>,
  paths: readonly string[],
  terminal: Terminal,
): Promise<CheckedInput> {
  const trustDomain = flags['trust-domain'] as string | undefined;
  const namespace = await settingOf('namespace', flags, terminal);
  const { mesh, problems, unused } = await meshOf(given.meshConfig, trustDomain, terminal);
  const read = readPolicies(await readPolicyFiles(paths, terminal), namespace);
  return {
    ...read,
    mesh,
    problems: [...problems, ...read.problems],
    notes: [...unused, ...read.skipped],
  };
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
    ({ hint, ...rest }) =>
      new AgentError('ERR_POLICY', formatProblem(rest), hint === undefined ? {} : { hint }),
  );
  return oneError('ERR_POLICY', errors, `${errors.length} problems in policies`);
}
