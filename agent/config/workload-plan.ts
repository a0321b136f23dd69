import { type AgentError, invalid } from '../base/errors';
import type { Claim } from './workload-claims';

/** A workload by name, in one version of its settings. */
export interface Version<C> {
  readonly name: string;
  /** The file that says so. */
  readonly from: string;
  readonly config: C;
}

/** An entry that is not to be used; without a name it stands for whatever came from its file. */
export interface Refusal {
  readonly name: string | undefined;
  readonly from: string;
  readonly error: AgentError;
}

export type Listed<C> = Version<C> | Refusal;

/** What to do to what runs, so that it becomes what is wanted. */
export interface WorkloadPlan<C> {
  readonly stop: readonly Version<C>[];
  /** From one version to another: of a name, or of an identity that has a new name now. */
  readonly change: readonly { readonly before: Version<C>; readonly after: Version<C> }[];
  readonly start: readonly Version<C>[];
  /** Entries that are not followed, and why. What runs under their names goes on as it is. */
  readonly refused: readonly Refusal[];
}

/** How the planner looks into settings. */
export interface PlanRules<C> {
  /** What only one workload can have; in the order in which conflicts are told. */
  readonly claims: (config: C) => readonly Claim[];
  readonly same: (a: C, b: C) => boolean;
  /** What the process itself has, and for what. */
  readonly reserved: readonly { readonly claim: Claim; readonly by: string }[];
}

/**
 * Compares what is listed with what runs.
 *
 * An entry that is refused, or that cannot be read, leaves the version that runs in service. Of two that claim the same, the one that runs
 * so already has it, then the one whose name runs, then the first of the list; the other is refused by name. Whatever runs and is not
 * listed any more is stopped; but nothing of a file that has an entry without a readable name, since that may be the one. An identity that
 * only changed its name is changed, not stopped and started, so that its key lives on.
 */
export function planWorkloads<C>(
  listed: readonly Listed<C>[],
  running: readonly Version<C>[],
  rules: PlanRules<C>,
): WorkloadPlan<C> {
  // Who is refused for somebody who is then refused as well may have it after all: judged again from there, until nothing changes.
  let [found, now] = judged(listed, running, rules);
  for (let rounds = listed.length; rounds > 0 && hasSteps(found); rounds -= 1)
    [found, now] = judged(listed, now, rules);
  const kept = new Map(
    now.filter((each) => running.includes(each)).map((each) => [each.name, each]),
  );
  const others = now.filter((each) => !running.includes(each));
  return { ...steps(others, kept, running, rules), refused: found.refused };
}

function hasSteps<C>({ stop, change, start }: WorkloadPlan<C>): boolean {
  return stop.length + change.length + start.length > 0;
}

/** One round: what to do, and what runs when that was done. */
function judged<C>(
  listed: readonly Listed<C>[],
  running: readonly Version<C>[],
  rules: PlanRules<C>,
): [plan: WorkloadPlan<C>, then: readonly Version<C>[]] {
  const plan = evaluateEntries(listed, running, rules);
  return [plan, carriedOut(plan, running)];
}

/** What runs once a plan for what runs now has been carried out. */
export function carriedOut<C>(
  { stop, change, start }: WorkloadPlan<C>,
  running: readonly Version<C>[],
): readonly Version<C>[] {
  const gone = new Set([...stop, ...change.map(({ before }) => before)]);
  return [
    ...running.filter((each) => !gone.has(each)),
    ...change.map(({ after }) => after),
    ...start,
  ];
}

function evaluateEntries<C>(
  listed: readonly Listed<C>[],
  running: readonly Version<C>[],
  rules: PlanRules<C>,
): WorkloadPlan<C> {
  const byName = new Map(running.map((each) => [each.name, each]));
  const refused: Refusal[] = listed.filter(isRefusal);
  const kept = heldBack(listed, running, byName);
  const candidates = inOrderOfRight(listed.filter(isVersion), byName, rules);
  const turnedDown: Refusal[] = [];
  for (let left = candidates; ; ) {
    const settled = settle(left, kept, byName, rules);
    const { displaced } = settled;
    if (!displaced)
      return {
        ...steps(settled.accepted, kept, running, rules),
        refused: [...refused, ...turnedDown, ...settled.turnedDown],
      };
    // Its version that runs stays, and with it what that one has: the others are judged anew.
    kept.set(displaced.version.name, byName.get(displaced.version.name)!);
    turnedDown.push(displaced.refusal);
    left = left.filter((each) => each !== displaced.version);
  }
}

/** What runs and stays as it is, because its entry cannot be read. */
function heldBack<C>(
  listed: readonly Listed<C>[],
  running: readonly Version<C>[],
  byName: ReadonlyMap<string, Version<C>>,
) {
  const refusals = listed.filter(isRefusal);
  const good = new Set(listed.filter(isVersion).map(({ name }) => name));
  const kept = new Map<string, Version<C>>();
  for (const { name } of refusals) {
    const runs = name === undefined || good.has(name) ? undefined : byName.get(name);
    if (runs) kept.set(runs.name, runs);
  }
  const named = new Set(listed.map(({ name }) => name));
  const unsure = new Set(refusals.filter(({ name }) => name === undefined).map(({ from }) => from));
  for (const each of running)
    if (unsure.has(each.from) && !named.has(each.name)) kept.set(each.name, each);
  return kept;
}

