import { hash } from 'node:crypto';
import {
  encodeCertificateReply,
  parseCertificateRequest,
} from '../../../ca-client/istio/wire/messages';
import type { Deps } from '../../base/deps';
import { AgentError, invalid } from '../../base/errors';
import { iso } from '../../base/iso';
import { causeText } from '../../base/log';
import { LogRateLimit } from '../../base/log-rate-limit';
import { readPem } from '../../base/pem';
import { Trouble } from '../../base/trouble';
import { formatSpiffeId } from '../../identity/spiffe-id';
import type { TrustBundle } from '../../identity/trust-bundle';
import {
  chainToHandOut,
  nextChangeAt,
  readAccepted,
  rootsToHandOut,
} from '../../identity/valid-now';
import type { Authority, IssuedLeaf } from '../authority';
import { DEFAULT_TTL_SECONDS } from '../certificate-specs';
import { assertCsrAllowed, assertPlainCsr } from '../csr-rules';
import { certificateId } from '../signers';
import type { CaStore } from '../store/store';
import type { AuditEntry, AuditLog } from './audit-log';
import {
  type Authenticator,
  type CallCredentials,
  type Caller,
  type Redeemed,
  StolenCredential,
} from './authenticator';
import type { CallDeadline } from './call-deadline';
import type { Connection } from './connections';
import { bearerToken } from './credentials';
import { LIMITS } from './limits';
import type { LiveCertificates } from './live-certificates';
import type { RateLimiter } from './rate-limits';
import { type Refusal, RefusedCall, refusalOf, tooManyRequests } from './status';

export interface CertificateServiceOptions {
  readonly authority: Authority;
  readonly store: Pick<CaStore, 'recordIssued' | 'probe'>;
  readonly authenticators: readonly Authenticator[];
  readonly limiter: Pick<RateLimiter, 'take'>;
  readonly live: Pick<LiveCertificates, 'admit'>;
  readonly audit: AuditLog;
  /** What is asked for beyond it is refused, as upstream's MAX_WORKLOAD_CERT_TTL; who asks for nothing gets 24 hours, or this where it is less. */
  readonly maxTtlSeconds: number;
  /** How long after its end a certificate proves its holder for one renewal, milliseconds; undefined for not at all. */
  readonly renewAfterExpiryMs?: number | undefined;
}

/** One call of CreateCertificate, whole. */
export interface CertificateCall {
  readonly request: Uint8Array;
  /** The value of every authorization header. */
  readonly authorization: readonly string[];
  readonly deadline: CallDeadline;
  readonly connection: Connection;
}

export type Answer =
  | { readonly kind: 'issued'; readonly reply: Buffer }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

/** The roots of a reply, as they are sent and as they are registered, until one of the bundle begins or ends. */
interface HandedRoots {
  readonly untilAt: number;
  readonly pem: string;
  readonly ids: readonly string[];
}

/** What is found out about a call on the way to its decision. */
type Facts = {
  -readonly [K in
    | 'event'
    | 'caller'
    | 'method'
    | 'proof'
    | 'requested'
    | 'serial'
    | 'keySha256'
    | 'notAfter']?: AuditEntry[K];
};

const CSR_LABELS = ['CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST'];
/** ztunnel's wish for a certificate of somebody who runs on its node. */
const IMPERSONATION = 'ImpersonatedIdentity';
const LINES_PER_MINUTE = 60;

/**
 * Decides calls of `istio.v1.auth.IstioCertificateService/CreateCertificate`: reads the request, authenticates its sender, limits how
 * often, verifies the request, uses up a join token, then signs; enters the certificate into the register and the decision into the audit
 * log, and only then answers.
 *
 * What a stranger sends is read and no more: no signature of it is verified with a key of its own. For a caller who has stopped waiting
 * nothing is signed. Nothing of a request but the public key and the lifetime, which the authority bounds, has any influence on the certificate.
 */
export class CertificateService {
  readonly #budget: LogRateLimit;
  /** The roots and the PEM of each chain above a leaf, made once. */
  readonly #handed = new WeakMap<TrustBundle, HandedRoots>();
  readonly #abovePem = new WeakMap<Uint8Array, string>();
  readonly #stop = new AbortController();
  readonly #register: Trouble;
  #answering = 0;

