import { type BackoffPolicy, backoffMs } from '../agent/base/backoff';
import { withDeadline } from '../agent/base/clock';
import type { Deps } from '../agent/base/deps';
import { AgentError } from '../agent/base/errors';
import type { Watched } from '../agent/base/watched';
import type { TrustBundle } from '../agent/identity/trust-bundle';
import type { CaClient, IssuedChain, SignRequest } from './ca-client';
import {
  abandoned,
  type Breaker,
  type BreakerPolicy,
  begun,
  CLOSED,
  DEFAULT_BREAKER_POLICY,
  failed,
  mayCall,
  succeeded,
} from './circuit-breaker';
import { leafOfRequest, readableCertificates, verifyIssued } from './issued-leaf';

export interface FailoverOptions {
  /** How long a CA that has another behind it may take, milliseconds; the last one has what the caller's signal leaves. Default 5 s. */
  readonly attemptMs?: number | undefined;
  readonly breaker?: BreakerPolicy | undefined;
  /** When a certificate of a later CA is renewed before its time, to return to an earlier one; each time that fails the wait doubles. */
  readonly failBack?: BackoffPolicy | undefined;
}

/** One of the CAs, for `status`. */
export interface FailoverMember {
  readonly name: string;
  readonly breaker: Breaker['kind'];
  /** When it is asked again, epoch milliseconds, where its breaker is open. */
  readonly probeAt: number | undefined;
  /** Why it is not asked at all. */
  readonly excluded: string | undefined;
  readonly signed: number;
  readonly failed: number;
  readonly lastError: AgentError | undefined;
  /** Whether it signed last. */
  readonly active: boolean;
}

/** Several CAs as one. */
export interface Failover extends CaClient {
  /** In order. */
  describe(): readonly FailoverMember[];
}

const DEFAULT_ATTEMPT_MS = 5_000;
/** Not at once: an authority that is back may fall again, and each return costs a certificate. */
const DEFAULT_FAIL_BACK: BackoffPolicy = { firstMs: 300_000, maxMs: 3_600_000, jitterRatio: 0.2 };

/**
 * Asks the CAs in order, until one answers with a certificate that peers will accept.
 *
 * What peers trust is the first CA's bundle, and that is what is served. Another CA is asked only where one of its roots is in there
 * already, and its answer counts only if it verifies by it: a certificate that nobody believes is no rescue. Each CA has a circuit
 * breaker; with all of them open the first one is asked all the same, since not asking gains nothing. After a certificate of a later CA
 * the earlier ones are tried again in growing intervals.
 *
 * @param clients  At least one, in order of preference; closed with the failover.
 */
export function createFailover(clients: readonly CaClient[], options: FailoverOptions, deps: Deps): Failover {
  return new OrderedCas(clients, options, deps);
}

interface Member {
  readonly client: CaClient;
  breaker: Breaker;
  signed: number;
  failed: number;
  lastError: AgentError | undefined;
}

