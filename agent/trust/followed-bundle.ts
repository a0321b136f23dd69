import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import { reconcileLoop } from '../base/reconcile-loop';
import { type Watched, WatchedSource } from '../base/watched';
import { rootWarnings } from '../identity/certificate';
import { parseSpiffeBundle, type SpiffeBundle } from '../identity/spiffe-bundle';
import { readCaRoot } from './ca-root';
import { isUrl, openPlace, type PlaceReader } from './place-reader';

/** The bundle of one trust domain at one place, for all who believe it. */
export interface FollowedBundle {
  /** The last good answer; undefined before the first. */
  readonly held: Watched<HeldBundle | undefined>;
  /** Why a newer one cannot be had; undefined where all is well. */
  problem(): AgentError | undefined;
  close(): Promise<void>;
}

export interface HeldBundle {
  readonly bundle: SpiffeBundle;
  /** As they were read. */
  readonly bytes: Uint8Array;
}

/** What the setting is called in errors. */
export const FIELD = '--federated-bundle';
export const MAX_BYTES = 1024 * 1024;
/** Where the bundle itself does not say, as the standard advises (SPIFFE Trust Domain and Bundle, section 6.1). */
const POLL_MS = 5 * 60_000;
const LEAST_POLL_MS = 5_000;
const MOST_POLL_MS = 24 * 3_600_000;
/** A file is watched; this is for what no watch tells of. */
const FILE_POLL_MS = 60_000;

/**
 * Follows the bundle of a trust domain: a file, or a URL of `https` whose server the roots of this machine vouch for (the profile
 * `https_web` of SPIFFE Federation, section 5.2.1). A bad answer leaves the last good one.
 */
export function followBundle(trustDomain: string, place: string, deps: Deps): FollowedBundle {
  const limits = { field: `${FIELD} ${trustDomain}`, maxBytes: MAX_BYTES, roots: machineRoots };
  return new Follower(trustDomain, openPlace(place, limits, deps), deps);
}

/** @throws AgentError ERR_CONFIG for `http` of other machines: whoever can change a bundle on its way can be anybody of that trust domain. */
export function assertTrusted(trustDomain: string, place: string): void {
  if (!isUrl(place)) return;
  const url = URL.parse(place);
  const local = url !== null && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  if (url?.username || url?.password)
    throw invalid('ERR_CONFIG', `${FIELD} ${trustDomain}`, 'must not have a user in its URL');
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && local)) return;
  throw invalid('ERR_CONFIG', `${FIELD} ${trustDomain}`, 'must be a file or an https URL', {
    hint: 'plain http lets an attacker impersonate every identity of that trust domain',
  });
}

/** Without them, those that Node.js brings. */
async function machineRoots(): Promise<Buffer | undefined> {
  return readCaRoot({ kind: 'system' }).then(
    ({ pem }) => pem,
    () => undefined,
  );
}

class Follower implements FollowedBundle {
  readonly #held = new WatchedSource<HeldBundle | undefined>(undefined);
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #problem: AgentError | undefined;
  #told = '';

  constructor(
    private readonly trustDomain: string,
    private readonly reader: PlaceReader,
    private readonly deps: Deps,
  ) {
    const looked = {
      watch: (wake: () => void) => reader.watch(wake),
      look: (signal: AbortSignal) => this.#look(signal),
      refused: (caught: unknown) => this.#refused(AgentError.from(caught)),
      notLaterThan: () => this.#nextPollAt(),
    };
    this.#running = reconcileLoop(looked, deps, this.#stop.signal).catch((cause) =>
      deps.log.error('federated bundle watch failed', { trustDomain, cause }),
    );
  }

  get held(): Watched<HeldBundle | undefined> {
    return this.#held;
  }

  problem(): AgentError | undefined {
    return this.#problem;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #nextPollAt(): number {
    const now = this.deps.clock.now();
    if (this.reader.path !== undefined) return now + FILE_POLL_MS;
    const hintMs = (this.#held.value?.bundle.refreshHintSeconds ?? 0) * 1_000;
    return now + (hintMs === 0 ? POLL_MS : Math.min(Math.max(hintMs, LEAST_POLL_MS), MOST_POLL_MS));
  }

  /** Reads and judges once. */
  async #look(signal: AbortSignal): Promise<number> {
    const bytes = await this.reader.read(signal);
    if (signal.aborted) return this.#nextPollAt();
    if (bytes !== undefined) this.#take(bytes);
    if (this.#problem) this.deps.log.info('federated bundle valid again', this.#facts());
    this.#problem = undefined;
    this.#told = '';
    return this.#nextPollAt();
  }

  #take(bytes: Uint8Array): void {
    const { value: last } = this.#held;
    if (last && Buffer.compare(last.bytes, bytes) === 0) return;
    const bundle = parseSpiffeBundle(bytes, this.trustDomain, `${FIELD} ${this.trustDomain}`);
    const counts = { roots: bundle.roots?.rootsDer.length ?? 0, jwtKeys: bundle.jwtKeys.length };
    if (counts.roots + counts.jwtKeys > 0)
      this.deps.log.info('federated bundle in use', { ...this.#facts(), ...counts });
    else
      this.deps.log.warn(
        'federated bundle is empty, trusting no peer of that trust domain',
        this.#facts(),
      );
    for (const warning of bundle.roots ? rootWarnings(bundle.roots) : []) {
      this.deps.log.warn('federated bundle has roots with warnings', { ...this.#facts(), warning });
    }
    this.#held.set({ bundle, bytes });
  }

  #refused(error: AgentError): void {
    this.#problem = error;
    this.deps.metrics.record('federated_bundle_failures_total', {});
    if (error.message === this.#told) return;
    this.#told = error.message;
    const facts = { ...this.#facts(), cause: error };
    if (this.#held.value)
      this.deps.log.warn('federated bundle refresh failed, keeping the previous one', facts);
    else this.deps.log.warn('no federated bundle yet, using the stored one if any', facts);
  }

  #facts() {
    return { trustDomain: this.trustDomain, place: this.reader.place };
  }
}
