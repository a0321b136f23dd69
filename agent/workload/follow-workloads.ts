import type { RefusedEntry } from '../admin/agent-view';
import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError, systemCode } from '../base/errors';
import type { FileWatch } from '../base/file-watch';
import { LogRateLimit } from '../base/log-rate-limit';
import type { Config, LoadedConfig, WorkloadEntry } from '../config/config';
import { type ListPlan, planList } from '../config/plan-list';
import { type ListText, readListText } from '../config/read-workloads';
import { carriedOut, type Refusal } from '../config/workload-plan';
import { createKeptWorkloads, type KeptWorkloads } from './kept-workloads';
import { assertTrustedDirectories } from './trusted-directories';
import { refusedEntry, WorkloadSet } from './workload-set';

/** Workloads that come and go with a list. */
export interface FollowedWorkloads {
  readonly set: WorkloadSet;
  /** What of the list is not followed, and why; what cannot be put into service included. */
  refused(): readonly RefusedEntry[];
  /** Reads the list again, and tries again what has failed. Resolves when that has been done; never throws. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

/** The list is judged once it has stood still for so long: files are written in pieces, and copied one by one. */
const SETTLE_MS = 100;
/** One file that is written without end must not keep the others waiting. */
const SETTLE_LOOKS = 20;
/** Nothing that watching needs is loaded before the first certificates. */
const FOLLOW_AFTER_MS = 1_000;
/** Of a list that is wrong all over, the log tells so many; `status` has them all. */
const LINES_A_MINUTE = 20;

/**
 * Starts the workloads of `config.workloads`, and follows the list from then on. An entry that is wrong is told once, and leaves what it
 * stood for in service. Resolves when each workload has been started, or could not be.
 *
 * @param stopping  Fires when no more of them need be started.
 * @throws          AgentError ERR_CONFIG where there is no such list, or it cannot be read as one; nothing is left open.
 */
export async function followWorkloads(
  loaded: LoadedConfig,
  deps: Deps,
  stopping: AbortSignal,
): Promise<FollowedWorkloads> {
  const place = loaded.config.workloads!;
  assertTrustedDirectories(loaded.config);
  const kept =
    loaded.config.stateDir === undefined
      ? undefined
      : createKeptWorkloads(loaded.config.stateDir, deps);
  const followed = new WorkloadFollower(loaded, place, kept, deps, stopping);
  const before = (await kept?.load()) ?? [];
  const list = await readList(place).catch((caught: unknown) => AgentError.from(caught));
  // A list that is damaged as a whole was read before: what it stood for is in service again. A place that is gone is not waited for.
  if (list instanceof AgentError && (before.length === 0 || systemCode(list.cause) === 'ENOENT'))
    throw list;
  await followed.begin(list, before);
  return followed;
}

interface ReadList {
  readonly text: ListText;
  readonly entries: Awaited<ReturnType<ListText['entries']>>;
}

async function readList(place: string): Promise<ReadList> {
  const text = await readListText(place);
  return { text, entries: await text.entries() };
}

class WorkloadFollower implements FollowedWorkloads {
  readonly set: WorkloadSet;
  readonly #stop = new AbortController();
  readonly #lines: LogRateLimit;
  #wake = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #watch: FileWatch | undefined;
  #watched = '';
  /** Of the text that was followed last. */
  #print = '';
  #refused: readonly Refusal[] = [];
  /** What each version was made of. */
  readonly #entries = new WeakMap<Config, WorkloadEntry>();
  /** What is wrong with the list as a whole. */
  #problem: AgentError | undefined;
  #failures = 0;
  /** What was complained of, by entry, so that each thing is said once. */
  #told = new Map<string, string>();
  #wishes: (() => void)[] = [];

