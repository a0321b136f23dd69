import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { parseDownwardLabels, parsePolicyLabels } from '../policy/policy-labels';
import { textMapOf } from '../policy/resources/fields';
import type { Resource } from '../policy/resources/resource';
import type { PolicyWorkload } from '../policy/workload';
import type { CommandOptions } from './command';
import type { PolicyInput } from './policy-input';
import { settingOf } from './settings-options';
import type { Terminal } from './terminal';

type Options = Pick<CommandOptions, 'given' | 'flags'>;

/** Adds whose policies are meant: one way to say which labels the workload has. */
export function withLabels(command: Command): Command {
  const ways = [
    new Option(
      '--policy-labels <labels>',
      "The workload's labels, app=reviews,version=v1; '' says that it has none",
    ),
    new Option(
      '--policy-labels-file <file>',
      "The workload's labels as the downward API writes them",
    ),
    new Option('--workload-entry <ns/name>', 'The WorkloadEntry that the workload is'),
  ];
  for (const way of ways) {
    const others = ways.filter((each) => each !== way).map((each) => each.attributeName());
    command.addOption(way.conflicts(others));
  }
  return command;
}

/**
 * The workload of a command's flags.
 *
 * @throws AgentError ERR_USAGE where a policy has a selector and no labels were given, ERR_CONFIG or
 *         ERR_INPUT for labels that cannot be read.
 */
export async function workloadOf(
  options: Options,
  input: PolicyInput,
  terminal: Terminal,
): Promise<PolicyWorkload> {
  const workload = await givenWorkload(options, input, terminal);
  const address = String(options.given.address);
  if (workload) return { ...workload, address };
  const selecting = input.resources.find(
    ({ spec }) => 'selector' in spec || 'workloadSelector' in spec,
  );
  if (selecting)
    throw new AgentError(
      'ERR_USAGE',
      `${selecting.kind} ${selecting.namespace}/${selecting.name} has a selector, and no labels were given`,
      { hint: "give --policy-labels app=NAME, or --policy-labels '' where there are none" },
    );
  return { namespace: await settingOf('namespace', options.flags, terminal), labels: {}, address };
}

/**
 * The workload that the flags tell of; undefined where none does.
 *
 * @throws AgentError ERR_CONFIG or ERR_INPUT.
 */
export async function givenWorkload(
  { given, flags }: Options,
  { resources }: PolicyInput,
  terminal: Terminal,
): Promise<PolicyWorkload | undefined> {
  if (typeof given.workloadEntry === 'string') return entryOf(given.workloadEntry, resources);
  const labels = await labelsOf(given, terminal);
  return labels && { namespace: await settingOf('namespace', flags, terminal), labels };
}

async function labelsOf(
  { policyLabels, policyLabelsFile: path }: Options['given'],
  { cwd }: Terminal,
) {
  if (typeof policyLabels === 'string')
    return parsePolicyLabels(policyLabels, 'flag --policy-labels');
  if (typeof path !== 'string') return undefined;
  const bytes = await readSmallFile(resolve(cwd, path), { field: path, code: 'ERR_INPUT' });
  return parseDownwardLabels(bytes.toString(), path);
}

function entryOf(entry: string, resources: readonly Resource[]): PolicyWorkload {
  const entries = resources.filter(({ kind }) => kind === 'WorkloadEntry');
  const names = entries.map(({ namespace, name }) => `${namespace}/${name}`);
  const found = entries[names.indexOf(entry)];
  if (found) return { namespace: found.namespace, labels: textMapOf(found.spec.labels) };
  throw invalid('ERR_CONFIG', 'flag --workload-entry', `there is no WorkloadEntry ${entry}`, {
    hint: names.length === 0 ? 'the policies hold none' : `known: ${names.slice(0, 10).join(', ')}`,
  });
}
