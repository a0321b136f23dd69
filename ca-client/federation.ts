import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { publishDir } from '../agent/base/atomic-dir';
import { backoffMs, DEFAULT_BACKOFF } from '../agent/base/backoff';
import type { Deps } from '../agent/base/deps';
import { AgentError, invalid } from '../agent/base/errors';
import { readSmallFile } from '../agent/base/read-file';
import { type Watched, WatchedSource } from '../agent/base/watched';
import { type FederatedBundles, parseSpiffeBundle, type SpiffeBundle } from '../agent/identity/spiffe-bundle';
import { readCaRoot } from './istio/ca-root';
import { isUrl, openPlace, type PlaceReader } from './place-reader';

/** The bundles of other trust domains, as they are renewed. */
export interface Federation {
  /** Every trust domain that was named; undefined for one whose bundle is not known yet. A bad answer leaves the last good one. */
  readonly bundles: Watched<FederatedBundles>;
  /** Why newer ones cannot be had, by trust domain; empty where all is well. */
  problems(): ReadonlyMap<string, AgentError>;
  close(): Promise<void>;
}

const FIELD = '--federated-bundle';
const MAX_BYTES = 1024 * 1024;
/** Where the bundle itself does not say, as the standard advises (SPIFFE Trust Domain and Bundle, section 6.1). */
const POLL_MS = 5 * 60_000;
const LEAST_POLL_MS = 5_000;
const MOST_POLL_MS = 24 * 3_600_000;
/** A file is watched; this is for what no watch tells of. */
const FILE_POLL_MS = 60_000;
const KEPT_DIR = 'federated';
const KEPT_FILE = 'bundle';

/**
 * Follows the bundle of each trust domain: a file, or a URL of `https` whose server the roots of this machine vouch for (the profile
 * `https_web` of SPIFFE Federation, section 5.2.1). What it reads is believed of that trust domain and of no other.
 *
 * @param places    Paths or URLs by trust domain.
 * @param stateDir  Keeps what a URL gave over restarts.
 * @throws          AgentError ERR_CONFIG for a URL of another kind, `http` of other machines among them: whoever can change a bundle on
 *                  its way can be anybody of that trust domain.
 */
export function followFederation(places: ReadonlyMap<string, string>, stateDir: string | undefined, deps: Deps): Federation {
  for (const [trustDomain, place] of places) assertTrusted(trustDomain, place);
  const bundles = new WatchedSource<FederatedBundles>(new Map([...places.keys()].map((trustDomain) => [trustDomain, undefined])));
  const followed = [...places].map(([trustDomain, place]) => {
    const reader = openPlace(place, { field: `${FIELD} ${trustDomain}`, maxBytes: MAX_BYTES, roots: machineRoots }, deps);
    const keptDir = stateDir === undefined || reader.path !== undefined ? undefined : join(stateDir, KEPT_DIR, keptName(trustDomain));
    const use = (bundle: SpiffeBundle) => bundles.set(new Map([...bundles.value, [trustDomain, bundle]]));
    return new FollowedBundle(trustDomain, reader, keptDir, use, deps);
  });
  return {
    bundles,
    problems: () => new Map(followed.flatMap((each) => (each.problem ? [[each.trustDomain, each.problem] as const] : []))),
    close: async () => {
      await Promise.all(followed.map((each) => each.close()));
    },
  };
}

function assertTrusted(trustDomain: string, place: string): void {
  if (!isUrl(place)) return;
  const url = URL.parse(place);
  const local = url !== null && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  if (url?.username || url?.password) throw invalid('ERR_CONFIG', `${FIELD} ${trustDomain}`, 'must not have a user in its URL');
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && local)) return;
  throw invalid('ERR_CONFIG', `${FIELD} ${trustDomain}`, 'must be a file or an https URL', {
    hint: 'whoever can change the bundle on its way can be anybody of that trust domain',
  });
}

/** Without them, those that Node.js brings. */
async function machineRoots(): Promise<Buffer | undefined> {
  return readCaRoot({ kind: 'system' }).then(
    ({ pem }) => pem,
    () => undefined,
  );
}

/** A trust domain may be called `..`, or be too long for a file. */
function keptName(trustDomain: string): string {
  return `${trustDomain.slice(0, 100)}-${createHash('sha256').update(trustDomain).digest('hex').slice(0, 16)}`;
}

class FollowedBundle {
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #wake = new AbortController();
  #current: SpiffeBundle | undefined;
  #bytes: Uint8Array | undefined;
  #problem: AgentError | undefined;
  #told = '';

