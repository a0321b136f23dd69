import { DEFAULT_BACKOFF, FailureRun } from '../base/backoff';
import type { CaNews } from '../base/ca-news';
import type { ClockJump } from '../base/clock';
import type { Deps } from '../base/deps';
import { formatDuration } from '../base/duration';
import { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import type { Watched } from '../base/watched';
import type { CertSource, CertState, PlanStep, SourceDescription } from '../identity/cert-state';
import { SKEW_TOLERANCE_MS } from '../identity/chain';
import { formatSpiffeId } from '../identity/spiffe-id';
import { revalidateSvid, type Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';
import { CertStatePublisher } from './cert-state-publisher';
import { type IssueOptions, Issuer } from './issue';
import {
  MIN_INTERVAL_MS,
  planRenewal,
  planRetry,
  planTimeout,
  type RenewalPlan,
  type RotationPolicy,
} from './rotation';

export interface KeeperOptions extends IssueOptions {
  readonly rotation: RotationPolicy;
  /** How long the CA may take to answer, milliseconds, before patience grows; default 60 s. */
  readonly caTimeoutMs?: number | undefined;
  /** A certificate from before a restart, proven again: served at once, renewed when due. An expired one is only told of. */
  readonly warmStart: Svid | undefined;
  /** Of the others in this process who ask the same CA. */
  readonly news?: CaNews | undefined;
}

const DEFAULT_CA_TIMEOUT_MS = 60_000;

/**
 * Keeps one identity certified, whether or not anybody listens: renews in time, tries again for ever, never takes a valid certificate away.
 * One attempt at a time; whoever asks while it runs joins it. The first attempt begins at once.
 */
export function createKeeper(options: KeeperOptions, deps: Deps): CertSource {
  return new Keeper(options, deps);
}

class Keeper implements CertSource {
  readonly #stop = new AbortController();
  readonly #offer: CertStatePublisher;
  readonly #issuer: Issuer;
  readonly #unsubscribe: readonly (() => void)[];
  readonly #loop: Promise<void>;
  #wait = new AbortController();
  #inFlight: { readonly since: number; readonly svid: Promise<Svid> } | undefined;
  /** When the attempt in flight is given up; undefined while it waits for its turn, and without one. */
  #givenUpAt: number | undefined;
  /** Attempts in a row that ended for want of an answer. */
  #unanswered = 0;
  #lastAttemptAt: number | undefined;
  #plan: RenewalPlan | undefined;
  /** The jitter of the certificate in service: drawn once, so that planning again does not move it. */
  #draw = 0;
  /** How far the wall clock has jumped since the plan was made. */
  #jumpedMs = 0;
  #failure: { readonly error: AgentError; readonly retryAt: number } | undefined;
  #lastError: { readonly error: AgentError; readonly at: number } | undefined;
  /** Why the next attempt must not wait for its time. */
  #urgent: string | undefined;
  /** What the attempt in flight may lack has come meanwhile: where it fails, another follows at once. */
  #mended = false;
  #failures = 0;
  /** Those failures as they count for the next wait. */
  readonly #inARow = new FailureRun();
  /** When the CA's answer to another last ended a wait. */
  #encouragedAt: number | undefined;
  #attempts = 0;
  #renewals = 0;

  constructor(
    private readonly options: KeeperOptions,
    private readonly deps: Deps,
  ) {
    const { ca, warmStart } = options;
    this.#offer = new CertStatePublisher(ca.trust.value, 'ERR_CA_UNAVAILABLE', deps);
    this.#issuer = new Issuer(options, deps);
    if (warmStart && deps.clock.now() >= warmStart.notAfterAt) {
      this.#offer.accept(warmStart, ca.trust.value ?? warmStart.bundle, undefined);
    } else if (warmStart) {
      this.#accept(warmStart, 'stored certificate in service');
      if (warmStart.key.algorithm !== options.keyAlgorithm)
        this.#urgent = 'another key algorithm is wanted';
    }
    this.#unsubscribe = [
      ca.trust.subscribe((bundle) => bundle && this.#trust(bundle)),
      ca.onChange((what) =>
        what === 'signer' ? this.#hurry('another signer') : this.#credential(),
      ),
      deps.clock.onJump((jump) => this.#jumped(jump)),
      ...(options.news ? [options.news.onAnswer(() => this.#encouraged())] : []),
    ];
    this.#loop = this.#run();
  }

  get state(): Watched<CertState> {
    return this.#offer.state;
  }

  async renewNow(reason: string): Promise<Svid> {
    if (this.#stop.signal.aborted)
      throw new AgentError('ERR_ABORTED', 'renew: the agent is closing');
    const attempt = this.#inFlight?.svid ?? this.#begin(reason);
    this.#look();
    return attempt;
  }

  describe(): SourceDescription {
    return {
      source: this.options.ca.name,
      failures: this.#failures,
      attempts: this.#attempts,
      renewals: this.#renewals,
      attemptSince: this.#inFlight?.since,
      attemptUntil: this.#givenUpAt,
      dueAt: this.#dueAt(),
      lastError: this.#lastError?.error,
      lastErrorAt: this.#lastError?.at,
      problem: this.options.ca.problem(),
      plan: this.#steps(),
    };
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#look();
    for (const stop of this.#unsubscribe) stop();
    await this.#loop;
    await this.#offer.close();
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#untilDue();
      if (this.#stop.signal.aborted) break;
      await (this.#inFlight?.svid ?? this.#begin('due')).catch(() => undefined);
    }
    await this.#inFlight?.svid.catch(() => undefined);
  }

  /** Returns when an attempt is due or in flight, or the keeper stops. */
  async #untilDue(): Promise<void> {
    const { clock } = this.deps;
    while (!this.#inFlight && !this.#stop.signal.aborted) {
      const dueAt = this.#dueAt();
      if (dueAt <= clock.now()) return;
      this.#wait = new AbortController();
      try {
        // It may end early, where the wall clock was set back; as much time has passed as there was to wait, and that counts.
        await clock.sleepUntil(dueAt, this.#wait.signal);
        return;
      } catch {
        // Woken by `#look` or `close`: the loop's condition and `#dueAt` know why.
      }
    }
  }

  #dueAt(): number {
    const now = this.deps.clock.now();
    const wantedAt =
      this.#urgent !== undefined ? now : (this.#failure?.retryAt ?? this.#renewAt() ?? now);
    // Against `now` too: after a wall clock was set back, the last attempt seems to lie in the future.
    const floorAt =
      this.#lastAttemptAt === undefined
        ? now
        : Math.min(this.#lastAttemptAt, now) + MIN_INTERVAL_MS;
    return Math.max(wantedAt, floorAt);
  }

  /** A wall clock that was set back must not postpone a renewal: the certificate may well be ageing at its old pace elsewhere. */
  #renewAt(): number | undefined {
    return this.#plan && this.#plan.renewAt + Math.min(this.#jumpedMs, 0);
  }

  /** Ends the current wait, so that the loop looks again at what is due. */
  #look(): void {
    this.#wait.abort();
  }

  #begin(reason: string): Promise<Svid> {
    const because =
      this.#urgent ?? (reason === 'due' && !this.#offer.svid ? 'first certificate' : reason);
    this.#urgent = undefined;
    this.#mended = false;
    this.#attempts += 1;
    this.#lastAttemptAt = this.deps.clock.now();
    if (this.#failures > 0)
      this.deps.metrics.record('ca_retries_total', { ca: this.options.ca.name });
    const svid = this.#attempt(because).finally(() => {
      this.#inFlight = undefined;
      this.#givenUpAt = undefined;
    });
    void svid.catch(() => undefined);
    this.#inFlight = { since: this.#lastAttemptAt, svid };
    return svid;
  }

  async #attempt(reason: string): Promise<Svid> {
    try {
      const svid = await this.#onceBetter(
        await this.#issuer.issue(
          () => this.#timeout(),
          (ms) => this.#begun(ms),
          this.#stop.signal,
        ),
      );
      this.deps.metrics.record('renewals_total', { outcome: 'ok' });
      this.#renewals += 1;
      this.#accept(svid, this.#offer.svid ? 'certificate renewed' : 'certificate issued', reason);
      this.options.news?.answered();
      return svid;
    } catch (caught) {
      const error = AgentError.from(caught);
      if (!this.#stop.signal.aborted) this.#fail(error);
      throw error;
    }
  }

  #timeout() {
    const now = this.deps.clock.now();
    const timeoutMs = this.options.caTimeoutMs ?? DEFAULT_CA_TIMEOUT_MS;
    return planTimeout({
      timeoutMs,
      unanswered: this.#unanswered,
      now,
      notAfterAt: this.#offer.svid?.notAfterAt,
    });
  }

  #begun(ms: number): void {
    this.#givenUpAt = this.deps.clock.now() + ms;
  }

  /**
   * A CA whose clock is ahead issues certificates that every peer refuses for a while: what is in service stays until the new one begins, or
   * until a second before it ends itself.
   */
  async #onceBetter(issued: Svid): Promise<Svid> {
    const { clock, log } = this.deps;
    const begins = () =>
      Math.min(issued.notBeforeAt, (this.#offer.svid?.notAfterAt ?? 0) - MIN_INTERVAL_MS);
    if (clock.now() >= begins()) return issued;
    this.#givenUpAt = begins();
    log.info('certificate not yet valid, serving the previous one', {
      serial: issued.serial,
      notBefore: iso(issued.notBeforeAt),
    });
    // A sleep may end early where the wall clock was set back.
    while (clock.now() < begins()) await clock.sleepUntil(begins(), this.#stop.signal);
    return revalidateSvid(issued, this.options.ca.trust.value ?? issued.bundle, clock.now());
  }

  #accept(svid: Svid, event: string, reason?: string): void {
    this.#failure = undefined;
    this.#failures = 0;
    this.#inARow.end();
    this.#unanswered = 0;
    this.#draw = this.deps.random();
    this.#jumpedMs = 0;
    this.#plan = this.#planFor(svid);
    this.#offer.accept(svid, this.options.ca.trust.value ?? svid.bundle, this.#plan.renewAt);
    this.deps.log.info(event, {
      id: formatSpiffeId(this.options.id),
      serial: svid.serial,
      notAfter: iso(svid.notAfterAt),
      renewAt: iso(this.#plan.renewAt),
      source: svid.source,
      reason,
      ...(svid.warnings.length > 0 && { warnings: svid.warnings }),
    });
  }

  #planFor(svid: Svid): RenewalPlan {
    return planRenewal(
      svid,
      this.options.rotation,
      this.#draw,
      this.options.ca.credentialExpiresAt(),
    );
  }

  #fail(error: AgentError): void {
    const now = this.deps.clock.now();
    this.#failures += 1;
    this.#unanswered = error.code === 'ERR_TIMEOUT' ? this.#unanswered + 1 : 0;
    const inService = this.#offer.svid;
    const failures = this.#inARow.failed(error);
    const planned = planRetry(
      { failures, error, now, notAfterAt: inService?.notAfterAt },
      this.deps.random,
    );
    // So an outage of a short-lived certificate, whose end hurries us on, does not cost the longest wait once that has expired.
    if (planned.isCutShort) this.#inARow.cutShort();
    const retryAt =
      this.#mended || this.#urgent !== undefined ? now + MIN_INTERVAL_MS : planned.retryAt;
    this.#failAgainAt(error, retryAt);
    this.#lastError = { error, at: now };
    this.deps.metrics.record('renewals_total', { outcome: error.code });
    const facts = {
      attempt: this.#failures,
      retryInSeconds: Math.round((retryAt - now) / 100) / 10,
      cause: error,
    };
    if (!inService) this.deps.log.warn('no certificate yet, retrying', facts);
    else if (now < inService.notAfterAt)
      this.deps.log.warn('renewal failed, serving the previous certificate', facts);
    else this.deps.log.error('renewal failed and the previous certificate has expired', facts);
  }

  #failAgainAt(error: AgentError, retryAt: number): void {
    this.#failure = { error, retryAt };
    this.#offer.fail(error, retryAt);
  }

  /** Renew as soon as the floor allows; while an attempt runs, once more after it. */
  #hurry(reason: string): void {
    this.#urgent = reason;
    this.#look();
  }

  /** What an attempt needs has changed. One in flight may have it already, so its success is enough: one event, one certificate. */
  #tryAnew(reason: string): void {
    this.#inARow.end();
    if (this.#inFlight) this.#mended = true;
    else this.#hurry(reason);
  }

  /**
   * The CA has answered another: what it could not do for us it may do now. Not where it is our own credential that is wrong, nor before
   * the time that the CA has asked for; and one that is refused all the same goes on waiting as before.
   */
  #encouraged(): void {
    if (!this.#failure || this.#inFlight || !mayBeOver(this.#failure.error)) return;
    const now = this.deps.clock.now();
    if (
      this.#encouragedAt !== undefined &&
      Math.abs(now - this.#encouragedAt) < DEFAULT_BACKOFF.maxMs
    )
      return;
    this.#encouragedAt = now;
    this.#hurry('the CA answers other workloads');
  }

  #credential(): void {
    if (this.#inFlight || this.#failure) this.#tryAnew('credential changed');
    const { svid } = this.#offer;
    if (!svid) return;
    this.#plan = this.#planFor(svid);
    this.#offer.replan(this.#renewAt());
    this.#look();
  }

  #trust(bundle: TrustBundle): void {
    if (bundle.version === this.#offer.bundle?.version) return;
    const { svid } = this.#offer;
    this.deps.log.info('trust bundle changed', {
      version: bundle.version,
      roots: bundle.rootsDer.length,
    });
    if (!svid) {
      this.#offer.trust(bundle);
      if (this.#inFlight || this.#failure) this.#tryAnew('trust bundle received');
      return;
    }
    try {
      this.#revalidated(revalidateSvid(svid, bundle, this.deps.clock.now()), svid.notAfterAt);
    } catch (caught) {
      this.#offer.trust(bundle);
      this.deps.log.warn('certificate does not verify to the new trust bundle, renewing', {
        serial: svid.serial,
        cause: caught,
      });
      this.#tryAnew('the trust bundle no longer covers the certificate');
    }
  }

  /** By the new bundle another path may be the one that ends last: then the plan follows. */
  #revalidated(svid: Svid, endedAt: number): void {
    if (svid.notAfterAt === endedAt) {
      this.#offer.trust(svid.bundle);
      return;
    }
    this.#plan = this.#planFor(svid);
    const renewAt = this.#renewAt() ?? this.#plan.renewAt;
    this.#offer.revalidated(svid, svid.bundle, renewAt);
    const facts = { serial: svid.serial, notAfter: iso(svid.notAfterAt), renewAt: iso(renewAt) };
    this.deps.log.info('trust bundle changed the expiry of the certificate', facts);
    this.#look();
  }

  #jumped({ byMs }: ClockJump): void {
    const now = this.deps.clock.now();
    this.deps.log.warn('wall clock jumped, or the machine was suspended', {
      bySeconds: Math.round(byMs / 1_000),
    });
    this.#jumpedMs += byMs;
    if (this.#failure && byMs < 0)
      this.#failAgainAt(this.#failure.error, this.#failure.retryAt + byMs);
    this.#offer.replan(this.#renewAt());
    const { svid } = this.#offer;
    if (svid && now < svid.notBeforeAt - SKEW_TOLERANCE_MS) {
      this.deps.log.warn('certificate not yet valid by this clock, renewing', {
        serial: svid.serial,
        notBefore: iso(svid.notBeforeAt),
      });
      this.#hurry('the clock was set back to before the certificate');
    }
    this.#look();
  }

  #steps(): readonly PlanStep[] {
    const steps: PlanStep[] = [];
    if (this.#inFlight)
      steps.push({
        rule: 'attempt in flight',
        at: this.#inFlight.since,
        detail: 'its outcome decides what is next',
      });
    else if (this.#urgent !== undefined)
      steps.push({ rule: 'renewal without delay', at: this.#dueAt(), detail: this.#urgent });
    if (this.#failure) {
      const detail = `failures in a row: ${this.#failures}; the last: ${this.#failure.error.message}`;
      steps.push({ rule: 'retry', at: this.#failure.retryAt, detail });
    }
    if (this.#plan && this.#jumpedMs < 0) {
      const detail = `the wall clock was set back by ${formatDuration(-this.#jumpedMs)} since the plan was made`;
      steps.push({ rule: 'renewal at its age, not at its hour', at: this.#renewAt(), detail });
    }
    return [...steps, ...(this.#plan?.steps ?? [])];
  }
}

/** Whether a failure is an outage, or looks like one. */
function mayBeOver({ code, retry, retryAfterMs }: AgentError): boolean {
  return (
    retryAfterMs === undefined &&
    (code === 'ERR_CA_UNAVAILABLE' || code === 'ERR_TIMEOUT' || retry === 'unsure')
  );
}
