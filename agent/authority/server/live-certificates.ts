import type { Deps } from '../../base/deps';
import type { CaStore, IssuedReading } from '../store/store';
import { RefusedCall } from './status';

/** Processes that share a register, of which none knows what the others sign before it looks. */
const MAX_PROCESSES = 64;
/** An identity at its bound is looked at again after this long. */
const LOOK_MS = 5_000;
/** Identities that are remembered; the one that asked longest ago is forgotten. */
const MAX_KNOWN = 10_000;

interface Known {
  /** Live ones at the last look at the register, at most, and when that was. */
  readonly live: number;
  readonly lookedAt: number;
  /** Where that look ended. */
  readonly end?: IssuedReading['end'];
  /** Those that were under way here at that look, and since. */
  signed: number;
}

/**
 * Bounds how many certificates of one identity are live: valid, and not revoked. Whoever can have certificates at will would fill the
 * register, and after a revocation the list.
 *
 * The register is read seldom: the nearer the bound, the sooner, and then what came since the last time; whole only before a refusal.
 * Processes that share it go beyond the bound by no more than it.
 */
export class LiveCertificates {
  readonly #known = new Map<string, Known>();
  readonly #looking = new Map<string, Promise<Known>>();
  /** Certificates that are admitted, and may not be in the register yet. */
  readonly #underWay = new Map<string, number>();

  /** @param max  For each identity. */
  constructor(
    private readonly max: number,
    private readonly store: Pick<CaStore, 'issuedSince'>,
    private readonly isRevoked: (serial: string) => boolean,
    private readonly deps: Pick<Deps, 'clock'>,
  ) {}

  /**
   * Makes room for one more certificate.
   *
   * @returns  To be called once it is in the register, or will never be.
   * @throws RefusedCall RESOURCE_EXHAUSTED naming bound and flag; AgentError ERR_CA_STATE where the register cannot be read.
   */
  async admit(id: string): Promise<() => void> {
    const known = this.#recent(id) ?? (await this.#look(id));
    if (known.live + known.signed >= this.max) throw this.#refusal();
    known.signed += 1;
    this.#count(id, 1);
    return () => this.#count(id, -1);
  }

  #count(id: string, by: number): void {
    const count = (this.#underWay.get(id) ?? 0) + by;
    if (count > 0) this.#underWay.set(id, count);
    else this.#underWay.delete(id);
  }

  /** What is known, where it is enough to decide by. */
  #recent(id: string): Known | undefined {
    const known = this.#known.get(id) ?? { live: 0, lookedAt: Number.NEGATIVE_INFINITY, signed: 0 };
    // The order is that of use.
    this.#known.delete(id);
    this.#known.set(id, known);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= MAX_KNOWN) break;
      this.#known.delete(oldest);
    }
    const isFull = known.live + known.signed >= this.max;
    const isFresh = this.deps.clock.now() - known.lookedAt < LOOK_MS;
    if (isFull) return isFresh ? known : undefined;
    return known.signed < Math.floor((this.max - known.live) / MAX_PROCESSES) ? known : undefined;
  }

  #look(id: string): Promise<Known> {
    const looking = this.#looking.get(id) ?? this.#read(id).finally(() => this.#looking.delete(id));
    this.#looking.set(id, looking);
    return looking;
  }

  /** What was counted earlier may have ended: where that reaches the bound, all are counted anew. */
  async #read(id: string): Promise<Known> {
    const before = this.#known.get(id);
    if (before !== undefined && before.live + before.signed < this.max) {
      const known = await this.#readSince(id, before);
      if (known.live + known.signed < this.max) return known;
    }
    return this.#readSince(id);
  }

  async #readSince(id: string, before?: Known): Promise<Known> {
    const lookedAt = this.deps.clock.now();
    const { entries, isWhole, end } = await this.store.issuedSince({ id }, lookedAt, before?.end);
    const found = entries.filter(({ serial }) => !this.isRevoked(serial)).length;
    const live = isWhole ? found : before!.live + found;
    const known = { live, lookedAt, end, signed: this.#underWay.get(id) ?? 0 };
    this.#known.set(id, known);
    return known;
  }

  #refusal(): RefusedCall {
    const what = `the identity has ${this.max} live certificates, as many as --max-live-certificates-per-identity allows`;
    return new RefusedCall('RESOURCE_EXHAUSTED', what, {
      retry: 'slow',
      retryAfterMs: LOOK_MS,
      hint: 'let them live shorter (--max-ttl), revoke what is not used, or raise the bound',
    });
  }
}