  constructor(
    readonly trustDomain: string,
    private readonly reader: PlaceReader,
    private readonly keptDir: string | undefined,
    private readonly use: (bundle: SpiffeBundle) => void,
    private readonly deps: Deps,
  ) {
    this.#running = this.#run().catch((cause) => deps.log.error('a federated bundle is not followed', { trustDomain, cause }));
  }

  get problem(): AgentError | undefined {
    return this.#problem;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#wake.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, random } = this.deps;
    const { signal } = this.#stop;
    const watch = await this.reader.watch(() => this.#wake.abort());
    await this.#useKept();
    for (let failures = 0; !signal.aborted; ) {
      // Made anew before reading, so that a change during the read is not lost.
      this.#wake = new AbortController();
      failures = (await this.#look(signal)) ? 0 : failures + 1;
      if (signal.aborted) break;
      const waitMs = failures === 0 ? this.#pollMs() : Math.min(this.#pollMs(), backoffMs(failures, DEFAULT_BACKOFF, random));
      await clock.sleepUntil(clock.now() + waitMs, this.#wake.signal).catch(() => undefined);
    }
    await watch?.close();
  }

  #pollMs(): number {
    if (this.reader.path !== undefined) return FILE_POLL_MS;
    const hintMs = (this.#current?.refreshHintSeconds ?? 0) * 1_000;
    return hintMs === 0 ? POLL_MS : Math.min(Math.max(hintMs, LEAST_POLL_MS), MOST_POLL_MS);
  }

  /** Reads and judges once; whether there is nothing to be tried again soon. */
  async #look(signal: AbortSignal): Promise<boolean> {
    try {
      const bytes = await this.reader.read(signal);
      if (signal.aborted) return true;
      if (bytes !== undefined) {
        this.#take(bytes);
        await this.#keep(bytes);
      }
      if (this.#problem) this.deps.log.info('federated bundle is good again', this.#facts());
      this.#problem = undefined;
      this.#told = '';
      return true;
    } catch (caught) {
      if (!signal.aborted) this.#refused(AgentError.from(caught));
      return false;
    }
  }

  #take(bytes: Uint8Array): void {
    if (this.#bytes && Buffer.compare(this.#bytes, bytes) === 0) return;
    const bundle = parseSpiffeBundle(bytes, this.trustDomain, `${FIELD} ${this.trustDomain}`);
    this.#bytes = bytes;
    this.#current = bundle;
    const counts = { roots: bundle.roots?.rootsDer.length ?? 0, jwtKeys: bundle.jwtKeys.length };
    if (counts.roots + counts.jwtKeys > 0) this.deps.log.info('federated bundle in use', { ...this.#facts(), ...counts });
    else this.deps.log.warn('federated bundle is empty: nobody of that trust domain is believed any more', this.#facts());
    this.use(bundle);
  }

  /** What an earlier run had, before anybody is asked, who may take long to answer. */
  async #useKept(): Promise<void> {
    if (this.keptDir === undefined) return;
    const limits = { field: KEPT_FILE, code: 'ERR_CA_UNAVAILABLE', maxBytes: MAX_BYTES } as const;
    const bytes = await readSmallFile(join(this.keptDir, KEPT_FILE), limits).catch(() => undefined);
    try {
      if (bytes && !this.#stop.signal.aborted) this.#take(bytes);
    } catch (cause) {
      this.deps.log.warn('kept federated bundle discarded', { ...this.#facts(), cause });
    }
  }

  async #keep(bytes: Uint8Array): Promise<void> {
    if (this.keptDir === undefined) return;
    await publishDir(this.keptDir, [{ name: KEPT_FILE, bytes: Buffer.from(bytes), mode: 0o600 }]).catch((cause) =>
      this.deps.log.warn('federated bundle is not kept for the next start', { ...this.#facts(), cause }),
    );
  }

  #refused(error: AgentError): void {
    this.#problem = error;
    this.deps.metrics.record('federated_bundle_failures_total', {});
    if (error.message === this.#told) return;
    this.#told = error.message;
    const facts = { ...this.#facts(), cause: error };
    if (this.#current) this.deps.log.warn('federated bundle cannot be renewed, the last good one stays in use', facts);
    else this.deps.log.warn('no federated bundle yet, so nobody of that trust domain is believed', facts);
  }

  #facts() {
    return { trustDomain: this.trustDomain, place: this.reader.place };
  }
}
