import type { RefusedEntry } from '../admin/agent-view';
import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { trimAfterWork } from '../base/trim-memory';
import { type Watched, WatchedSource } from '../base/watched';
import type { Config } from '../config/config';
import { extentOfChange, sameConfig } from '../config/workload-claims';
import type { Version, WorkloadPlan } from '../config/workload-plan';
import type { Svid } from '../identity/svid';
import { NamedWorkload, type WorkloadMaking } from './named-workload';
import { createSharedCas } from './shared-cas';

/** A version that could not be put into service. */
interface Failure {
  readonly version: Version<Config>;
  readonly error: AgentError;
  readonly failures: number;
  /** Epoch milliseconds. Not tried again by itself where an earlier version is in service, which a trial would disturb. */
  readonly retryAt: number;
}

/** How many are started or ended at a time. */
const AT_ONCE = 8;
/** Each leaves some 300 KB of garbage behind. */
const CHANGES_PER_TRIM = 50;

/** The workloads of a list that run. One that fails is no other's concern: each step is taken for itself. */
export class WorkloadSet {
  readonly #making: WorkloadMaking;
  readonly #ended = new AbortController();
  readonly #running = new Map<string, NamedWorkload>();
  readonly #failed = new Map<string, Failure>();
  readonly #changes = new WatchedSource(0);

  /** @param stopping  Fires when it is about to be closed: workloads that wait for their turn are not started any more. */
  constructor(
    private readonly deps: Deps,
    private readonly stopping: AbortSignal,
  ) {
    const onChange = trimAfterWork(CHANGES_PER_TRIM, deps.clock, this.#ended.signal);
    this.#making = {
      shared: createSharedCas(deps),
      deps,
      count: () => this.#running.size,
      onChange,
    };
  }

  /** Changes after each plan that was taken. */
  get changes(): Watched<number> {
    return this.#changes;
  }

