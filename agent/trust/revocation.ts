import { join } from 'node:path';
import { publishDir } from '../base/atomic-dir';
import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { readSmallFile } from '../base/read-file';
import { reconcileLoop } from '../base/reconcile-loop';
import { type Watched, WatchedSource } from '../base/watched';
import { acceptCrls, type CrlSigners } from '../identity/accept-crls';
import { type CrlSet, MAX_CRL_FILE_BYTES } from '../identity/crl';
import { isUrl, openPlace, type PlaceReader } from './place-reader';

/** The certificate revocation lists of a mesh, as they are renewed. */
export interface Revocation {
  /**
   * The lists to go by; undefined until there are any. Never taken back: lists that have had their day are refused by whoever applies them,
   * which lets nobody in, whereas none at all would let in whom they name.
   */
  readonly lists: Watched<CrlSet | undefined>;
  /** Why newer ones cannot be had, or that those in use are near their end or past it; undefined where all is well. */
  problem(): AgentError | undefined;
  /** Lists of the place that are not in use, each with its rule. */
  passedOver(): readonly string[];
  /** Those of them that have to be made anew, for an extension or for their grammar. */
  unusable(): readonly string[];
  close(): Promise<void>;
}

const FIELD = '--crl';
/** A revocation at the CA is known here no later than this. An unchanged answer costs a few hundred bytes. */
const POLL_MS = 60_000;
/** Below the state directory: others keep other files there. */
const KEPT_DIR = 'crl';
const KEPT_FILE = 'crl.pem';
/** From here on in the life of a list its absence of a successor is told. Ours are renewed after a quarter. */
const LATE = 0.75;

/**
 * Follows a file, or polls a URL of `http` or `https`: a list is signed, so the way that it comes need not be trusted.
 *
 * @param place     A path, or a URL such as `http://ca:8080/crl.pem`.
 * @param signers   Whose lists count; what was read is validated again when they change.
 * @param stateDir  Keeps what a URL gave over restarts, so that a proxy has its roots while nobody answers there.
 * @throws          AgentError ERR_CONFIG for another kind of URL.
 */
export function followRevocation(
  place: string,
  signers: Watched<CrlSigners | undefined>,
  stateDir: string | undefined,
  deps: Deps,
): Revocation {
  if (isUrl(place) && !['http:', 'https:'].includes(URL.parse(place)?.protocol ?? ''))
    throw invalid('ERR_CONFIG', FIELD, 'must be a file or an http or https URL');
  const reader = openPlace(place, { field: FIELD, maxBytes: MAX_CRL_FILE_BYTES }, deps);
  const keptDir =
    stateDir === undefined || reader.path !== undefined ? undefined : join(stateDir, KEPT_DIR);
  return new FollowedLists(reader, signers, keptDir, deps);
}

class FollowedLists implements Revocation {
  readonly #lists = new WatchedSource<CrlSet | undefined>(undefined);
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #bytes: Uint8Array | undefined;
  #problem: AgentError | undefined;
  #told = '';
  #passedOver: readonly string[] = [];
  #unusable: readonly string[] = [];

