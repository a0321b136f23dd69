import { AgentError } from '../../base/errors';
import type { Secret } from '../../base/secret';
import { parseSpiffeId, type SpiffeId, serviceAccountId } from '../../identity/spiffe-id';
import type { AuditEvent } from './audit-log';

/** What came with a call that may authenticate its sender. Authenticators see nothing else of a call. */
export interface CallCredentials {
  /** What follows `Bearer ` in the one authorization header; undefined without one. */
  readonly bearer: Secret<string> | undefined;
  /** What the client showed in the TLS handshake, DER, leaf first; empty where it showed nothing. Nothing of it has been verified. */
  readonly certificatesDer: readonly Uint8Array[];
  /** Where the call comes from, without a port: for limits, never for proof. */
  readonly address: string;
  /** SHA-256 over the SubjectPublicKeyInfo of the request, lower-case hex. Its signature has not been verified yet. */
  readonly keySha256: string;
}

/** Who calls, proven. */
export interface Caller {
  /** Of our own trust domain, also where the proof was of an alias. */
  readonly id: SpiffeId;
  /** The authenticator's name, for the audit. */
  readonly method: AuthenticatorName;
  /** What the audit says of the proof, e.g. the serial of the certificate; never a secret. */
  readonly detail: Readonly<Record<string, string>>;
  /**
   * Uses the proof up, where it is good for one key: called once, when the request has been found good and its signature verified.
   *
   * @throws AgentError ERR_TOKEN where it was used up meanwhile; ERR_CA_STATE where that is not known.
   */
  readonly redeem?: () => Promise<Redeemed>;
}

/** A proof that was used up. */
export interface Redeemed {
  /** What the audit says of it beside the caller's own detail. */
  readonly detail: Readonly<Record<string, string>>;
  readonly event: AuditEvent | undefined;
  /** Where no certificate was signed after all: it can be shown again, with any key. */
  giveBack(): Promise<void>;
}

/** A credential that somebody else has too. */
export class StolenCredential extends AgentError {
  constructor(
    readonly event: AuditEvent,
    /** What the audit says of it. */
    readonly detail: Readonly<Record<string, string>>,
    message: string,
    hint: string,
  ) {
    super('ERR_TOKEN', message, { retry: 'slow', hint });
  }
}

export const AUTHENTICATORS = ['client-certificate', 'join-token', 'oidc', 'token-review'] as const;
export type AuthenticatorName = (typeof AUTHENTICATORS)[number];

/**
 * Authenticates callers by one kind of credential.
 *
 * @example
 *   const authenticator: Authenticator = {
 *     name: 'oidc',
 *     authenticate: async ({ bearer }) => {
 *       if (bearer === undefined) return undefined; // Not of this kind: the next one decides.
 *       const id = accounts.get(bearer.reveal());
 *       if (id === undefined) throw refuseCredential('token', 'must be of a known account');
 *       return { id, method: 'oidc', detail: {} };
 *     },
 *   };
 */
export interface Authenticator {
  readonly name: AuthenticatorName;
  /**
   * Verifies what came with a call, and uses nothing up. A caller that fails here has cost only that: requests are verified afterwards.
   *
   * @returns Undefined for a credential of another kind: the next authenticator decides.
   * @throws  AgentError ERR_TOKEN: of its kind, and invalid; ERR_CA_UNAVAILABLE | ERR_TIMEOUT: it cannot be verified now, so the call is refused.
   */
  authenticate(credentials: CallCredentials, signal: AbortSignal): Promise<Caller | undefined>;
  close?(): Promise<void>;
}

/** The trust domain that is signed for, and others that name the same workloads. */
export interface TrustDomains {
  readonly trustDomain: string;
  readonly aliases: readonly string[];
}

/**
 * The one identity that a proven SPIFFE ID stands for: an alias becomes our own trust domain.
 *
 * @throws AgentError ERR_TOKEN where it is malformed or of a trust domain that is neither.
 */
export function ownIdentity(text: string, { trustDomain, aliases }: TrustDomains): SpiffeId {
  const id = tokenFault(() => parseSpiffeId(text));
  if (id.trustDomain === trustDomain) return id;
  if (aliases.includes(id.trustDomain)) return { ...id, trustDomain };
  throw refuseCredential(
    'identity',
    `must be of trust domain ${[trustDomain, ...aliases].join(' or ')}, not ${id.trustDomain}`,
  );
}

/**
 * The identity of `system:serviceaccount:NAMESPACE:NAME`, as Kubernetes names service accounts. Each part is one path segment.
 *
 * @throws AgentError ERR_TOKEN for any other name.
 */
export function serviceAccountIdentity(username: string, { trustDomain }: TrustDomains): SpiffeId {
  const [system, kind, namespace, name, ...more] = username.split(':');
  if (
    system !== 'system' ||
    kind !== 'serviceaccount' ||
    namespace === undefined ||
    name === undefined ||
    more.length > 0
  ) {
    throw refuseCredential('subject', 'must be system:serviceaccount:NAMESPACE:NAME');
  }
  return tokenFault(() => serviceAccountId(trustDomain, namespace, name));
}

/** A credential that proves nothing. The caller is told no more than that; the audit says why. */
export function refuseCredential(field: string, rule: string, cause?: unknown): AgentError {
  return new AgentError('ERR_TOKEN', `${field}: ${rule}`, { field, rule, retry: 'slow', cause });
}

function tokenFault<T>(read: () => T): T {
  try {
    return read();
  } catch (caught) {
    const { field, rule, message } = AgentError.from(caught);
    throw refuseCredential(field ?? 'identity', rule ?? message, caught);
  }
}
