import type { Command } from 'commander';
import { type CommandContext, onRun, withOutput } from './command';
import { addPolicyCheck } from './policy-check';
import { addPolicyCompile } from './policy-compile';
import { addPolicyExplain } from './policy-explain';
import { addPolicyTest } from './policy-test';
import { json, table } from './render';

/** `keyturn policy`: what policies say, without an agent. */
export function addPolicy(program: Command, context: CommandContext): void {
  const policy = program
    .command('policy')
    .summary('Compile Istio policies, and ask what they allow')
    .description(
      "Work with Istio's own policies without a control plane: PeerAuthentication, RequestAuthentication, AuthorizationPolicy, Sidecar.",
    );
  addPolicyCompile(policy, context);
  addPolicyExplain(policy, context);
  addPolicyTest(policy, context);
  addPolicyCheck(policy, context);
  addPolicyLints(policy, context);
}

function addPolicyLints(policy: Command, context: CommandContext): void {
  const lints = withOutput(policy.command('lints'))
    .summary('List what keyturn policy check looks for')
    .description(
      'List the lints of keyturn policy check. A resource turns some off by the annotation keyturn.dev/policy-ignore, with their names and commas.',
    );
  onRun(lints, context, async ({ format }) => {
    const { LINTS } = await import('../policy/lint/lint-policies');
    const all = LINTS.map(({ name, summary }) => ({ name, summary }));
    context.terminal.out(
      format === 'json'
        ? json(all)
        : table([['LINT', 'WHAT IT FINDS'], ...all.map(({ name, summary }) => [name, summary])]),
    );
    return 0;
  });
}
