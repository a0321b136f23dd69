import { type BackoffPolicy, backoffMs } from '../agent/base/backoff';
import { isDeadline, scoped, untilAborted } from '../agent/base/clock';
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
  /** How long a CA is waited for before the next one is asked as well, milliseconds; default 10 s, and no more than its part of the time. */
  readonly headStartMs?: number | undefined;
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

const DEFAULT_HEAD_START_MS = 10_000;
/** Not at once: an authority that is back may fall again, and each return costs a certificate. */
const DEFAULT_FAIL_BACK: BackoffPolicy = { firstMs: 300_000, maxMs: 3_600_000, jitterRatio: 0.2 };

/**
 * Asks the CAs in order, until one answers with a certificate that peers will accept. The next is asked once the last one asked has failed,
 * or after a head start of ten seconds, while those before it are still waited for: the first good answer counts. Where the certificate in
 * service allows less time than that, each has its part of it.
 *
 * What peers trust is the first CA's bundle, and that is what is served. Another CA is asked only where one of its roots is in there
 * already, and its answer counts only if it verifies by it: a certificate that nobody believes is no rescue. Each CA has a circuit
 * breaker; with all of them open the first one is asked all the same, since not asking gains nothing. After a certificate of a later CA
 * the earlier ones are tried again in growing intervals.
 *
 * @param clients  At least one, in order of preference; closed with the failover.
 */
export function createFailover(
  clients: readonly CaClient[],
  options: FailoverOptions,
  deps: Deps,
): Failover {
  return new OrderedCas(clients, options, deps);
}

