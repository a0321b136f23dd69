import type { Command } from 'commander';
import type { Linted } from '../policy/lint/lint-policies';
import type { Problem } from '../policy/resources/problem';
import { type CommandContext, onRun, withOutput } from './command';
import { EXIT_CODES } from './exit-code';
import { checkPolicyInput, withPolicies } from './policy-input';
import { givenWorkload, withLabels } from './policy-workload';
import { counted, json } from './render';
import { printable } from './report';

/** As linters have it: something was found, and nothing is broken. */
const LINTS_FOUND = 1;

/** `keyturn policy check`, below `keyturn policy`. */
export function addPolicyCheck(policy: Command, context: CommandContext): void {
  const check = withLabels(withPolicies(withOutput(policy.command('check'))))
    .summary('Find errors in policies, and traps')
    .description(
      'Print every error and every lint in policies, with its file and line. An error is what cannot be put in force. A lint is a policy that is valid and does not do what it seems to; keyturn policy lints lists them. Exits 0 where there is neither, 1 where there are lints only, 65 where there are errors.',
    )
    .addHelpText(
      'after',
      '\nExamples:\n  keyturn policy check policies/\n  keyturn policy check policies/ --mesh-config mesh.yaml --output json',
    );
  onRun(check, context, async (options, [paths]) => {
    const { terminal } = context;
    const input = await checkPolicyInput(options, paths as readonly string[], terminal);
    const { lintPolicies } = await import('../policy/lint/lint-policies');
    const workload = await givenWorkload(options, input, terminal);
    const found: Found = {
      resources: input.resources.length,
      errors: input.problems,
      lints: lintPolicies(input.resources, input.mesh, workload ? [workload] : []),
      notes: input.notes,
    };
    await terminal.write(options.format === 'json' ? json(facts(found)) : textOf(found));
    if (found.errors.length > 0) return EXIT_CODES.ERR_POLICY;
    return found.lints.length > 0 ? LINTS_FOUND : 0;
  });
}

interface Found {
  readonly resources: number;
  readonly errors: readonly Problem[];
  readonly lints: readonly Linted[];
  /** What has no effect here. */
  readonly notes: readonly Problem[];
}

function facts({ resources, errors, lints, notes }: Found) {
  const flat = ({ source, ...rest }: Problem) => ({ ...source, ...rest });
  return {
    resources,
    errors: errors.map(flat),
    lints: lints.map(flat),
    notes: notes.map(flat),
  };
}

function textOf({ resources, errors, lints, notes }: Found): string {
  const lines = [
    ...notes.map((each) => line(each, 'note', [])),
    ...errors.map((each) => line(each, 'error', [])),
    ...lints.map((each) => line(each, each.lint, [each.resource])),
  ];
  const sum = [
    counted(resources, 'resource'),
    counted(errors.length, 'error'),
    counted(lints.length, 'lint'),
  ].join(', ');
  return `${lines.join('')}${sum}\n`;
}

/** As compilers have it, so that editors find the place. */
function line(problem: Problem, what: string, before: readonly string[]): string {
  const { source, path, message, hint } = problem;
  const words = [...before, path, message].filter((each) => each !== '').join(' ');
  const rest = hint === undefined ? '' : ` (${hint})`;
  return `${printable(`${source.file}:${source.line}: ${what}: ${words}${rest}`)}\n`;
}
