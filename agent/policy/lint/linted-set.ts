import { actionOf, isDryRun } from '../authz/rbac';
import type { Mesh } from '../mesh';
import { type MtlsMode, modeOfPort, type PeerModes, peerModes } from '../peer';
import { textMapOf } from '../resources/fields';
import type { JsonObject, Resource } from '../resources/resource';
import { hasTarget, type ResourceIndex } from '../select';
import { matchLabels, type PolicyWorkload } from '../workload';
import { type AuthzRule, rulesOf } from './fields';
import { type KnownPort, type KnownWorkload, knownWorkloads } from './known-workloads';

/** A workload and a policy together: where the policy may apply. */
export interface Meeting extends PolicyWorkload {
  /** Whether files tell of the workload; else the policy alone does. */
  readonly isKnown: boolean;
  readonly ports: readonly KnownPort[];
}

/** What lints look at: the resources, and what is derived from them once for all. */
export class LintedSet {
  readonly workloads: readonly KnownWorkload[];
  /** AuthorizationPolicies that are in force for workloads. */
  readonly authorization: readonly Resource[];
  readonly #rules = new Map<Resource, readonly AuthzRule[]>();
  readonly #meetings = new Map<Resource, readonly Meeting[]>();
  readonly #modes = new Map<string, PeerModes>();

  constructor(
    readonly index: ResourceIndex,
    readonly mesh: Mesh,
    given: readonly PolicyWorkload[],
  ) {
    this.workloads = knownWorkloads(index, given, mesh.rootNamespace);
    this.authorization = index
      .all('AuthorizationPolicy')
      .filter((each) => !isDryRun(each.annotations) && !hasTarget(each.spec));
  }

  rules(policy: Resource): readonly AuthzRule[] {
    const known = this.#rules.get(policy) ?? rulesOf(policy);
    this.#rules.set(policy, known);
    return known;
  }

  /** Rules of policies of these actions. */
  *rulesOf(...actions: readonly string[]): Generator<AuthzRule> {
    for (const policy of this.authorization)
      if (actions.includes(actionOf(policy.spec))) yield* this.rules(policy);
  }

  /**
   * The workloads that a policy with a selector may apply to. Where files tell of none, one of which is
   * known what the policy says, so that there is always one.
   */
  meetings(policy: Resource): readonly Meeting[] {
    const known = this.#meetings.get(policy) ?? this.#meet(policy);
    this.#meetings.set(policy, known);
    return known;
  }

  #meet({ namespace, spec }: Resource): readonly Meeting[] {
    const selector = matchLabels(spec);
    const found = this.workloads
      .filter((each) => this.#isWithin(namespace, each) && mayBe(selector, each))
      .map(
        (each): Meeting => ({
          namespace: each.namespace ?? namespace,
          labels: each.isWhole ? each.labels : { ...each.labels, ...textMapOf(selector) },
          isKnown: true,
          ports: each.ports,
        }),
      );
    if (found.length > 0) return found;
    return [{ namespace, labels: textMapOf(selector), isKnown: false, ports: [] }];
  }

  #isWithin(namespace: string, workload: KnownWorkload): boolean {
    const { rootNamespace } = this.mesh;
    return (
      namespace === rootNamespace ||
      workload.namespace === undefined ||
      workload.namespace === namespace
    );
  }

  modes({ namespace, labels }: PolicyWorkload): PeerModes {
    const key = JSON.stringify([namespace, Object.entries(labels).sort()]);
    const known =
      this.#modes.get(key) ?? peerModes(this.index, { namespace, labels }, this.mesh.rootNamespace);
    this.#modes.set(key, known);
    return known;
  }

  mode(workload: PolicyWorkload, port: number): MtlsMode {
    return modeOfPort(this.modes(workload), port);
  }

  /** Policies of a kind that may apply to a workload of which not all labels need be known. */
  mayApply(kind: Resource['kind'], workload: Meeting): readonly Resource[] {
    return [...new Set([workload.namespace, this.mesh.rootNamespace])]
      .flatMap((namespace) => this.index.of(kind, namespace))
      .filter(({ spec }) => !hasTarget(spec) && areCompatible(matchLabels(spec), workload.labels));
  }
}

/** Whether a workload can have the labels of a selector. */
function mayBe(selector: JsonObject, { labels, isWhole }: KnownWorkload): boolean {
  return Object.entries(selector).every(([name, value]) =>
    Object.hasOwn(labels, name) ? labels[name] === value : !isWhole,
  );
}

function areCompatible(selector: JsonObject, labels: Readonly<Record<string, string>>): boolean {
  return Object.entries(selector).every(
    ([name, value]) => !Object.hasOwn(labels, name) || labels[name] === value,
  );
}
