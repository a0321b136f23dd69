import { actionOf } from '../authz/rbac';
import { type AuthzRule, isOfPeerCertificate, leavePort, type RuleField } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issues 21259, 36119, 46056 and 53048, ISTIO-SECURITY-2021-003 */
export const identityInPlainText: Lint = {
  name: 'identity-in-plain-text',
  summary: 'A rule by the identity of peers stands where plain text, which has none, is accepted.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT')) {
      const found = fieldWithoutEffect(rule);
      const where = found && plainTextPort(set, rule, found.fields);
      if (where === undefined) continue;
      yield {
        resource: rule.policy,
        path: found!.field.path,
        message: messageOf(actionOf(rule.policy.spec), found!.field.isNegative, where),
        hint: 'set mtls.mode to STRICT in a PeerAuthentication',
      };
    }
  },
};

/** What plain text passes by, or is stopped by, where its author thinks of identities only. */
function fieldWithoutEffect(rule: AuthzRule) {
  const isAllow = actionOf(rule.policy.spec) === 'ALLOW';
  for (const fields of rule.alternatives) {
    const peer = fields.filter(isOfPeerCertificate);
    const field = peer.find(({ isNegative }) => !isNegative) ?? (isAllow ? peer[0] : undefined);
    if (field) return { field, fields };
  }
  return undefined;
}

function plainTextPort(
  set: LintedSet,
  { policy }: AuthzRule,
  fields: readonly RuleField[],
): string | undefined {
  for (const workload of set.meetings(policy)) {
    const modes = set.modes(workload);
    const port = workload.ports.find(
      ({ number }) => leavePort(fields, number) && set.mode(workload, number) !== 'STRICT',
    );
    if (port) return `port ${port.number} is ${set.mode(workload, port.number)}`;
    if (workload.isKnown) continue;
    if (modes.mode !== 'STRICT') return `mutual TLS is ${modes.mode}`;
    const open = [...modes.ports].find(
      ([number, mode]) => mode !== 'STRICT' && leavePort(fields, number),
    );
    if (open) return `port ${open[0]} is ${open[1]}`;
  }
  return undefined;
}

function messageOf(action: string, isNegative: boolean, where: string): string {
  if (action === 'ALLOW')
    return isNegative
      ? `lets every caller in plain text in: ${where}`
      : `never allows a call in plain text, although ${where}`;
  const verb = action === 'DENY' ? 'denies' : 'records';
  return `never ${verb} a call in plain text: ${where}`;
}
