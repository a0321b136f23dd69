import { AgentError } from '../base/errors';
import type { Config, LoadedConfig, WorkloadEntry } from './config';
import { realPlace } from './real-place';
import { claimsOf, sameConfig, socketClaim } from './workload-claims';
import type { UnreadableEntry } from './workload-list';
import { type Listed, planWorkloads, type Version, type WorkloadPlan } from './workload-plan';

/** What becomes of the workloads that run, when the entries of a list are judged by the settings of the process. */
export function planList(
  entries: readonly (WorkloadEntry | UnreadableEntry)[],
  { config, judgeWorkload }: LoadedConfig,
  running: readonly Version<Config>[],
): WorkloadPlan<Config> {
  const listed = entries.map((entry): Listed<Config> => {
    if ('error' in entry) return entry;
    const { name, from } = entry;
    const judged = judgeWorkload(entry);
    return judged instanceof AgentError ? { name, from, error: judged } : { name, from, config: judged };
  });
  const reserved = [{ claim: socketClaim(config.controlSocket, realPlace), by: 'control-socket' }];
  // Each path is looked up once for the whole plan.
  const claims = new Map(
    [...listed.filter((each) => 'config' in each), ...running].map((each) => [each.config, claimsOf(each.config, realPlace)]),
  );
  return planWorkloads(listed, running, { claims: (each) => claims.get(each)!, same: sameConfig, reserved });
}