  /** In the order of their names. */
  workloads(): readonly NamedWorkload[] {
    return [...this.#running.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  versions(): readonly Version<Config>[] {
    return [...this.#running.values()].map(({ version }) => version);
  }

  /** Versions that are wanted and could not be put into service. */
  failed(): readonly RefusedEntry[] {
    return [...this.#failed.values()].map(({ version, error }) => ({
      ...refusedEntry(version, error, this.#running.has(version.name)),
      outcome: 'failed',
    }));
  }

  /** When something that failed is to be tried again; infinite where there is nothing. */
  retryAt(): number {
    return Math.min(
      Number.POSITIVE_INFINITY,
      ...[...this.#failed.values()].map((each) => each.retryAt),
    );
  }

  /**
   * Takes every step of a plan, each as far as it goes: what must go first, so that its socket is free for others.
   *
   * @param again  Whether what has failed is tried again now.
   */
  async apply(plan: WorkloadPlan<Config>, again: boolean): Promise<void> {
    this.#forgetFailures(plan, again);
    const due = (version: Version<Config>) =>
      (this.#failed.get(version.name)?.retryAt ?? 0) <= this.deps.clock.now();
    const changes = plan.change.filter(({ after }) => due(after));
    // Names may be exchanged: who had which is looked up in what was.
    const were = new Map(this.#running);
    const extents = new Map(
      changes.map((each) => [each, extentOfChange(each.before.config, each.after.config)]),
    );
    await few(plan.stop, (version) => this.#stop(version));
    const inPlace = changes.filter((each) => extents.get(each) !== 'whole');
    await few(inPlace, (each) =>
      this.#changeInPlace(each, were.get(each.before.name)!, extents.get(each) === 'source'),
    );
    await this.#exchange(
      new Map(
        changes
          .filter((each) => extents.get(each) === 'whole')
          .map((each) => [each, were.get(each.before.name)!]),
      ),
    );
    await this.#endDisplaced(inPlace.map((each) => were.get(each.before.name)!));
    await few(plan.start.filter(due), (version) => this.#start(version), this.stopping);
    this.#changes.set(this.#changes.value + 1);
  }

  async close(): Promise<void> {
    this.#ended.abort();
    const running = [...this.#running.values()];
    this.#running.clear();
    const ends = await Promise.allSettled(running.map((each) => each.close()));
    const failed = ends.find((each) => each.status === 'rejected');
    if (failed) throw failed.reason;
  }

  /** What is no longer wanted as it failed begins anew. */
  #forgetFailures(plan: WorkloadPlan<Config>, again: boolean): void {
    const wanted = new Map(
      [...plan.start, ...plan.change.map(({ after }) => after)].map((each) => [each.name, each]),
    );
    for (const [name, { version, error, failures }] of this.#failed) {
      const now = wanted.get(name);
      if (!now || !sameConfig(now.config, version.config)) this.#failed.delete(name);
      else if (again) this.#failed.set(name, { version: now, error, failures, retryAt: 0 });
    }
  }

  async #stop(version: Version<Config>): Promise<void> {
    const workload = this.#running.get(version.name);
    if (!workload) return;
    this.#running.delete(version.name);
    await this.#attempt('stop', version, async () => {
      await workload.close();
      await workload.clear();
    });
  }

  async #start(version: Version<Config>, carried?: Svid): Promise<void> {
    await this.#attempt('start', version, async () => {
      this.#running.set(version.name, await NamedWorkload.start(version, this.#making, carried));
    });
  }

  async #changeInPlace(
    { before, after }: Change,
    workload: NamedWorkload,
    source: boolean,
  ): Promise<void> {
    await this.#attempt('change', after, async () => {
      if (source) await workload.changeSource(after);
      else workload.rename(after);
      this.#leave(before.name, workload);
      this.#running.set(after.name, workload);
    });
  }

  /** One that could not be changed, and whose name another has taken, would go on serving where nobody can see or stop it. */
  async #endDisplaced(changed: readonly NamedWorkload[]): Promise<void> {
    const held = new Set(this.#running.values());
    await few(
      changed.filter((each) => !held.has(each)),
      (workload) => workload.close().catch((cause) => this.#endedBadly(workload, cause)),
    );
  }

  /** All that go, then all that come: two may have exchanged their sockets. */
  async #exchange(gone: ReadonlyMap<Change, NamedWorkload>): Promise<void> {
    for (const [{ before }, workload] of gone) this.#leave(before.name, workload);
    const carried = new Map(
      [...gone].map(([change, workload]) => [change, workload.carried(change.after.config)]),
    );
    const before = new Map(
      [...gone].map(([change, workload]) => [change, workload.carried(change.before.config)]),
    );
    await few([...gone.values()], (workload) =>
      workload.close().catch((cause) => this.#endedBadly(workload, cause)),
    );
    await few(
      [...gone],
      async ([change, workload]) => {
        const done = await this.#attempt('change', change.after, async () => {
          this.#running.set(
            change.after.name,
            await NamedWorkload.start(change.after, this.#making, carried.get(change)),
          );
          await workload.clear(change.after.config);
        });
        if (!done && !this.#running.has(change.before.name))
          await this.#goBack(change, before.get(change));
      },
      this.stopping,
    );
  }

  /** Puts the version before back into service. Another trial would cost its streams again, so there is none until somebody wants it. */
  async #goBack({ before, after }: Change, carried: Svid | undefined): Promise<void> {
    try {
      this.#running.set(before.name, await NamedWorkload.start(before, this.#making, carried));
    } catch (cause) {
      this.deps.log.error('workload rollback failed', {
        workload: before.name,
        cause,
      });
      return;
    }
    const failure = this.#failed.get(after.name);
    if (failure) this.#failed.set(after.name, { ...failure, retryAt: Number.POSITIVE_INFINITY });
  }

  /** Gives a name up, unless another has it by now. */
  #leave(name: string, workload: NamedWorkload): void {
    if (this.#running.get(name) === workload) this.#running.delete(name);
  }

  #endedBadly({ name }: NamedWorkload, cause: unknown): void {
    this.deps.log.warn('closing a workload failed', { workload: name, cause });
  }

  async #attempt(
    change: 'start' | 'change' | 'stop',
    version: Version<Config>,
    work: () => Promise<void>,
  ): Promise<boolean> {
    const { log, metrics, clock, random } = this.deps;
    const facts = { workload: version.name, file: version.from };
    try {
      await work();
      if (change !== 'stop') this.#failed.delete(version.name);
      metrics.record('workload_changes_total', { change, outcome: 'ok' });
      log.info(EVENTS[change], facts);
      return true;
    } catch (caught) {
      const error = AgentError.from(caught);
      metrics.record('workload_changes_total', { change, outcome: error.code });
      const failures = (this.#failed.get(version.name)?.failures ?? 0) + 1;
      const retryAt = clock.now() + backoffMs(failures, DEFAULT_BACKOFF, random);
      if (change !== 'stop') this.#failed.set(version.name, { version, error, failures, retryAt });
      log.error(`${EVENTS[change]}: failed`, { ...facts, cause: error });
      return false;
    }
  }
}

type Change = WorkloadPlan<Config>['change'][number];

const EVENTS = {
  start: 'workload started',
  change: 'workload changed',
  stop: 'workload stopped',
} as const;

/** An entry that is not followed, as `status` tells it. */
export function refusedEntry(
  entry: { name: string | undefined; from: string },
  error: AgentError,
  inService: boolean,
): RefusedEntry {
  const { code, message, hint } = error;
  return {
    ...(entry.name !== undefined && { name: entry.name }),
    file: entry.from,
    code,
    message,
    ...(hint !== undefined && { hint }),
    outcome: 'refused',
    inService,
  };
}

/** Does the work for each, a few at a time, until the signal fires. */
async function few<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
  signal?: AbortSignal,
): Promise<void> {
  const left = [...items];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined && !signal?.aborted; item = left.shift())
      await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker));
}
