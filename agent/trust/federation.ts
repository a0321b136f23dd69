import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { publishDir } from '../base/atomic-dir';
import type { Deps } from '../base/deps';
import type { AgentError } from '../base/errors';
import type { Lease } from '../base/pool';
import { readSmallFile } from '../base/read-file';
import { type Watched, WatchedSource } from '../base/watched';
import {
  type FederatedBundles,
  parseSpiffeBundle,
  type SpiffeBundle,
} from '../identity/spiffe-bundle';
import { assertTrusted, FIELD, type FollowedBundle, MAX_BYTES } from './followed-bundle';
import { isUrl } from './place-reader';

/** The bundles of other trust domains, as they are renewed. */
export interface Federation {
  /** Every trust domain that was named; undefined for one whose bundle is not known yet. A bad answer leaves the last good one. */
  readonly bundles: Watched<FederatedBundles>;
  /** Why newer ones cannot be had, by trust domain; empty where all is well. */
  problems(): ReadonlyMap<string, AgentError>;
  close(): Promise<void>;
}

/** The bundle of a trust domain at a place, followed once for all who ask for it. */
export type LendBundle = (trustDomain: string, place: string) => Promise<Lease<FollowedBundle>>;

const KEPT_DIR = 'federated';
const KEPT_FILE = 'bundle';

/**
 * Believes the bundle of each trust domain. What is read is believed of that trust domain and of no other.
 *
 * @param places    Paths or URLs by trust domain.
 * @param stateDir  Keeps what a URL gave over restarts: of this workload alone, since others may be able to write there.
 * @throws          AgentError ERR_CONFIG for a URL that is not to be trusted.
 */
export function followFederation(
  places: ReadonlyMap<string, string>,
  stateDir: string | undefined,
  lend: LendBundle,
  deps: Deps,
): Federation {
  for (const [trustDomain, place] of places) assertTrusted(trustDomain, place);
  const bundles = new WatchedSource<FederatedBundles>(
    new Map([...places.keys()].map((trustDomain) => [trustDomain, undefined])),
  );
  const believed = [...places].map(([trustDomain, place]) => {
    const keptDir =
      stateDir === undefined || !isUrl(place)
        ? undefined
        : join(stateDir, KEPT_DIR, keptName(trustDomain));
    const use = (bundle: SpiffeBundle) =>
      bundles.set(new Map([...bundles.value, [trustDomain, bundle]]));
    return new BelievedBundle(trustDomain, lend(trustDomain, place), keptDir, use, deps);
  });
  return {
    bundles,
    problems: () =>
      new Map(
        believed.flatMap((each) =>
          each.problem ? [[each.trustDomain, each.problem] as const] : [],
        ),
      ),
    close: async () => {
      await Promise.all(believed.map((each) => each.close()));
    },
  };
}

/** A trust domain may be called `..`, or be too long for a file. */
function keptName(trustDomain: string): string {
  return `${trustDomain.slice(0, 100)}-${createHash('sha256').update(trustDomain).digest('hex').slice(0, 16)}`;
}

/** What one workload believes of a trust domain: what it kept of an earlier run, then what is followed for all. */
class BelievedBundle {
  readonly #starting: Promise<void>;
  #lease: Lease<FollowedBundle> | undefined;
  /** What lies in the directory. */
  #kept: Uint8Array | undefined;
  #unsubscribe: () => void = () => undefined;
  #keeping: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(
    readonly trustDomain: string,
    lending: Promise<Lease<FollowedBundle>>,
    private readonly keptDir: string | undefined,
    private readonly use: (bundle: SpiffeBundle) => void,
    private readonly deps: Deps,
  ) {
    this.#starting = this.#start(lending).catch((cause) =>
      deps.log.error('federated bundle watch failed', { trustDomain, cause }),
    );
  }

  get problem(): AgentError | undefined {
    return this.#lease?.value.problem();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#starting;
    this.#unsubscribe();
    await this.#keeping;
    await this.#lease?.release();
  }

  async #start(lending: Promise<Lease<FollowedBundle>>): Promise<void> {
    const kept = this.#readKept();
    this.#lease = await lending;
    const { held } = this.#lease.value;
    this.#kept = await kept;
    if (this.#closed) return;
    // Asking may take long; what was kept is at hand.
    if (this.#kept && !held.value) this.#useKept(this.#kept);
    this.#unsubscribe = held.subscribe((now) => {
      if (!now) return;
      this.use(now.bundle);
      this.#keeping = this.#keeping.then(() => this.#keep(now.bytes));
    });
  }

  async #readKept(): Promise<Uint8Array | undefined> {
    if (this.keptDir === undefined) return undefined;
    const limits = { field: KEPT_FILE, code: 'ERR_CA_UNAVAILABLE', maxBytes: MAX_BYTES } as const;
    return readSmallFile(join(this.keptDir, KEPT_FILE), limits).catch(() => undefined);
  }

  #useKept(bytes: Uint8Array): void {
    const { trustDomain, keptDir } = this;
    try {
      this.use(parseSpiffeBundle(bytes, trustDomain, `${FIELD} ${trustDomain}`));
      this.deps.log.info('federated bundle in use', { trustDomain, place: keptDir });
    } catch (cause) {
      this.deps.log.warn('stored federated bundle discarded', {
        trustDomain,
        place: keptDir,
        cause,
      });
    }
  }

  async #keep(bytes: Uint8Array): Promise<void> {
    const { trustDomain, keptDir } = this;
    if (keptDir === undefined || (this.#kept && Buffer.compare(this.#kept, bytes) === 0)) return;
    try {
      await publishDir(keptDir, [{ name: KEPT_FILE, bytes: Buffer.from(bytes), mode: 0o600 }]);
      this.#kept = bytes;
    } catch (cause) {
      this.deps.log.warn('storing the federated bundle failed', {
        trustDomain,
        place: keptDir,
        cause,
      });
    }
  }
}
