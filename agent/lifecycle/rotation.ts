import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import { formatDuration } from '../base/duration';
import type { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import type { Random } from '../base/random';
import type { PlanStep } from '../identity/cert-state';

/** How far into its life a certificate is replaced. */
export interface RotationPolicy {
  /** In (0, 1), default 0.5. */
  readonly ratio: number;
  /** In [0, ratio), default 0.05: the width of the window, before `ratio`, into which a fleet that started together is spread. */
  readonly jitterRatio: number;
}

/** What of a certificate decides its renewal: members of `Svid`, epoch milliseconds. */
export interface Validity {
  readonly notBeforeAt: number;
  /** The chain's earliest. */
  readonly notAfterAt: number;
  readonly receivedAt: number;
}

/** When to renew, and why, most decisive first. */
export interface RenewalPlan {
  readonly renewAt: number;
  readonly steps: readonly PlanStep[];
}

/** Never more than one signing request a second on our own account, whatever validity was issued. */
export const MIN_INTERVAL_MS = 1_000;
/** A credential is used up to nine tenths of its life: kubelets replace a token at eight tenths, and the new one moves the plan again. */
const CREDENTIAL_RATIO = 0.9;
/** Of a long-lived credential an hour is margin enough for retries. */
const CREDENTIAL_MARGIN_MS = 3_600_000;
/** How long an attempt may take at most while a valid certificate is in service, however long the setting has been doubled. */
const MAX_TIMEOUT_MS = 600_000;
/** However long a server asks us to stay away. */
const RETRY_HINT_CAP_MS = 300_000;

/**
 * When to renew: `ratio` of the way through the usable life, moved earlier by up to `jitterRatio` of it; sooner when the credential that
 * the renewal needs would die first; never within a second of receipt. The usable life starts at notBefore or receipt, whichever is later:
 * authorities backdate notBefore, and a short certificate would be due at once.
 *
 * @param random               In [0, 1), drawn once per certificate, so that looking again does not move the plan.
 * @param credentialExpiresAt  Epoch milliseconds; undefined where no credential is needed. One that was dead at receipt is no reason.
 * @returns                    `renewAt` may be in the past: then renew now.
 * @see RFC 5280 section 4.1.2.5 for validity; docs/rotation.md for why half.
 */
export function planRenewal(
  cert: Validity,
  policy: RotationPolicy,
  random: number,
  credentialExpiresAt?: number,
): RenewalPlan {
  const fromAt = Math.max(cert.notBeforeAt, cert.receivedAt);
  const usableMs = Math.max(cert.notAfterAt - fromAt, 0);
  const jitterMs = usableMs * policy.jitterRatio * random;
  const byAge = step(
    'share of the usable validity',
    fromAt + usableMs * policy.ratio - jitterMs,
    `${percent(policy.ratio)} of ${formatDuration(usableMs)}, moved ${formatDuration(jitterMs)} earlier of at most ${formatDuration(usableMs * policy.jitterRatio)}`,
  );
  const byCredential = credentialStep(cert.receivedAt, credentialExpiresAt);
  const earlier = [byAge, ...(byCredential ? [byCredential] : [])].sort((a, b) => a.at - b.at);
  const floor = step(
    'one request a second',
    cert.receivedAt + MIN_INTERVAL_MS,
    'the validity that was issued asks for a faster pace',
  );
  const decisive = floor.at > earlier[0]!.at ? [floor, ...earlier] : earlier;
  const start = step(
    'usable validity starts',
    fromAt,
    fromAt === cert.receivedAt
      ? 'at receipt; notBefore lies earlier'
      : 'at notBefore, which lies after receipt',
  );
  const end = step('certificate expires', cert.notAfterAt, 'the earliest notAfter of its chain');
  return { renewAt: decisive[0]!.at, steps: [...decisive, start, end] };
}

function credentialStep(receivedAt: number, expiresAt: number | undefined) {
  if (expiresAt === undefined || expiresAt <= receivedAt) return undefined;
  const marginMs = Math.min(
    (expiresAt - receivedAt) * (1 - CREDENTIAL_RATIO),
    CREDENTIAL_MARGIN_MS,
  );
  return step(
    'credential for the next renewal',
    expiresAt - marginMs,
    `it expires at ${iso(expiresAt)}; ${formatDuration(marginMs)} are kept for retries`,
  );
}

/**
 * When to try again after a failure: 1, 2, 4 ... 45 s with 20 % of jitter, at the cap at once for errors that time alone will not mend, and
 * for those that may be of that sort (`unsure`) while a certificate is in service; never more than a quarter of what remains of the certificate in service, so that more tries fit before it expires; not before the
 * server's own hint, but no longer for its sake than five minutes or half of what remains.
 *
 * @param failures    Failures in a row of this kind (`FailureRun`), 1 or more.
 * @param notAfterAt  Of the certificate in service; undefined when there is none.
 * @returns           `retryAt`: epoch milliseconds, at least a second from `now`; there is always a next try. `isCutShort`: the end of the
 *                    certificate has shortened the wait, so it is none of those that double (`FailureRun.cutShort`).
 */
export function planRetry(
  failure: {
    readonly failures: number;
    readonly error: Pick<AgentError, 'retry' | 'retryAfterMs'>;
    readonly now: number;
    readonly notAfterAt: number | undefined;
  },
  random: Random,
): { readonly retryAt: number; readonly isCutShort: boolean } {
  const { error, now } = failure;
  const inService = failure.notAfterAt !== undefined && failure.notAfterAt > now;
  const grows = error.retry === 'soon' || (error.retry === 'unsure' && !inService);
  const failures = grows ? failure.failures : Number.MAX_SAFE_INTEGER;
  const remainingMs = inService ? failure.notAfterAt - now : Number.POSITIVE_INFINITY;
  const backoff = backoffMs(failures, DEFAULT_BACKOFF, random);
  const ownMs = Math.min(backoff, remainingMs / 4);
  // Spread upward only: a fleet that was told the same number must not come back in the same second.
  const hintMs = Math.min(
    (error.retryAfterMs || 0) * (1 + DEFAULT_BACKOFF.jitterRatio * random()),
    RETRY_HINT_CAP_MS,
    remainingMs / 2,
  );
  return { retryAt: now + Math.max(ownMs, hintMs, MIN_INTERVAL_MS), isCutShort: ownMs < backoff };
}

/** How long the next attempt may take, and whether the certificate in service allows no more. */
export interface AttemptTimeout {
  readonly ms: number;
  /** How long the call that it makes stays open for the attempts after it: `ms` or longer. */
  readonly callMs: number;
  readonly limit: 'setting' | 'remaining life';
  /** How long its turn may be waited for before; undefined where nothing is in service, and waiting takes nothing away. */
  readonly turnMs: number | undefined;
}

/**
 * How long an attempt may take: what is set; with a valid certificate in service twice as long after each that was not answered, up to ten
 * minutes, but never more than a quarter of what remains of that certificate, so that other attempts fit before it ends. At least a second,
 * which is the pace of attempts anyway. Where what remains is the limit, the call outlives the attempt, up to half of what remains: a CA that
 * takes longer than the attempt is not asked again and again in vain, and one that has lost the call is asked anew in time.
 *
 * @param unanswered  Attempts in a row that ended for want of an answer.
 * @param notAfterAt  Of the certificate in service, epoch milliseconds; undefined where there is none.
 */
export function planTimeout(attempt: {
  readonly timeoutMs: number;
  readonly unanswered: number;
  readonly now: number;
  readonly notAfterAt: number | undefined;
}): AttemptTimeout {
  const { timeoutMs, unanswered, now, notAfterAt } = attempt;
  if (notAfterAt === undefined || notAfterAt <= now)
    return { ms: timeoutMs, callMs: timeoutMs, limit: 'setting', turnMs: undefined };
  const patientMs = Math.min(
    timeoutMs * 2 ** Math.min(unanswered, 20),
    Math.max(timeoutMs, MAX_TIMEOUT_MS),
  );
  const allowedMs = Math.max(Math.round((notAfterAt - now) / 4), MIN_INTERVAL_MS);
  const turnMs = allowedMs;
  if (patientMs <= allowedMs) return { ms: patientMs, callMs: patientMs, limit: 'setting', turnMs };
  return {
    ms: allowedMs,
    callMs: Math.min(patientMs, 2 * allowedMs),
    limit: 'remaining life',
    turnMs,
  };
}

function step(rule: string, at: number, detail: string) {
  return { rule, at: Math.round(at), detail };
}

function percent(ratio: number): string {
  return `${Number((ratio * 100).toFixed(2))} %`;
}