function inOrderOfRight<C>(
  versions: readonly Version<C>[],
  byName: ReadonlyMap<string, Version<C>>,
  { same }: PlanRules<C>,
): Version<C>[] {
  const rank = ({ name, from, config }: Version<C>): number => {
    const runs = byName.get(name);
    if (!runs) return 3;
    if (runs.from !== from) return 2;
    return same(runs.config, config) ? 0 : 1;
  };
  const ranks = new Map(versions.map((each) => [each, rank(each)]));
  return [...versions].sort((a, b) => ranks.get(a)! - ranks.get(b)!);
}

interface PlanResult<C> {
  readonly accepted: readonly Version<C>[];
  readonly turnedDown: readonly Refusal[];
  /** One that runs, and whose new version somebody else is in the way of. */
  readonly displaced: { readonly version: Version<C>; readonly refusal: Refusal } | undefined;
}

/** Gives everybody what they claim, one after the other. */
function settle<C>(
  candidates: readonly Version<C>[],
  kept: ReadonlyMap<string, Version<C>>,
  byName: ReadonlyMap<string, Version<C>>,
  rules: PlanRules<C>,
): PlanResult<C> {
  const taken = new Map<string, ClaimOwner>();
  for (const { claim, by } of rules.reserved) taken.set(keyOf(claim), { by, shared: false });
  for (const each of kept.values()) take(taken, each, claimsOf(each, rules));
  const accepted: Version<C>[] = [];
  const turnedDown: Refusal[] = [];
  const seen = new Set<string>();
  for (const each of candidates) {
    const claims = claimsOf(each, rules);
    const conflict = claims.find((claim) => {
      const other = taken.get(keyOf(claim));
      return other !== undefined && !(claim.shared && other.shared);
    });
    const isFirst = !seen.has(each.name);
    seen.add(each.name);
    if (!conflict) {
      take(taken, each, claims);
      accepted.push(each);
      continue;
    }
    const refusal = {
      name: each.name,
      from: each.from,
      error: conflictError(each, conflict, taken),
    };
    if (isFirst && byName.has(each.name) && !kept.has(each.name))
      return { accepted, turnedDown, displaced: { version: each, refusal } };
    turnedDown.push(refusal);
  }
  return { accepted, turnedDown, displaced: undefined };
}

/** Who has something, and whether others may have it too. */
interface ClaimOwner {
  readonly by: string;
  readonly shared: boolean;
}

function take<C>(
  taken: Map<string, ClaimOwner>,
  { name }: Version<C>,
  claims: readonly Claim[],
): void {
  for (const claim of claims)
    taken.set(keyOf(claim), { by: `workload ${name}`, shared: claim.shared ?? false });
}

function conflictError<C>(
  { name, from }: Version<C>,
  claim: Claim,
  taken: ReadonlyMap<string, ClaimOwner>,
): AgentError {
  const field = `workload ${name}: file ${from}: ${claim.setting}`;
  const rule =
    claim.setting === 'name'
      ? 'is given twice'
      : `"${claim.shown}" is that of ${taken.get(keyOf(claim))?.by}`;
  return invalid('ERR_CONFIG', field, rule, { hint: 'give each workload its own' });
}

function steps<C>(
  accepted: readonly Version<C>[],
  kept: ReadonlyMap<string, Version<C>>,
  running: readonly Version<C>[],
  rules: PlanRules<C>,
): Omit<WorkloadPlan<C>, 'refused'> {
  const left = new Map(
    running.filter(({ name }) => !kept.has(name)).map((each) => [each.name, each]),
  );
  const identities = new Map(
    [...left.values()].flatMap((each) =>
      identityKeys(each, rules).map((key) => [key, each] as const),
    ),
  );
  const change: { before: Version<C>; after: Version<C> }[] = [];
  const rest: Version<C>[] = [];
  // By identity first: two that exchanged their names keep their keys.
  for (const after of accepted) {
    const before = identityKeys(after, rules)
      .map((key) => identities.get(key))
      .find((each) => each !== undefined && left.has(each.name));
    if (before === undefined) {
      rest.push(after);
      continue;
    }
    left.delete(before.name);
    if (!isSame(before, after, rules)) change.push({ before, after });
  }
  const start: Version<C>[] = [];
  for (const after of rest) {
    const before = left.get(after.name);
    left.delete(after.name);
    if (before === undefined) start.push(after);
    else if (!isSame(before, after, rules)) change.push({ before, after });
  }
  return { stop: [...left.values()], change, start };
}

function isSame<C>(before: Version<C>, after: Version<C>, { same }: PlanRules<C>): boolean {
  return (
    before.name === after.name && before.from === after.from && same(before.config, after.config)
  );
}

function claimsOf<C>({ name, config }: Version<C>, { claims }: PlanRules<C>): readonly Claim[] {
  return [{ setting: 'name', value: name, shown: name }, ...claims(config)];
}

function identityKeys<C>({ config }: Version<C>, { claims }: PlanRules<C>): string[] {
  return claims(config)
    .filter(({ setting }) => setting === 'spiffe-id')
    .map(keyOf);
}

const DIRECTORIES: readonly Claim['setting'][] = [
  'state-dir',
  'output-certs',
  'ca-dir',
  'credentials-dir',
];

function keyOf({ setting, value }: Claim): string {
  // A directory is one place, whatever it is used for.
  const kind = DIRECTORIES.includes(setting) ? 'directory' : setting;
  return `${kind} ${value}`;
}

function isVersion<C>(listed: Listed<C>): listed is Version<C> {
  return 'config' in listed;
}

function isRefusal<C>(listed: Listed<C>): listed is Refusal {
  return !isVersion(listed);
}
