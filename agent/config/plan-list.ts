import { AgentError } from '../base/errors';
import type { Config, LoadedConfig, WorkloadEntry } from './config';
import { resolvePath } from './resolve-path';
import { claimsOf, sameConfig, socketClaim } from './workload-claims';
import type { UnreadableEntry } from './workload-list';
import { type Listed, planWorkloads, type Version, type WorkloadPlan } from './workload-plan';

/** What a list of workloads becomes. */
export interface ListPlan extends WorkloadPlan<Config> {
  /** The entry that each version of the plan was made of. */
  readonly entries: ReadonlyMap<Config, WorkloadEntry>;
}

/**
 * What becomes of the workloads that run, when the entries of a list are validated by the settings of the process.
 *
 * @param kept  Entries that were in service before a restart. One takes the place of an entry that is refused or cannot be read, as a
 *              version that runs would.
 */
export function planList(
  entries: readonly (WorkloadEntry | UnreadableEntry)[],
  { config, judgeWorkload }: LoadedConfig,
  running: readonly Version<Config>[],
  kept: readonly WorkloadEntry[] = [],
): ListPlan {
  const entryOf = new Map<Config, WorkloadEntry>();
  const toListed = (entry: WorkloadEntry): Listed<Config> => {
    const { name, from } = entry;
    const judged = judgeWorkload(entry);
    if (judged instanceof AgentError) return { name, from, error: judged };
    entryOf.set(judged, entry);
    return { name, from, config: judged };
  };
  const wanted = entries.map(
    (entry): Listed<Config> => ('error' in entry ? entry : toListed(entry)),
  );
  const listed = [
    ...wanted,
    ...standIns(wanted, kept)
      .map(toListed)
      .filter((each) => 'config' in each),
  ];
  const reserved = [
    { claim: socketClaim(config.controlSocket, resolvePath), by: 'control-socket' },
  ];
  // Each path is looked up once for the whole plan.
  const claims = new Map(
    [...listed.filter((each) => 'config' in each), ...running].map((each) => [
      each.config,
      claimsOf(each.config, resolvePath),
    ]),
  );
  return {
    ...planWorkloads(listed, running, {
      claims: (each) => claims.get(each)!,
      same: sameConfig,
      reserved,
    }),
    entries: entryOf,
  };
}

/** The kept entries whose own entry of now is refused, or may be the one that cannot be read. */
function standIns(
  wanted: readonly Listed<Config>[],
  kept: readonly WorkloadEntry[],
): readonly WorkloadEntry[] {
  const good = new Set(wanted.flatMap((each) => ('config' in each ? [each.name] : [])));
  const refused = wanted.filter((each) => 'error' in each);
  return kept.filter(
    ({ name, from }) =>
      !good.has(name) &&
      refused.some((each) => (each.name === undefined ? each.from === from : each.name === name)),
  );
}
