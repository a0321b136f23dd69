import type { AgentError } from '../base/errors';
import type { Watched } from '../base/watched';
import type { Svid } from './svid';
import type { TrustBundle } from './trust-bundle';

/**
 * What the agent can offer its proxy right now. `svid` is present exactly when it is still safe to serve. `bundle` is the newest bundle
 * and may be newer than `svid.bundle`: a changed root reaches the proxy before a changed leaf.
 */
export type CertState =
  /** No attempt has ended yet. The bundle may already be known. */
  | { readonly kind: 'starting'; readonly bundle: TrustBundle | undefined }
  /** All is well. `renewAt` is undefined for mounted files, which others renew. */
  | {
      readonly kind: 'current';
      readonly svid: Svid;
      readonly bundle: TrustBundle;
      readonly renewAt: number | undefined;
    }
  /** Renewal is due and failing, or the mounted files went bad; the certificate is still valid and still served. */
  | {
      readonly kind: 'overdue';
      readonly svid: Svid;
      readonly bundle: TrustBundle;
      readonly retryAt: number;
      readonly error: AgentError;
    }
  /** There is no certificate, or it has expired (then `expired` is it). */
  | {
      readonly kind: 'unavailable';
      readonly bundle: TrustBundle | undefined;
      readonly expired: Svid | undefined;
      readonly retryAt: number;
      readonly error: AgentError;
    };

/**
 * What makes certificates: a keeper with its CA, or a watcher of mounted files.
 *
 * @example
 *   source.state.subscribe((state) => {
 *     if (state.kind === 'current') serve(state.svid, state.bundle);
 *   });
 *   const svid = await source.renewNow('requested over the control socket');
 */
export interface CertSource {
  readonly state: Watched<CertState>;
  /** What this source is doing and why, for `status`, `plan` and metrics. */
  describe(): SourceDescription;
  /**
   * Renews now, or joins the attempt in flight. Mounted files are read again.
   *
   * @returns the new SVID.
   * @throws  AgentError of that attempt; the old certificate stays in service and the schedule goes on.
   */
  renewNow(reason: string): Promise<Svid>;
  /** Aborts waits and attempts; resolves when the last loop has returned. The state stays readable. */
  close(): Promise<void>;
}

export interface SourceDescription {
  /** `builtin`, `istiod`, ..., or `file`. */
  readonly source: string;
  /** Failed attempts since the last success. */
  readonly failures: number;
  /** Attempts, and successes, since the start. */
  readonly attempts: number;
  readonly renewals: number;
  /** When the attempt now in flight began, or undefined. */
  readonly attemptSince: number | undefined;
  /** When that attempt is given up; undefined where it has no end of its own yet. */
  readonly attemptUntil?: number | undefined;
  /** When the next attempt begins; undefined where nothing is planned. */
  readonly dueAt: number | undefined;
  readonly lastError: AgentError | undefined;
  readonly lastErrorAt: number | undefined;
  /** What is wrong with the source's own configuration, while what was good before is still in use. */
  readonly problem: AgentError | undefined;
  /** Why the next renewal is when it is: constant sentences with their instants (epoch milliseconds) and numbers, most decisive first. */
  readonly plan: readonly PlanStep[];
}

/** One reason of a plan, e.g. `half of the remaining validity` at 12:00. */
export interface PlanStep {
  readonly rule: string;
  readonly at: number | undefined;
  readonly detail: string;
}
