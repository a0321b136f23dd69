import type { CaClient, IssuedChain } from '../../ca-client/ca-client';
import { withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import type { CertificateEngine } from '../identity/engine';
import type { KeyAlgorithm, KeyPair } from '../identity/keys';
import type { SpiffeId } from '../identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../identity/svid';
import type { AttemptTimeout } from './rotation';

/** What one certificate is made from. */
export interface IssueOptions {
  readonly ca: CaClient;
  readonly id: SpiffeId;
  readonly engine: CertificateEngine;
  readonly keyAlgorithm: KeyAlgorithm;
  /** What is asked for, milliseconds; the CA decides. */
  readonly ttlMs: number;
  /** Waits until this attempt may begin, where others ask the same CA; returns what is to be called at its end. */
  readonly turn?: ((signal: AbortSignal) => Promise<() => void>) | undefined;
  /** Where a key waits over a restart, once a proof was shown that is good for that key alone. */
  readonly keptKey?: KeptKey | undefined;
}

/** A key without a certificate, beyond the life of this process. */
export interface KeptKey {
  /** Undefined where none was kept for this identity. */
  load(): Promise<KeyPair | undefined>;
  /** Durable when it resolves. @throws AgentError ERR_OUTPUT. */
  save(key: KeyPair): Promise<void>;
}

interface PendingRequest {
  readonly key: KeyPair;
  readonly csrDer: Uint8Array;
}

/** Makes the certificates of one identity, one attempt at a time, and keeps the only deadline that an attempt has. */
export class Issuer {
  /** Asked for and not answered: the next attempt asks for the same, which a CA may already be about to answer. */
  #pending: PendingRequest | undefined;
  /** The call for that which an attempt has left open, answered meanwhile or not: until then the next waits for it and does not ask again. */
  #open: { readonly reply: Promise<IssuedChain>; readonly untilAt: number } | undefined;
  /** A proof was shown that is good for the pending key alone: it is given up for nothing but its certificate. */
  #isBound = false;
  /** A key of before the restart may still be waiting for its certificate. */
  #mayBeKept = true;

  constructor(
    private readonly options: IssueOptions,
    private readonly deps: Deps,
  ) {}

  /**
   * One attempt: a key, a CSR for it, the CA's answer, the gate. A key is used for one certificate, and given up once the CA has said no,
   * unless a one-time proof was shown with it. An answer that comes after the deadline never becomes current.
   *
   * @param timeout  How long it may take; asked anew when it is this attempt's turn.
   * @param begun    Is told how long that is, milliseconds.
   * @throws AgentError of the CA; ERR_TIMEOUT without an answer in time; ERR_CA_RESPONSE from the gate; ERR_ABORTED.
   */
  async issue(
    timeout: () => AttemptTimeout,
    begun: (ms: number) => void,
    signal: AbortSignal,
  ): Promise<Svid> {
    const leave = await this.#turn(timeout(), signal);
    try {
      const allowed = timeout();
      begun(allowed.ms);
      return await this.#within(allowed, signal);
    } catch (caught) {
      if (!this.#isBound && !isUnanswered(AgentError.from(caught))) this.#pending = undefined;
      throw caught;
    } finally {
      leave?.();
    }
  }

  /** Where what remains of the certificate is short, it is not waited away: whoever has waited for a quarter of it goes in unbidden. */
  async #turn({ turnMs }: AttemptTimeout, signal: AbortSignal): Promise<(() => void) | undefined> {
    const { turn } = this.options;
    if (!turn || turnMs === undefined) return turn?.(signal);
    return withDeadline(this.deps.clock, turnMs, 'wait for a slot', signal, turn).catch(
      (caught: unknown) => {
        if (signal.aborted) throw caught;
        return undefined;
      },
    );
  }

  async #within(allowed: AttemptTimeout, signal: AbortSignal): Promise<Svid> {
    const { ca, id } = this.options;
    const call = new RecordedCall(ca.name, this.deps);
    try {
      const { request, reply } = await this.#ask(call, allowed, signal);
      call.ended('ok');
      // Read after the answer: a bundle that changed meanwhile is the one that peers judge by.
      const trust = ca.trust.value;
      if (!trust)
        throw new AgentError('ERR_CA_UNAVAILABLE', `sign: no trust bundle of ${ca.name} yet`, {
          retry: 'soon',
        });
      const source = reply.source ?? ca.name;
      const svid = acceptIssuedChain(
        { id, key: request.key, source },
        reply.certificatesDer,
        trust,
        this.deps.clock.now(),
      );
      this.#pending = undefined;
      this.#isBound = false;
      return svid;
    } catch (caught) {
      const error = AgentError.from(caught);
      call.ended(error.code);
      throw error.code === 'ERR_TIMEOUT' && error.hint === undefined
        ? withHint(error, allowed.limit)
        : error;
    }
  }

  async #ask(call: RecordedCall, { ms, callMs }: AttemptTimeout, signal: AbortSignal) {
    const { clock } = this.deps;
    const what = `sign at ${this.options.ca.name}`;
    const answerBy = clock.now() + ms;
    const answered = await withDeadline(clock, ms, what, signal, async (each) => {
      const request = this.#pending ?? (await this.#request());
      if (each.aborted) throw each.reason;
      this.#pending ??= request;
      call.begun();
      const reply =
        callMs > ms || this.#open
          ? this.#openCall(callMs, () =>
              withDeadline(clock, callMs, what, signal, (longer) =>
                this.#sign(request, answerBy, longer),
              ),
            )
          : this.#sign(request, answerBy, each);
      return { request, reply: await reply };
    });
    this.#open = undefined;
    return answered;
  }

  /** The call that is open, or a new one that stays open beyond its attempt. One that was given up meanwhile is none. */
  #openCall(ms: number, begin: () => Promise<IssuedChain>): Promise<IssuedChain> {
    const now = this.deps.clock.now();
    if (this.#open && now < this.#open.untilAt) return this.#open.reply;
    const opened = { reply: begin(), untilAt: now + ms };
    this.#open = opened;
    opened.reply.catch(() => {
      if (this.#open === opened) this.#open = undefined;
    });
    return opened.reply;
  }

  #sign(request: PendingRequest, answerBy: number, signal: AbortSignal): Promise<IssuedChain> {
    const { ca, id, ttlMs } = this.options;
    const ttlSeconds = Math.max(Math.round(ttlMs / 1_000), 1);
    return ca.sign(
      { id, csrDer: request.csrDer, ttlSeconds, answerBy, keepKey: () => this.#keep(request) },
      signal,
    );
  }

  async #request(): Promise<PendingRequest> {
    const { engine, id, keyAlgorithm } = this.options;
    const key = (await this.#loadKept()) ?? (await engine.generateKeyPair(keyAlgorithm));
    return { key, csrDer: await engine.createCsr(key, id) };
  }

  async #loadKept(): Promise<KeyPair | undefined> {
    if (!this.#mayBeKept) return undefined;
    this.#mayBeKept = false;
    const key = await this.options.keptKey?.load();
    this.#isBound = key !== undefined;
    return key;
  }

  async #keep({ key }: PendingRequest): Promise<void> {
    if (!this.#isBound) await this.options.keptKey?.save(key);
    this.#isBound = true;
  }
}

/** A call of the CA in the metrics, once, however it ends. */
class RecordedCall {
  #since: number | undefined;

  constructor(
    private readonly ca: string,
    private readonly deps: Deps,
  ) {}

  begun(): void {
    this.#since = this.deps.clock.now();
  }

  ended(outcome: string): void {
    if (this.#since === undefined) return;
    const seconds = Math.max(this.deps.clock.now() - this.#since, 0) / 1_000;
    this.#since = undefined;
    this.deps.metrics.record('ca_request_duration_seconds', { ca: this.ca, outcome }, seconds);
  }
}

/** Whether the CA may still have the request, or may have answered it unheard. */
function isUnanswered({ code }: AgentError): boolean {
  return code === 'ERR_TIMEOUT' || code === 'ERR_CA_UNAVAILABLE';
}

function withHint(error: AgentError, limit: AttemptTimeout['limit']): AgentError {
  const hint =
    limit === 'setting'
      ? 'see whether the authority works; raise --ca-timeout where it takes longer to sign'
      : 'the certificate in service allows no longer: ask for a longer life (--ttl) where the authority takes longer to sign';
  return new AgentError(error.code, error.message, {
    retry: error.retry,
    cause: error.cause,
    hint,
  });
}