/** Why a CA is no longer waited for. */
class Overtaken extends AgentError {
  constructor() {
    super('ERR_ABORTED', 'sign: another CA answered first');
  }
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
  readonly #headStartMs: number;
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
    if (clients.length === 0) throw new AgentError('ERR_BUG', 'failover: no CA configured');
    this.#members = clients.map((client) => ({
      client,
      breaker: CLOSED,
      signed: 0,
      failed: 0,
      lastError: undefined,
    }));
    this.name = clients.map(({ name }) => name).join(',');
    this.#headStartMs = options.headStartMs ?? DEFAULT_HEAD_START_MS;
    this.#policy = options.breaker ?? DEFAULT_BREAKER_POLICY;
    this.#failBack = options.failBack ?? DEFAULT_FAIL_BACK;
    this.#stops = this.#members.map((member) =>
      member.client.onChange((what) => this.#changed(member, what)),
    );
  }

  get trust(): Watched<TrustBundle | undefined> {
    return this.#members[0]!.client.trust;
  }

  async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    if (this.#closed || signal.aborted) throw new AgentError('ERR_ABORTED', 'sign: aborted');
    return scoped(signal, (asking) => this.#race(request, asking), new Overtaken());
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
    if (!served) return `no trust bundle of ${this.#members[0]!.client.name} yet`;
    const own = member.client.trust.value;
    if (!own) return 'it has no trust bundle yet';
    const shared = own.rootsDer.some((root) =>
      served.rootsDer.some((other) => Buffer.compare(root, other) === 0),
    );
    return shared ? undefined : 'none of its roots is in the served bundle';
  }

  /** @throws AgentError: what all of them said; the reason of the signal. */
  #race(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const candidates = this.#candidates();
    const errors = new Map<Member, AgentError>();
    return new Promise((resolve, reject) => {
      let asked = 0;
      let headStart = new AbortController();
      const askNext = (): void => {
        headStart.abort();
        const member = candidates[asked];
        if (!member) return;
        asked += 1;
        const rank = asked;
        this.#ask(member, request, signal).then(
          (reply) => {
            headStart.abort();
            this.#signedBy(member, [...errors.values()].at(-1));
            resolve({ ...reply, source: reply.source ?? member.client.name });
          },
          (caught: unknown) => {
            errors.set(member, AgentError.from(caught));
            if (signal.aborted || this.#closed) reject(caught);
            else if (errors.size === candidates.length)
              reject(togetherError(candidates.map((each) => [each, errors.get(each)!])));
            // Who was asked after it is its replacement already.
            else if (rank === asked) askNext();
          },
        );
        if (asked < candidates.length) {
          headStart = new AbortController();
          const { clock } = this.deps;
          const left = (request.answerBy ?? Number.POSITIVE_INFINITY) - clock.now();
          const headStartMs = Math.min(this.#headStartMs, left / (candidates.length - asked + 1));
          clock
            .sleepUntil(clock.now() + headStartMs, headStart.signal)
            .then(askNext, () => undefined);
        }
      };
      signal.addEventListener('abort', () => headStart.abort(), { once: true });
      askNext();
    });
  }

  async #ask(member: Member, request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const { clock } = this.deps;
    const { client } = member;
    const startedAt = clock.now();
    member.breaker = begun(member.breaker);
    try {
      const reply = await untilAborted(signal, client.sign(request, signal));
      this.#checkBelieved(member, reply, request);
      member.breaker = succeeded(member.breaker, this.#policy);
      member.signed += 1;
      this.deps.metrics.record('ca_requests_total', { ca: client.name, outcome: 'ok' });
      return reply;
    } catch (caught) {
      const error = signal.aborted
        ? this.#unanswered(client, signal, clock.now() - startedAt)
        : AgentError.from(caught);
      if (error === undefined) {
        member.breaker = abandoned(member.breaker);
        throw caught;
      }
      // That we have nothing to show says nothing of the CA.
      const isOurs = error.code === 'ERR_TOKEN';
      member.breaker = isOurs
        ? abandoned(member.breaker)
        : failed(member.breaker, clock.now(), this.#policy, this.deps.random);
      member.failed += 1;
      member.lastError = error;
      this.deps.metrics.record('ca_requests_total', { ca: client.name, outcome: error.code });
      throw error;
    }
  }

  /** What it says of a CA that it had not answered by the end; undefined where that was too early to say. */
  #unanswered({ name }: CaClient, signal: AbortSignal, afterMs: number): AgentError | undefined {
    if (this.#closed || (!isDeadline(signal) && !isOvertaken(signal))) return undefined;
    if (afterMs < this.#headStartMs && isOvertaken(signal)) return undefined;
    const end = isOvertaken(signal) ? ', another CA answered first' : '';
    return new AgentError(
      'ERR_TIMEOUT',
      `sign at ${name}: no answer within ${Math.round(afterMs / 100) / 10} s${end}`,
      { retry: 'soon' },
    );
  }

  /** The gate judges the reply as a whole; here only whether another CA would do better. */
  #checkBelieved(
    { client }: Member,
    { certificatesDer }: IssuedChain,
    { csrDer }: SignRequest,
  ): void {
    const trust = this.trust.value;
    if (!trust) return;
    try {
      const certificates = readableCertificates(certificatesDer);
      const leaf = leafOfRequest(certificates, csrDer);
      if (leaf) verifyIssued(leaf, certificates, trust, this.deps.clock.now());
    } catch (cause) {
      throw new AgentError(
        'ERR_CA_RESPONSE',
        `sign at ${client.name}: its certificate does not verify by the served bundle`,
        {
          retry: 'slow',
          cause,
        },
      );
    }
  }

  #signedBy(member: Member, cause: AgentError | undefined): void {
    const previous = this.#active;
    this.#active = member;
    const [first] = this.#members;
    if (member !== previous && (previous || member !== first)) {
      const facts = { ca: member.client.name, before: (previous ?? first!).client.name };
      if (this.#rank(member) < this.#rank(previous ?? first!))
        this.deps.log.info('failed back to an earlier CA', facts);
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
      ...this.#members
        .slice(0, this.#rank(member))
        .map(({ breaker }) => (breaker.kind === 'open' ? breaker.probeAt : 0)),
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
    // What it said to the old one counts no more.
    if (what === 'credential') member.breaker = CLOSED;
    this.#tell(what);
  }

  #tell(what: 'signer' | 'credential'): void {
    for (const { call } of [...this.#listeners]) call(what);
  }
}

/** Whether a signal fired because another CA was faster. */
function isOvertaken({ reason }: AbortSignal): boolean {
  return reason instanceof Overtaken;
}

/** What all of them said: as soon as the most hopeful says, not before the shortest wish. */
function togetherError(errors: readonly (readonly [Member, AgentError])[]): AgentError {
  const [first] = errors;
  if (errors.length === 1 && first) return first[1];
  const all = errors.map(([, error]) => error);
  const retry =
    (['soon', 'unsure', 'slow'] as const).find((each) =>
      all.some((error) => error.retry === each),
    ) ?? 'slow';
  const wishes = all.map(({ retryAfterMs }) => retryAfterMs ?? 0);
  const hints = all.flatMap(({ hint }) => hint ?? []);
  return new AgentError(
    all.every(({ code }) => code === all[0]?.code) ? all[0]!.code : 'ERR_CA_UNAVAILABLE',
    `sign: no CA could: ${all.map(({ message }) => message).join('; ')}`,
    {
      retry,
      retryAfterMs: Math.min(...wishes),
      cause: all[0],
      ...(hints.length > 0 && { hint: hints.join('; ') }),
    },
  );
}