  constructor(
    private readonly options: CertificateServiceOptions,
    private readonly deps: Deps,
  ) {
    this.#budget = new LogRateLimit(deps.clock, LINES_PER_MINUTE);
    this.#register = new Trouble(
      {
        attempt: () => options.store.probe(),
        began: (cause) => deps.log.error('register write failed, refusing to issue', { cause }),
        passed: () => deps.log.info('register writes recovered'),
      },
      deps,
    );
  }

  /** Why no certificate can be entered into the register; undefined where it can. It is tried again without a certificate to enter. */
  problem(): AgentError | undefined {
    return this.#register.problem();
  }

  /** Ends what is waited for on behalf of callers. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#register.close();
  }

  /** Never rejects. The refusal's audit line is written, or the failure to do so logged, before it resolves. */
  async answer(call: CertificateCall): Promise<Answer> {
    const { clock, metrics } = this.deps;
    const facts: Facts = {};
    const startedAt = clock.now();
    this.#answering += 1;
    try {
      const reply = await this.#issue(call, facts);
      metrics.record('ca_signing_requests_total', {
        outcome: 'ok',
        method: facts.method ?? 'none',
      });
      return { kind: 'issued', reply };
    } catch (caught) {
      return { kind: 'refused', refusal: await this.#refuse(caught, facts, call.connection.peer) };
    } finally {
      this.#answering -= 1;
      metrics.record('ca_sign_duration_seconds', {}, Math.max(clock.now() - startedAt, 0) / 1_000);
    }
  }

  async #issue(call: CertificateCall, facts: Facts): Promise<Buffer> {
    const { authority, maxTtlSeconds } = this.options;
    if (this.#answering > LIMITS.answering) throw tooManyRequests('too many concurrent requests');
    const { csrPem, ttlSeconds, metadata } = parseCertificateRequest(call.request);
    if (ttlSeconds > maxTtlSeconds) {
      throw invalid(
        'ERR_PARSE',
        'validity_duration',
        `requested TTL ${ttlSeconds}s is greater than the max allowed TTL ${maxTtlSeconds}s`,
      );
    }
    const unverified = authority.parseCsr(csrDer(csrPem));
    assertPlainCsr(unverified.facts, 'a workload');
    facts.requested = unverified.facts.uris[0];
    facts.keySha256 = hash('sha256', unverified.facts.spkiDer, 'hex');
    // Before a join token is used up, and before anything is signed for a caller that has gone.
    call.deadline.assertAhead();
    // A signature is verified for those who have proven who they are: what it costs is its sender's choice.
    const caller = await this.#authenticate(call, facts.keySha256);
    facts.caller = formatSpiffeId(caller.id);
    facts.method = caller.method;
    facts.proof = caller.detail;
    if (metadata.has(IMPERSONATION) && metadata.get(IMPERSONATION) !== '') throw impersonation();
    this.#limit(caller);
    const csr = await authority.verifyCsr(unverified);
    assertCsrAllowed(csr, caller.id);
    const settled = await this.options.live.admit(facts.caller);
    try {
      call.deadline.assertAhead();
      const redeemed = await this.#redeem(caller, facts);
      const issued = await this.#givingBack(redeemed, () => {
        call.deadline.assertAhead();
        return authority.issue(
          csr,
          caller.id,
          ttlSeconds > 0 ? ttlSeconds : Math.min(DEFAULT_TTL_SECONDS, maxTtlSeconds),
        );
      });
      return await this.#handOut(issued, facts, call);
    } finally {
      settled();
    }
  }

  /** What would stop a certificate from being handed out is looked for before a proof is used up for it. */
  async #redeem({ redeem, detail }: Caller, facts: Facts): Promise<Redeemed | undefined> {
    if (!redeem) return undefined;
    const { authority, audit } = this.options;
    const problem = authority.problem();
    if (problem) throw problem;
    await Promise.all([this.#register.tryNow(), audit.probe()]);
    const redeemed = await redeem();
    facts.event = redeemed.event;
    facts.proof = { ...detail, ...redeemed.detail };
    return redeemed;
  }

  /** Only what failed before anything was signed gives a proof back: a certificate that is withheld exists. */
  async #givingBack(
    redeemed: Redeemed | undefined,
    issue: () => Promise<IssuedLeaf>,
  ): Promise<IssuedLeaf> {
    try {
      return await issue();
    } catch (caught) {
      if (AgentError.from(caught).code === 'ERR_BUG') throw caught;
      await redeemed?.giveBack().catch((cause) =>
        this.deps.log.warn('join token release failed, it stays bound to its key', {
          cause,
        }),
      );
      throw caught;
    }
  }

  async #authenticate(
    { authorization, connection }: CertificateCall,
    keySha256: string,
  ): Promise<Caller> {
    const { certificatesDer, address } = connection;
    const credentials: CallCredentials = {
      bearer: bearerToken(authorization),
      certificatesDer,
      address,
      keySha256,
    };
    for (const authenticator of this.options.authenticators) {
      const caller = await authenticator.authenticate(credentials, this.#stop.signal);
      if (caller !== undefined) return caller;
    }
    const names = this.options.authenticators.map(({ name }) => name).join(', ');
    const what =
      credentials.bearer !== undefined
        ? 'a token'
        : credentials.certificatesDer.length > 0
          ? 'a certificate'
          : 'nothing';
    throw new AgentError(
      'ERR_TOKEN',
      `authenticate: the caller shows ${what} that is for none of ${names}`,
      { retry: 'slow' },
    );
  }

  /** A join token is good for one certificate, which is limit enough; and it is used up already. */
  #limit(caller: Caller): void {
    if (caller.method === 'join-token') return;
    const waitMs = this.options.limiter.take(formatSpiffeId(caller.id));
    if (waitMs !== undefined) throw tooManyRequests('too many requests in a short time', waitMs);
  }

  async #handOut(
    issued: IssuedLeaf,
    facts: Facts,
    { connection }: CertificateCall,
  ): Promise<Buffer> {
    const { authority, audit } = this.options;
    facts.serial = issued.serial;
    facts.notAfter = iso(issued.notAfterAt);
    const roots = this.#roots(authority.trust.value);
    await this.#record(issued, facts, roots.ids);
    await audit.write(auditEntry('issued', facts, { status: 'OK', peer: connection.peer }));
    const [leaf, ...above] = chainToHandOut(issued, this.deps.clock.now());
    return encodeCertificateReply([
      pemText(leaf!),
      ...above.map((der) => this.#above(der)),
      roots.pem,
    ]);
  }

  async #record(issued: IssuedLeaf, facts: Facts, handedRoots: readonly string[]): Promise<void> {
    const { serial, notAfterAt, issuerKeyId, rootKeySha256 } = issued;
    const { renewAfterExpiryMs } = this.options;
    const [id, keySha256] = [facts.caller!, facts.keySha256!];
    try {
      await this.options.store.recordIssued({
        serial,
        id,
        keySha256,
        issuedAt: this.deps.clock.now(),
        notAfterAt,
        issuerKeyId,
        rootKeySha256,
        handedRoots,
        ...(facts.method === 'client-certificate' && { provenBy: String(facts.proof?.serial) }),
        ...(renewAfterExpiryMs !== undefined && {
          renewableUntilAt: notAfterAt + renewAfterExpiryMs,
        }),
      });
      this.#register.worked();
    } catch (caught) {
      throw this.#register.failed(caught);
    }
  }

  #roots(bundle: TrustBundle): HandedRoots {
    const now = this.deps.clock.now();
    const known = this.#handed.get(bundle);
    if (known !== undefined && now < known.untilAt) return known;
    const { rootsDer } = rootsToHandOut(bundle, now);
    const handed = {
      untilAt: nextChangeAt([], [bundle], [], now),
      pem: rootsDer.map(pemText).join(''),
      ids: rootsDer.map((der) => certificateId(readAccepted(der))),
    };
    this.#handed.set(bundle, handed);
    return handed;
  }

  #above(der: Uint8Array): string {
    const pem = this.#abovePem.get(der) ?? pemText(der);
    this.#abovePem.set(der, pem);
    return pem;
  }

  async #refuse(caught: unknown, facts: Facts, peer: string): Promise<Refusal> {
    const { log, metrics } = this.deps;
    const error = AgentError.from(caught);
    const refusal = refusalOf(error);
    const { status } = refusal;
    const reason = causeText(error);
    const stolen = caught instanceof StolenCredential;
    if (stolen) {
      facts.event = caught.event;
      facts.proof = caught.detail;
      metrics.record('ca_stolen_credentials_total', {});
    }
    metrics.record('ca_signing_requests_total', {
      outcome: status,
      method: facts.method ?? 'none',
    });
    this.#budget.spend((withheld) => {
      const level = status === 'INTERNAL' || stolen ? 'error' : 'warn';
      log[level]('certificate refused', {
        event: facts.event,
        status,
        caller: facts.caller,
        requested: facts.requested,
        peer,
        reason,
        hint: error.hint,
        withheld,
      });
    });
    // No certificate leaves, so nothing is withheld where this fails; the log tells of it.
    await this.options.audit
      .write(auditEntry('refused', facts, { status, reason, peer }))
      .catch(() => undefined);
    return refusal;
  }
}