  constructor(
    private readonly loaded: LoadedConfig,
    private readonly place: string,
    private readonly kept: KeptWorkloads | undefined,
    private readonly deps: Deps,
    stopping: AbortSignal,
  ) {
    this.set = new WorkloadSet(deps, AbortSignal.any([stopping, this.#stop.signal]));
    this.#lines = new LogRateLimit(deps.clock, LINES_A_MINUTE);
  }

  /** @param kept  What was in service before a restart: it stands in for what of the list is refused now. */
  async begin(list: ReadList | AgentError, kept: readonly WorkloadEntry[]): Promise<void> {
    if (list instanceof AgentError) await this.#standIn(list, kept);
    else await this.#follow(list, false, kept);
    this.#loop = this.#run().catch((cause) =>
      this.deps.log.error('workload list watch failed', { cause }),
    );
  }

  refused(): readonly RefusedEntry[] {
    const running = new Map(this.set.versions().map((each) => [each.name, each]));
    const inService = ({ name, from }: Refusal) =>
      name === undefined
        ? [...running.values()].some((each) => each.from === from)
        : running.has(name);
    return [
      ...(this.#problem
        ? [refusedEntry({ name: undefined, from: this.place }, this.#problem, running.size > 0)]
        : []),
      ...this.#refused.map((each) => refusedEntry(each, each.error, inService(each))),
      ...this.set.failed(),
    ];
  }

  reload(): Promise<void> {
    const done = new Promise<void>((resolve) => this.#wishes.push(resolve));
    this.#wake.abort();
    return this.#stop.signal.aborted ? Promise.resolve() : done;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#wake.abort();
    await this.#loop;
    for (const done of this.#wishes.splice(0)) done();
    await this.#watch?.close();
    await this.set.close();
  }

  async #run(): Promise<void> {
    await this.#sleep(this.deps.clock.now() + FOLLOW_AFTER_MS);
    while (!this.#stop.signal.aborted) {
      // Made anew before reading, so that a change during the read is not lost.
      this.#wake = new AbortController();
      const wishes = this.#wishes.splice(0);
      await this.#look(wishes.length > 0);
      for (const done of wishes) done();
      if (this.#wishes.length === 0) await this.#sleep(this.#againAt());
    }
  }

  async #look(again: boolean): Promise<void> {
    try {
      const text = await this.#settled();
      await this.#watchFiles(text.files);
      const due = again || this.set.retryAt() <= this.deps.clock.now();
      if (text.print !== this.#print || due || this.#problem)
        await this.#follow({ text, entries: await text.entries() }, again, []);
      this.#failures = 0;
    } catch (caught) {
      if (this.#stop.signal.aborted) return;
      this.#failures += 1;
      this.#problem = AgentError.from(caught);
      this.#tell();
      await this.#watchFiles([]).catch(() => undefined);
    }
  }

  /** The text once two looks in a row agree; after many that do not, without the files in which they differ. */
  async #settled(): Promise<ListText> {
    let text = await readListText(this.place);
    if (text.print === this.#print) return text;
    for (let looks = 0; ; looks += 1) {
      const last = text;
      await this.deps.clock.sleepUntil(this.deps.clock.now() + SETTLE_MS, this.#stop.signal);
      text = await readListText(this.place);
      if (text.print === last.print) return text;
      if (looks === SETTLE_LOOKS) return text.holdBack(last);
    }
  }

  async #follow(
    { text, entries }: ReadList,
    again: boolean,
    kept: readonly WorkloadEntry[],
  ): Promise<void> {
    const plan = planList(entries, this.loaded, this.set.versions(), kept);
    this.#refused = plan.refused;
    this.#problem = undefined;
    this.#print = text.print;
    this.#tell();
    await this.#apply(plan, again);
  }

  /** Puts back into service what was in service before a restart, since the list as a whole cannot be read. */
  async #standIn(problem: AgentError, kept: readonly WorkloadEntry[]): Promise<void> {
    this.#problem = problem;
    this.#failures = 1;
    this.#tell();
    await this.#apply(planList(kept, this.loaded, []), false);
  }

  async #apply(plan: ListPlan, again: boolean): Promise<void> {
    const then = carriedOut(plan, this.set.versions());
    await this.set.apply(plan, again);
    for (const [config, entry] of plan.entries) this.#entries.set(config, entry);
    // Where the end of the process cut that short, what is wanted counts: what has left the list must not come back by a later fault.
    const kept = this.#stop.signal.aborted ? then : this.set.versions();
    await this.kept?.save(kept.flatMap(({ config }) => this.#entries.get(config) ?? []));
  }

  async #watchFiles(files: readonly string[]): Promise<void> {
    const paths = [...new Set([this.place, ...files])];
    const watched = JSON.stringify(paths);
    if (watched === this.#watched) return;
    const { watchFiles } = await import('../base/file-watch');
    const before = this.#watch;
    this.#watch = await watchFiles(paths, () => this.#wake.abort(), this.deps);
    this.#watched = watched;
    await before?.close();
    // What changed before the watch stood is seen by another look.
    this.#wake.abort();
  }

  #againAt(): number {
    const listAt =
      this.#failures === 0 ? Number.POSITIVE_INFINITY : this.deps.clock.now() + this.#backoffMs();
    return Math.min(listAt, this.set.retryAt());
  }

  #backoffMs(): number {
    return backoffMs(this.#failures, DEFAULT_BACKOFF, this.deps.random);
  }

  /** Until then, or until something changes. */
  async #sleep(until: number): Promise<void> {
    await this.deps.clock.sleepUntil(until, this.#wake.signal).catch(() => undefined);
  }

  #tell(): void {
    const { log } = this.deps;
    const now = new Map(this.#refused.map((each) => [`${each.from}\n${each.name ?? ''}`, each]));
    const told = new Map<string, string>();
    if (this.#problem) {
      told.set('', this.#problem.message);
      if (this.#told.get('') !== this.#problem.message)
        log.error('workload list invalid, keeping the running workloads', {
          list: this.place,
          cause: this.#problem,
        });
      // What was wrong with entries is still not mended.
      for (const [key, message] of this.#told) if (key !== '') told.set(key, message);
    } else {
      for (const [key, { name, from, error }] of now) {
        told.set(key, error.message);
        if (this.#told.get(key) === error.message) continue;
        this.#lines.spend((withheld) =>
          log.error('workload invalid', { workload: name, file: from, cause: error, withheld }),
        );
      }
      for (const key of this.#told.keys())
        if (!told.has(key))
          log.info('workload valid again', { file: key.split('\n')[0] || this.place });
    }
    this.#told = told;
  }
}
