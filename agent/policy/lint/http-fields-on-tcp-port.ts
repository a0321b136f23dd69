import { actionOf } from '../authz/rbac';
import { isOfHttp, leavePort, type RuleField } from './fields';
import type { KnownPort } from './known-workloads';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issues 24845 and 40703 */
export const httpFieldsOnTcpPort: Lint = {
  name: 'http-fields-on-tcp-port',
  summary: 'A rule with fields of HTTP denies every connection to a TCP port, or allows none.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT', 'CUSTOM')) {
      const tcp = set
        .meetings(rule.policy)
        .flatMap(({ ports }) => ports)
        .filter(({ protocol }) => protocol !== 'HTTP');
      const found = rule.alternatives
        .filter((fields) => fields.some(isOfHttp))
        .flatMap((fields) =>
          tcp.filter(({ number }) => leavePort(fields, number)).map((port) => ({ fields, port })),
        );
      const [first] = found;
      if (!first) continue;
      yield {
        resource: rule.policy,
        path: rule.path,
        message: messageOf(actionOf(rule.policy.spec), first.fields, first.port),
        hint: 'add operation.ports with the HTTP ports, and a rule of its own for the TCP port',
      };
    }
  },
};

function messageOf(action: string, fields: readonly RuleField[], port: KnownPort): string {
  const where = `${port.protocol === 'TCP' ? 'TCP port' : 'port of no declared protocol'} ${port.number}`;
  if (action === 'ALLOW') return `allows nothing on ${where}: it has fields of HTTP`;
  const isWhole = fields.every((each) => isOfHttp(each) || each.attribute === 'destination.port');
  const effect = { DENY: 'denies', AUDIT: 'records', CUSTOM: 'asks its provider about' }[action];
  const what = isWhole ? 'every connection' : 'connections by its other fields alone';
  return `${effect} ${what} on ${where}: fields of HTTP do not count there`;
}