/** As `certificatesPem`, by way of strings: many times faster, and what is public may be one. */
function pemText(der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  let lines = '';
  for (let at = 0; at < base64.length; at += 64) lines += `${base64.slice(at, at + 64)}\n`;
  return `-----BEGIN CERTIFICATE-----\n${lines}-----END CERTIFICATE-----\n`;
}

function csrDer(pem: string): Uint8Array {
  const text = pem.trim();
  // Nothing around it: what else there was, somebody meant to be read.
  if (!text.startsWith('-----BEGIN ') || !text.endsWith('-----'))
    throw invalid('ERR_PARSE', 'csr', 'must be one PEM block and nothing else');
  const [block] = readPem(Buffer.from(text), 'csr', {
    maxBytes: LIMITS.requestBytes,
    maxBlocks: 1,
  });
  if (!CSR_LABELS.includes(block!.label))
    throw invalid('ERR_PARSE', 'csr', `must be ${CSR_LABELS[0]}`);
  return block!.der;
}

function impersonation(): RefusedCall {
  return new RefusedCall('UNAUTHENTICATED', 'request impersonation authentication failure', {
    hint: 'impersonation is not supported; let each workload request its own certificate',
  });
}

function auditEntry(
  decision: AuditEntry['decision'],
  facts: Facts,
  {
    status,
    reason,
    peer,
  }: { readonly status: string; readonly reason?: string; readonly peer: string },
): AuditEntry {
  const { event, caller, method, proof, requested, serial, keySha256, notAfter } = facts;
  return {
    decision,
    event,
    caller,
    method,
    proof,
    requested,
    serial,
    keySha256,
    notAfter,
    status,
    reason,
    peer,
  };
}