  constructor(
    private readonly reader: PlaceReader,
    private readonly signers: Watched<CrlSigners | undefined>,
    private readonly keptDir: string | undefined,
    private readonly deps: Deps,
  ) {
    const looked = {
      watch: (wake: () => void) => this.#watch(wake),
      look: (signal: AbortSignal) => this.#look(signal),
      refused: (caught: unknown) => this.#refused(AgentError.from(caught)),
      notLaterThan: () => this.#nextAlarmAt(),
    };
    this.#running = reconcileLoop(looked, deps, this.#stop.signal).catch((cause) =>
      deps.log.error('revocation list watch failed', { cause }),
    );
  }

  get lists(): Watched<CrlSet | undefined> {
    return this.#lists;
  }

  problem(): AgentError | undefined {
    return this.#age() ?? this.#problem;
  }

  passedOver(): readonly string[] {
    return this.#passedOver;
  }

  unusable(): readonly string[] {
    return this.#unusable;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #watch(wake: () => void): Promise<{ close(): Promise<void> }> {
    const unsubscribe = this.signers.subscribe(wake);
    const watch = await this.reader.watch(wake);
    this.#bytes = await this.#readKept();
    return {
      close: async () => {
        unsubscribe();
        await watch?.close();
      },
    };
  }

  /** Reads and judges once. */
  async #look(signal: AbortSignal): Promise<number> {
    if (!this.#lists.value) await this.#tryKept();
    const bytes = await this.reader.read(signal);
    // Held before it is judged: what is refused now may be good under the next bundle, and is not sent again.
    this.#bytes = bytes ?? this.#bytes;
    const signers = this.signers.value;
    // Where there is nothing to validate by yet, the bundle wakes us.
    if (this.#bytes !== undefined && signers !== undefined) {
      await this.#use(this.#bytes, signers);
      if (bytes) await this.#keep(bytes);
    }
    if (!signal.aborted) this.#tellAge();
    return this.deps.clock.now() + POLL_MS;
  }

  async #readKept(): Promise<Uint8Array | undefined> {
    if (this.keptDir === undefined) return undefined;
    const limits = {
      field: KEPT_FILE,
      code: 'ERR_CA_UNAVAILABLE',
      maxBytes: MAX_CRL_FILE_BYTES,
    } as const;
    return readSmallFile(join(this.keptDir, KEPT_FILE), limits).catch(() => undefined);
  }

  /** What an earlier run had, before anybody is asked, who may take long to answer. */
  async #tryKept(): Promise<void> {
    const signers = this.signers.value;
    if (this.#bytes === undefined || signers === undefined) return;
    try {
      await this.#use(this.#bytes, signers);
    } catch {
      // Out of date, or of another mesh. What is read next says more.
    }
  }

  async #keep(bytes: Uint8Array): Promise<void> {
    if (this.keptDir === undefined) return;
    await publishDir(this.keptDir, [{ name: KEPT_FILE, bytes, mode: 0o644 }]).catch((cause) =>
      this.deps.log.warn('storing revocation lists failed', {
        dir: this.keptDir,
        cause,
      }),
    );
  }

  async #use(bytes: Uint8Array, signers: CrlSigners): Promise<void> {
    const { log, clock } = this.deps;
    const { set, skipped, unusable } = await acceptCrls(
      bytes,
      FIELD,
      signers,
      clock.now(),
      this.#lists.value,
    );
    this.#passedOver = skipped;
    this.#unusable = unusable;
    if (this.#problem) log.info('revocation lists valid again', { place: this.reader.place });
    this.#problem = undefined;
    // Before our own certificate is there, its issuer may be unknown.
    const shown = signers.chainDer.length === 0 ? unusable : skipped;
    this.#complain(shown.join('; '), () =>
      log.warn('revocation lists skipped', { place: this.reader.place, skipped: shown }),
    );
    if (set.version === this.#lists.value?.version) return;
    const revoked = set.lists.reduce((sum, list) => sum + list.revoked.size, 0);
    const numbers = set.lists.map(({ number }) => number);
    log.info('revocation lists in use', {
      place: this.reader.place,
      lists: set.lists.length,
      numbers,
      revoked,
      nextUpdate: iso(set.nextUpdateAt),
    });
    this.#lists.set(set);
  }

  #refused(error: AgentError): void {
    this.#problem = error;
    this.#passedOver = [];
    this.#unusable = [];
    this.deps.metrics.record('crl_failures_total', {});
    const facts = { place: this.reader.place, cause: error };
    this.#complain(error.message, () =>
      this.#lists.value
        ? this.deps.log.warn('revocation list refresh failed, keeping the previous ones', facts)
        : this.deps.log.error('no revocation list yet, withholding roots from proxies', facts),
    );
    this.#tellAge();
  }

  /** What there is to say about the age of the lists in use. */
  #age(): AgentError | undefined {
    const set = this.#lists.value;
    const now = this.deps.clock.now();
    if (!set || now < lateAt(set)) return undefined;
    const over = now >= set.nextUpdateAt;
    const what = over ? 'were due at' : 'are still not there; they are due at';
    return new AgentError(
      'ERR_CA_UNAVAILABLE',
      `${FIELD} ${this.reader.place}: newer lists ${what} ${iso(set.nextUpdateAt)}`,
      {
        retry: 'soon',
        hint: over
          ? 'proxies refuse every peer until newer lists arrive'
          : 'proxies refuse every peer from then on',
        cause: this.#problem,
      },
    );
  }

  #tellAge(): void {
    const age = this.#age();
    if (age === undefined) return;
    const over = this.deps.clock.now() >= this.#lists.value!.nextUpdateAt;
    this.#complain(age.message, () =>
      over
        ? this.deps.log.error('revocation lists expired, proxies refuse every peer', {
            cause: age,
          })
        : this.deps.log.warn('revocation lists expire soon', { cause: age }),
    );
  }

  #nextAlarmAt(): number {
    const set = this.#lists.value;
    const now = this.deps.clock.now();
    return set
      ? ([lateAt(set), set.nextUpdateAt].find((at) => at > now) ?? Number.POSITIVE_INFINITY)
      : Number.POSITIVE_INFINITY;
  }

  #complain(what: string, tell: () => void): void {
    if (what !== this.#told && what !== '') tell();
    this.#told = what;
  }
}

const lateAt = (set: CrlSet) => set.thisUpdateAt + LATE * (set.nextUpdateAt - set.thisUpdateAt);
