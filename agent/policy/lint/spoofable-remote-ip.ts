import type { RuleField } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issues 33513, 55722, 47947, 34177 and 30166 */
export const spoofableRemoteIp: Lint = {
  name: 'spoofable-remote-ip',
  summary: 'A rule goes by x-forwarded-for, in which any caller may claim any address.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT', 'CUSTOM'))
      for (const fields of rule.alternatives) {
        const claimed = fields.find(({ attribute }) => attribute === 'remote.ip');
        // A gateway that is named with it is trusted to have set the header.
        if (!claimed || fields.some(namesThePeer)) continue;
        yield {
          resource: rule.policy,
          path: claimed.path,
          message: 'is compared with x-forwarded-for, which any caller may set to any address',
          hint: 'write ipBlocks for the peer itself, or name the gateway by principals beside it',
        };
      }
  },
};

function namesThePeer({ attribute, isNegative, values }: RuleField): boolean {
  const isPeer = ['source.principal', 'source.serviceAccount', 'source.ip'].includes(attribute);
  return isPeer && !isNegative && !values.includes('*');
}
