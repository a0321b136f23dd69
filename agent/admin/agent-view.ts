import type { LoadedConfig } from '../config/config';
import type { Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';

/**
 * What the admin side may see of and ask from a running agent. Plain JSON-able values: `status --output json` prints `AgentStatus` as it
 * is. Instants are ISO 8601 strings in UTC with milliseconds; undefined members are absent.
 */
export interface AgentView {
  status(): AgentStatus;
  /** Why the agent is not ready; empty when it is. What probes ask often, so it reads no certificate. */
  reasons(): readonly string[];
  /** For metrics, which want numbers and certificates rather than text. */
  workloads(): readonly WorkloadView[];
  settings(): LoadedConfig['settings'];
  /**
   * Renews every workload now (or the one of that name), joining attempts in flight. With `wait` it resolves only when each SDS
   * stream that watches `default` has acknowledged the new certificate.
   *
   * @throws AgentError of the attempt where it is one workload's; ERR_TIMEOUT with the streams that are behind when the signal's deadline
   *         ends the wait; ERR_USAGE where there is no workload of that name.
   */
  rotate(
    request: {
      readonly wait: boolean;
      readonly reason: string;
      readonly workload?: string | undefined;
    },
    signal: AbortSignal,
  ): Promise<RotateResult>;
}

export interface WorkloadView {
  /** In a list of workloads. */
  readonly name?: string;
  readonly id: string;
  readonly source: string;
  readonly svid: Svid | undefined;
  readonly bundle: TrustBundle | undefined;
  readonly state: WorkloadStatus['state'];
  readonly renewAt: number | undefined;
  readonly failures: number;
  readonly streams: number;
  readonly unacknowledged: number;
}

export interface RotateResult {
  readonly workloads: readonly {
    /** In a list of workloads. */
    readonly name?: string;
    readonly id: string;
    readonly previousSerial?: string;
    readonly serial: string;
    readonly notAfter: string;
    /** Streams that acknowledged the new certificate, with `wait`. */
    readonly acknowledged?: number;
  }[];
  /** Of several, those whose keys were not turned, or are not acknowledged everywhere. */
  readonly failed?: readonly {
    readonly name?: string;
    readonly id: string;
    readonly code: string;
    readonly message: string;
    readonly hint?: string;
  }[];
}

export interface AgentStatus {
  readonly version: string;
  readonly pid: number;
  readonly runtime: string;
  readonly startedAt: string;
  readonly now: string;
  /** The answer of `/healthz/ready`, with every reason when it is no. */
  readonly ready: boolean;
  readonly reasons: readonly string[];
  readonly workloads: readonly WorkloadStatus[];
  /** Where workloads come from a list: what of it is not followed, and why. */
  readonly refused?: readonly RefusedEntry[];
}

/** An entry of the list of workloads, or the list itself, that is not followed. */
export interface RefusedEntry {
  /** Undefined where the entry cannot be read that far. */
  readonly name?: string;
  readonly file: string;
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  /** `refused`: the entry is wrong. `failed`: it is right, but could not be put into service, and is tried again. */
  readonly outcome: 'refused' | 'failed';
  /** Whether an earlier version of it is in service. */
  readonly inService: boolean;
}

export interface WorkloadStatus {
  /** In a list of workloads. */
  readonly name?: string;
  readonly id: string;
  readonly state: 'starting' | 'current' | 'overdue' | 'unavailable';
  readonly certificate?: CertificateStatus;
  /** Of the trust bundle; `withheld` is why one does not go to proxies at the moment. */
  readonly roots: readonly {
    readonly subject: string;
    readonly sha256: string;
    readonly notAfter: string;
    readonly withheld?: string;
  }[];
  readonly rootsVersion?: string;
  /** Where revocation is looked at. */
  readonly revocation?: {
    readonly lists: number;
    readonly revoked: number;
    readonly nextUpdate?: string;
    readonly problem?: { readonly code: string; readonly message: string; readonly hint?: string };
  };
  /** Other trust domains that are to be believed; without `roots` while nothing is known of one. */
  readonly federated?: readonly {
    readonly trustDomain: string;
    readonly roots?: number;
    readonly problem?: { readonly code: string; readonly message: string; readonly hint?: string };
  }[];
  readonly source: string;
  readonly plan: readonly {
    readonly rule: string;
    readonly at?: string;
    readonly detail: string;
  }[];
  readonly attempts: number;
  readonly renewals: number;
  readonly failures: number;
  readonly retryAt?: string;
  /** What is wrong with the CA's configuration, while what was good before is still in use. */
  readonly sourceProblem?: {
    readonly code: string;
    readonly message: string;
    readonly hint?: string;
  };
  /** Why the newest certificate, bundle or revocation lists are not served, or that peers refuse the certificate. */
  readonly selfCheck?: { readonly code: string; readonly message: string; readonly hint?: string };
  readonly lastError?: {
    readonly code: string;
    readonly message: string;
    readonly hint?: string;
    readonly at: string;
  };
  /** Each of several CAs, in the order in which they are asked. */
  readonly authorities?: readonly AuthorityStatus[];
  /** How long the CA may be away before a certificate expires, and which credential sets that limit. */
  readonly outageBudget?: {
    readonly seconds: number;
    readonly until: string;
    readonly limit: string;
  };
  readonly sds: SdsStatus;
  readonly output?: { readonly dir: string; readonly serial?: string; readonly error?: string };
}

/** One of several CAs. */
export interface AuthorityStatus {
  readonly name: string;
  /** Whether it signed last. */
  readonly active: boolean;
  /** An open one is not asked before `probeAt`; a half-open one is on probation. */
  readonly breaker: 'closed' | 'open' | 'half-open';
  readonly probeAt?: string;
  /** Why it is not asked at all. */
  readonly excluded?: string;
  /** Requests that it answered with a certificate, and others. */
  readonly signed: number;
  readonly failed: number;
  readonly lastError?: { readonly code: string; readonly message: string; readonly hint?: string };
}

export interface CertificateStatus {
  readonly serial: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly receivedAt: string;
  readonly renewAt?: string;
  readonly keyAlgorithm: string;
  readonly issuer: string;
  readonly sha256: string;
  /** The CA that signed it, as in `--ca`. */
  readonly signedBy: string;
  readonly chainLength: number;
  readonly warnings: readonly string[];
}

export interface SdsStatus {
  readonly socket: string;
  /** Why clients do not reach the socket by its path. */
  readonly problem?: string | undefined;
  readonly mode: string;
  readonly streams: readonly StreamStatus[];
  /** Names asked for that are not served, with how often, newest last, bounded. */
  readonly unknownNames: readonly { readonly name: string; readonly count: number }[];
  /** Open streams of the SPIFFE Workload API, where there are any. */
  readonly workloadApiStreams?: number;
}

/** One open stream: what was sent under each name and what the client said to it. */
export interface StreamStatus {
  readonly id: number;
  readonly kind: 'sotw' | 'delta';
  readonly node: string;
  readonly openedAt: string;
  readonly names: readonly {
    readonly name: string;
    readonly sentVersion?: string;
    readonly sentSerial?: string;
    readonly sentAt?: string;
    readonly acknowledgedVersion?: string;
    readonly acknowledgedAt?: string;
    readonly nack?: { readonly version: string; readonly message: string; readonly at: string };
  }[];
}
