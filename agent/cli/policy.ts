import type { Command } from 'commander';
import type { CommandContext } from './command';
import { addPolicyCompile } from './policy-compile';

/** `keyturn policy`: what policies say, without an agent. */
export function addPolicy(program: Command, context: CommandContext): void {
  const policy = program
    .command('policy')
    .summary('Compile Istio policies, and ask what they allow')
    .description(
      "Work with Istio's own policies without a control plane: PeerAuthentication, RequestAuthentication, AuthorizationPolicy, Sidecar.",
    );
  addPolicyCompile(policy, context);
}
