import type { Deps } from '../base/deps';
import { AgentError, type ErrorCode } from '../base/errors';
import { iso } from '../base/iso';
import { type Watched, WatchedSource } from '../base/watched';
import type { CertState } from '../identity/cert-state';
import { revalidateSvid, type Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';

/** Everything that decides what can be offered, but for the time. */
interface Facts {
  readonly svid: Svid | undefined;
  readonly bundle: TrustBundle | undefined;
  readonly renewAt: number | undefined;
  readonly failure: { readonly error: AgentError; readonly retryAt: number } | undefined;
}

/** What may be offered at `now`: a certificate as long as it is valid, whatever else goes wrong. `code` is for expiry without a failure. */
function stateOf(facts: Facts, code: ErrorCode, now: number): CertState {
  const { svid, renewAt, failure } = facts;
  const bundle = facts.bundle ?? svid?.bundle;
  if (svid && bundle && now < svid.notAfterAt) {
    return failure
      ? { kind: 'overdue', svid, bundle, ...failure }
      : { kind: 'current', svid, bundle, renewAt };
  }
  if (svid)
    return {
      kind: 'unavailable',
      bundle,
      expired: svid,
      ...(failure ?? { error: expiredError(svid, code), retryAt: now }),
    };
  return failure
    ? { kind: 'unavailable', bundle, expired: undefined, ...failure }
    : { kind: 'starting', bundle };
}

function expiredError(svid: Svid, code: ErrorCode): AgentError {
  const when = iso(svid.notAfterAt);
  return new AgentError(
    code,
    `certificate ${svid.serial}: expired at ${when} before it could be replaced`,
    { retry: 'soon' },
  );
}

/**
 * What a source offers, published as it changes: a new certificate, a new bundle, a failure, and the moment of expiry, also when the wall
 * clock jumps over it. Nothing is taken away before its replacement is accepted.
 */
export class CertStatePublisher {
  readonly #state: WatchedSource<CertState>;
  readonly #stopJumps: () => void;
  #facts: Facts;
  #expiry = new AbortController();
  #watching: Promise<void> = Promise.resolve();
  #expiredSerial: string | undefined;

  /** @param expiryCode  The error's code where a certificate expires although nothing has failed yet. */
  constructor(
    bundle: TrustBundle | undefined,
    private readonly expiryCode: ErrorCode,
    private readonly deps: Deps,
  ) {
    this.#facts = { svid: undefined, bundle, renewAt: undefined, failure: undefined };
    this.#state = new WatchedSource(stateOf(this.#facts, expiryCode, deps.clock.now()));
    this.#stopJumps = deps.clock.onJump(() => {
      // First: where the clock jumped over the end of one path, another may hold.
      this.#watchExpiry();
      this.#publish();
    });
  }

  get state(): Watched<CertState> {
    return this.#state;
  }

  /** The newest certificate that was accepted, expired or not. */
  get svid(): Svid | undefined {
    return this.#facts.svid;
  }

  /** The newest bundle. */
  get bundle(): TrustBundle | undefined {
    return this.#facts.bundle ?? this.#facts.svid?.bundle;
  }

  accept(svid: Svid, bundle: TrustBundle, renewAt: number | undefined): void {
    this.#facts = { svid, bundle, renewAt, failure: undefined };
    this.#publish();
    this.#watchExpiry();
  }

  /** Another instant for the next renewal of the same certificate. */
  replan(renewAt: number | undefined): void {
    this.#facts = { ...this.#facts, renewAt };
    this.#publish();
  }

  /** The same certificate, validated again: by another bundle, or with another end. A failure stands. */
  revalidated(svid: Svid, bundle: TrustBundle, renewAt: number | undefined): void {
    this.#facts = { ...this.#facts, svid, bundle, renewAt };
    this.#publish();
    this.#watchExpiry();
  }

  trust(bundle: TrustBundle): void {
    this.#facts = { ...this.#facts, bundle };
    this.#publish();
  }

  fail(error: AgentError, retryAt: number): void {
    this.#facts = { ...this.#facts, failure: { error, retryAt } };
    this.#publish();
  }

  /** Ends the watch for expiry; the state stays readable. */
  async close(): Promise<void> {
    this.#stopJumps();
    this.#expiry.abort();
    await this.#watching;
  }

  #publish(): void {
    const next = stateOf(this.#facts, this.expiryCode, this.deps.clock.now());
    this.#logExpiry(next);
    if (!sameState(next, this.#state.value)) this.#state.set(next);
  }

  #logExpiry(next: CertState): void {
    const expired = next.kind === 'unavailable' ? next.expired : undefined;
    if (expired && expired.serial !== this.#expiredSerial) {
      this.deps.log.error('certificate expired', {
        serial: expired.serial,
        notAfter: iso(expired.notAfterAt),
      });
    }
    this.#expiredSerial = expired?.serial;
  }

  #watchExpiry(): void {
    this.#expiry.abort();
    const { svid } = this.#facts;
    if (!svid) return;
    this.#expiry = new AbortController();
    const previous = this.#watching;
    const watching = this.#untilExpired(svid, this.#expiry.signal);
    this.#watching = Promise.all([previous, watching]).then(() => undefined);
  }

  /** The certificate on a path that outlasts the one that has just ended, e.g. to a root that was not valid yet before; else undefined. */
  #onAnotherPath(svid: Svid): Svid | undefined {
    try {
      const next = revalidateSvid(svid, this.bundle ?? svid.bundle, this.deps.clock.now());
      return next.notAfterAt > svid.notAfterAt ? next : undefined;
    } catch {
      return undefined;
    }
  }

  async #untilExpired(svid: Svid, signal: AbortSignal): Promise<void> {
    try {
      // A sleep may end early where the wall clock was set back.
      while (this.deps.clock.now() < svid.notAfterAt)
        await this.deps.clock.sleepUntil(svid.notAfterAt, signal);
      const lasting = this.#onAnotherPath(svid);
      if (!lasting) {
        this.#publish();
        return;
      }
      const facts = { serial: svid.serial, notAfter: iso(lasting.notAfterAt) };
      this.deps.log.info('certificate path expired, using another path', facts);
      this.revalidated(lasting, lasting.bundle, this.#facts.renewAt);
    } catch (caught) {
      if (!signal.aborted) throw caught;
    }
  }
}

function sameState(a: CertState, b: CertState): boolean {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]) as Set<keyof CertState>;
  return [...names].every((name) => a[name] === b[name]);
}