class OrderedCas implements Failover {
  readonly name: string;
  readonly #members: readonly Member[];
  readonly #attemptMs: number;
  readonly #policy: BreakerPolicy;
  readonly #failBack: BackoffPolicy;
  readonly #listeners = new Set<{ readonly call: (what: 'signer' | 'credential') => void }>();
  readonly #stops: readonly (() => void)[];
  /** Who signed last. */
  #active: Member | undefined;
  #returns = 0;
  #waiting = new AbortController();
  #returning: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(
    clients: readonly CaClient[],
    options: FailoverOptions,
    private readonly deps: Deps,
  ) {
    if (clients.length === 0) throw new AgentError('ERR_BUG', 'failover: there is no CA');
    this.#members = clients.map((client) => ({ client, breaker: CLOSED, signed: 0, failed: 0, lastError: undefined }));
    this.name = clients.map(({ name }) => name).join(',');
    this.#attemptMs = options.attemptMs ?? DEFAULT_ATTEMPT_MS;
    this.#policy = options.breaker ?? DEFAULT_BREAKER_POLICY;
    this.#failBack = options.failBack ?? DEFAULT_FAIL_BACK;
    this.#stops = this.#members.map((member) => member.client.onChange((what) => this.#changed(member, what)));
  }

  /** That of the last: the others are given up earlier, for there is somebody to ask after them. */
  get signDeadlineMs(): number | undefined {
    return this.#members.at(-1)!.client.signDeadlineMs;
  }

  get trust(): Watched<TrustBundle | undefined> {
    return this.#members[0]!.client.trust;
  }

  async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    if (this.#closed || signal.aborted) throw new AgentError('ERR_ABORTED', 'sign: aborted');
    const candidates = this.#candidates();
    const errors: [Member, AgentError][] = [];
    for (const member of candidates) {
      const isLast = member === candidates.at(-1);
      try {
        const reply = await this.#ask(member, request, signal, isLast);
        this.#signedBy(member, errors.at(-1)?.[1]);
        return { ...reply, source: reply.source ?? member.client.name };
      } catch (caught) {
        if (signal.aborted || this.#closed) throw caught;
        errors.push([member, AgentError.from(caught)]);
      }
    }
    throw togetherError(errors);
  }

  onChange(listener: (what: 'signer' | 'credential') => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  problem(): AgentError | undefined {
    return this.#members.map(({ client }) => client.problem()).find((each) => each !== undefined);
  }

  /** The first CA's: without its credential there are still the others. */
  credentialExpiresAt(): number | undefined {
    return this.#members[0]!.client.credentialExpiresAt();
  }

  describe(): readonly FailoverMember[] {
    return this.#members.map((member) => ({
      name: member.client.name,
      breaker: member.breaker.kind,
      probeAt: member.breaker.kind === 'open' ? member.breaker.probeAt : undefined,
      excluded: this.#exclusion(member),
      signed: member.signed,
      failed: member.failed,
      lastError: member.lastError,
      active: member === this.#active,
    }));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#waiting.abort();
    this.#listeners.clear();
    for (const stop of this.#stops) stop();
    await Promise.all(this.#members.map(({ client }) => client.close()));
    await this.#returning;
  }

  #candidates(): readonly Member[] {
    const now = this.deps.clock.now();
    const eligible = this.#members.filter((member) => this.#exclusion(member) === undefined);
    const willing = eligible.filter(({ breaker }) => mayCall(breaker, now));
    return willing.length > 0 ? willing : eligible.slice(0, 1);
  }

  #exclusion(member: Member): string | undefined {
    if (member === this.#members[0]) return undefined;
    const served = this.trust.value;
    if (!served) return `the trust bundle of ${this.#members[0]!.client.name} is not known yet`;
    const own = member.client.trust.value;
    if (!own) return 'its trust bundle is not known yet';
    const shared = own.rootsDer.some((root) => served.rootsDer.some((other) => Buffer.compare(root, other) === 0));
    return shared ? undefined : 'none of its roots is in the served bundle';
  }

  async #ask(member: Member, request: SignRequest, signal: AbortSignal, isLast: boolean): Promise<IssuedChain> {
    const { clock, random, metrics } = this.deps;
    const { client } = member;
    member.breaker = begun(member.breaker);
    try {
      const reply = isLast
        ? await client.sign(request, signal)
        : await withDeadline(clock, this.#attemptMs, `sign at ${client.name}`, signal, (each) => client.sign(request, each));
      this.#checkBelieved(member, reply, request);
      member.breaker = succeeded(member.breaker, this.#policy);
      member.signed += 1;
      metrics.record('ca_requests_total', { ca: client.name, outcome: 'ok' });
      return reply;
    } catch (caught) {
      const error = AgentError.from(caught);
      // The caller's time ran out on the last one, which says something about it; a caller who merely left says nothing.
      if (signal.aborted && !isLast) {
        member.breaker = abandoned(member.breaker);
        throw error;
      }
      member.breaker = failed(member.breaker, clock.now(), this.#policy, random);
      member.failed += 1;
      member.lastError = error;
      metrics.record('ca_requests_total', { ca: client.name, outcome: error.code });
      throw error;
    }
  }

  /** The gate judges the reply as a whole; here only whether another CA would do better. */
  #checkBelieved({ client }: Member, { certificatesDer }: IssuedChain, { csrDer }: SignRequest): void {
    const trust = this.trust.value;
    if (!trust) return;
    try {
      const certificates = readableCertificates(certificatesDer);
      const leaf = leafOfRequest(certificates, csrDer);
      if (leaf) verifyIssued(leaf, certificates, trust, this.deps.clock.now());
    } catch (cause) {
      throw new AgentError('ERR_CA_RESPONSE', `sign at ${client.name}: its certificate does not verify by the served bundle`, {
        retry: 'slow',
        cause,
      });
    }
  }

  #signedBy(member: Member, cause: AgentError | undefined): void {
    const previous = this.#active;
    this.#active = member;
    const [first] = this.#members;
    if (member !== previous && (previous || member !== first)) {
      const facts = { ca: member.client.name, before: (previous ?? first!).client.name };
      if (this.#rank(member) < this.#rank(previous ?? first!)) this.deps.log.info('back at an earlier CA', facts);
      else this.deps.log.warn('failed over to another CA', { ...facts, ...(cause && { cause }) });
    }
    this.#waiting.abort();
    if (member === first) this.#returns = 0;
    else this.#returnLater(member);
  }

  #rank(member: Member): number {
    return this.#members.indexOf(member);
  }

  /** Has the certificate renewed when an earlier CA may be worth asking again. */
  #returnLater(member: Member): void {
    const { clock, random } = this.deps;
    this.#returns += 1;
    this.#waiting = new AbortController();
    const { signal } = this.#waiting;
    const ownAt = clock.now() + backoffMs(this.#returns, this.#failBack, random);
    const probeAt = Math.min(
      ...this.#members.slice(0, this.#rank(member)).map(({ breaker }) => (breaker.kind === 'open' ? breaker.probeAt : 0)),
    );
    const waiting = clock.sleepUntil(Math.max(ownAt, probeAt), signal).then(
      () => this.#tell('signer'),
      () => undefined,
    );
    const before = this.#returning;
    this.#returning = Promise.all([before, waiting]).then(() => undefined);
  }

  #changed(member: Member, what: 'signer' | 'credential'): void {
    // Another signer of a CA that did not sign ours is nothing to renew for.
    if (what === 'signer' && this.#active && member !== this.#active) return;
    this.#tell(what);
  }

  #tell(what: 'signer' | 'credential'): void {
    for (const { call } of [...this.#listeners]) call(what);
  }
}

/** What all of them said: as soon as the most hopeful says, not before the shortest wish. */
function togetherError(errors: readonly (readonly [Member, AgentError])[]): AgentError {
  const [first] = errors;
  if (errors.length === 1 && first) return first[1];
  const all = errors.map(([, error]) => error);
  const retry = (['soon', 'slow'] as const).find((each) => all.some((error) => error.retry === each)) ?? 'slow';
  const wishes = all.map(({ retryAfterMs }) => retryAfterMs ?? 0);
  const hints = all.flatMap(({ hint }) => hint ?? []);
  return new AgentError(
    all.every(({ code }) => code === all[0]?.code) ? all[0]!.code : 'ERR_CA_UNAVAILABLE',
    `sign: no CA could: ${all.map(({ message }) => message).join('; ')}`,
    { retry, retryAfterMs: Math.min(...wishes), cause: all[0], ...(hints.length > 0 && { hint: hints.join('; ') }) },
  );
}
