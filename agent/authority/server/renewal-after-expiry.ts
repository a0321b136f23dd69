import { createHash, randomBytes } from 'node:crypto';
import type { Deps } from '../../base/deps';
import { iso } from '../../base/iso';
import { eachOf, inTurns } from '../../base/steps';
import type { Certificate } from '../../identity/certificate';
import { formatSpiffeId, type SpiffeId } from '../../identity/spiffe-id';
import { Batches } from '../store/batches';
import type { CaStore, ExpiredCertificate, IssuedEntry } from '../store/store';
import type { TokenClaim } from '../store/token-use';
import { type Redeemed, refuseCredential, StolenCredential } from './authenticator';

export interface RenewalAfterExpiryOptions {
  readonly store: Pick<CaStore, 'issued' | 'revocations' | 'redeemExpired' | 'giveBackExpired'>;
  /** How long ago a certificate may have ended, milliseconds. */
  readonly boundMs: number;
}

/** Callers come all at once after an outage; the register is read for so many together. */
const MAX_TOGETHER = 1_000;
const PER_STEP = 20_000;

interface Question {
  readonly about: readonly string[];
  readonly answer: (known: Known) => void;
}

/** What the store holds at the moment about what was asked together. */
interface Known {
  readonly entries: readonly IssuedEntry[];
  readonly revoked: ReadonlySet<string>;
}

/**
 * What lets a certificate that has ended prove its key for one renewal: it ended at most so long ago, it is in the register as it was issued,
 * none of its identity and key is newer, none has replaced it, it is not revoked, and nobody
 * has had that one renewal. All of that is read anew, since what is given here is given for good.
 */
export class RenewalAfterExpiry {
  readonly #questions: Batches<Question>;

  constructor(
    private readonly options: RenewalAfterExpiryOptions,
    private readonly deps: Pick<Deps, 'clock'>,
  ) {
    this.#questions = new Batches<Question>(MAX_TOGETHER, async (questions) => {
      const about = new Set(questions.flatMap((each) => each.about));
      const entries = await options.store.issued({ about }, 0);
      const revoked = new Set<string>();
      const all = await options.store.revocations(deps.clock.now());
      const look = eachOf(all, PER_STEP, ({ serial }) => about.has(serial) && revoked.add(serial));
      await inTurns(look);
      for (const { answer } of questions) answer({ entries, revoked });
    });
  }

  /** Until when a certificate is good for it, epoch milliseconds. */
  untilAt({ notAfterAt }: Pick<Certificate, 'notAfterAt'>): number {
    return notAfterAt + this.options.boundMs;
  }

  /**
   * Uses the one renewal up.
   *
   * @param nextKeySha256  Of the key that the next certificate is to be for.
   * @throws AgentError ERR_TOKEN where it has none left, or never had; ERR_CA_STATE where that is not known.
   */
  async redeem(leaf: Certificate, id: SpiffeId, nextKeySha256: string): Promise<Redeemed> {
    const { store } = this.options;
    const { serial } = leaf;
    const { entries, revoked } = await this.#known(leaf);
    if (revoked.has(serial)) throw refuse('that was revoked');
    assertNewest(entries, leaf, id, nextKeySha256);
    const expired: ExpiredCertificate = { serial, id, renewableUntilAt: this.untilAt(leaf) };
    const claim: TokenClaim = { keySha256: nextKeySha256, by: randomBytes(12).toString('hex') };
    const redemption = await store.redeemExpired(expired, claim, this.deps.clock.now());
    if (redemption.kind === 'refused')
      throw redemption.why === 'another key'
        ? stolen(serial)
        : refuse(`whose renewal is ${redemption.why}`);
    const again = redemption.kind === 'redeemed' ? redemption.again : 0;
    return {
      event: 'renewed-after-expiry',
      detail: {
        endedAt: iso(leaf.notAfterAt),
        ...(again > 0 && { again: String(again) }),
      },
      giveBack: () => store.giveBackExpired(expired, claim),
    };
  }

  #known(leaf: Certificate): Promise<Known> {
    return new Promise((answer, failed) => {
      void this.#questions.add({ about: [leaf.serial, keyOf(leaf)], answer }).catch(failed);
    });
  }
}

function assertNewest(
  entries: readonly IssuedEntry[],
  leaf: Certificate,
  id: SpiffeId,
  nextKeySha256: string,
): void {
  const [key, text] = [keyOf(leaf), formatSpiffeId(id)];
  const own = entries.find(({ serial }) => serial === leaf.serial);
  if (own?.keySha256 !== key || own.id !== text) throw refuse('that is not in the register');
  const isNewer = (each: IssuedEntry) =>
    each.keySha256 === key && each.id === text && each.issuedAt > own.issuedAt;
  if (entries.some(isNewer)) throw refuse('that is not the newest of its identity and key');
  // The one renewal itself is told by its own record, which knows whether the same key asks again.
  const isEarlier = (each: IssuedEntry) =>
    each.provenBy === leaf.serial &&
    each.keySha256 !== nextKeySha256 &&
    each.issuedAt < leaf.notAfterAt;
  if (entries.some(isEarlier)) throw refuse('that was replaced before it ended');
}

function keyOf({ publicKey }: Certificate): string {
  return createHash('sha256').update(publicKey.spkiDer).digest('hex');
}

function refuse(which: string) {
  return refuseCredential('client certificate', `must not be expired, nor one ${which}`);
}

function stolen(serial: string): StolenCredential {
  return new StolenCredential(
    'client-certificate-stolen',
    { serial },
    'client certificate: was renewed after its end, and is shown for another key: two machines hold its key',
    'find out who else has the key, unless the machine was set back to an older state; if in doubt: keyturn ca revoke SPIFFE-ID',
  );
}
