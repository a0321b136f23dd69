import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { LogRateLimit } from '../../agent/base/log-rate-limit';
import { GrpcStatus, grpcStatusName } from '../../agent/http2/grpc-status';
import type { Call } from '../grpc/call';
import type { Answerer } from '../grpc/lazy';
import { LIMITS } from '../grpc/limits';
import { grpcStatus } from '../grpc/status';
import type { StreamLimiter } from '../grpc/stream-limiter';
import type { SdsTelemetry } from '../secrets/sds-telemetry';
import { type AnswerState, sameAnswer } from './answer-state';
import {
  type Answer,
  type JwtSources,
  jwtBundlesAnswer,
  jwtSvidAnswer,
  jwtUnavailable,
  validationAnswer,
} from './jwt-answers';
import { OwnJwtKeys } from './own-jwt-keys';
import { PushStream } from './push-stream';
import type { StreamedMethod, UnaryMethod } from './service';
import { type X509Sources, x509BundlesAnswer, x509SvidAnswer } from './x509-answers';

export interface WorkloadApiOptions extends X509Sources {
  readonly jwt: JwtSources;
  readonly room: StreamLimiter;
  readonly observer: SdsTelemetry;
  /** Called when a client may not have read its answer: `isOwed` says whether it has. */
  readonly onOwed: () => void;
}

/** Every call carries it, so that no browser or proxy can be made to send one (SPIFFE Workload Endpoint, section 3). */
const SECURITY_HEADER = 'workload.spiffe.io';
/** Whoever calls again and again costs counters, not lines. */
const LINES_A_MINUTE = 20;
const MISSING_HEADER = `the header ${SECURITY_HEADER}: true must be there`;

/**
 * The SPIFFE Workload API on the socket of SDS: its streams, and what each of them is told when. Whoever can open the socket is the
 * workload; there is no other gate.
 *
 * @see SPIFFE Workload API; SPIFFE Workload Endpoint.
 */
export class WorkloadApi implements Answerer {
  readonly #options: WorkloadApiOptions;
  readonly #deps: Deps;
  readonly #streams = new Set<PushStream<StreamedMethod>>();
  readonly #answers = new Map<StreamedMethod, AnswerState>();
  readonly #stale = new Set<StreamedMethod>();
  readonly #endings: (() => void)[];
  readonly #ownKeys: OwnJwtKeys;
  readonly #failures: LogRateLimit;
  #lastId = 0;
  /** Calls of methods with one answer that wait for it. */
  #waiting = 0;

  constructor(options: WorkloadApiOptions, deps: Deps) {
    this.#options = options;
    this.#deps = deps;
    this.#failures = new LogRateLimit(deps.clock, LINES_A_MINUTE);
    const failed = (cause: unknown) =>
      this.#failures.spend((withheld) =>
        deps.log.error('JWT-SVID keys unavailable', { cause, withheld }),
      );
    this.#ownKeys = new OwnJwtKeys(
      options.jwt,
      () => this.#changed(['FetchJWTBundles']),
      failed,
      deps,
    );
    const changed = () => {
      this.#ownKeys.look();
      this.#changed(['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles']);
    };
    this.#endings = [options.state, options.crl, options.federated].flatMap((each) =>
      each ? [each.subscribe(changed)] : [],
    );
  }

  /** Takes a call of a method that streams. */
  open(method: StreamedMethod, call: Call): void {
    const { room } = this.#options;
    if (call.over || !this.#accept(method, call) || !room.enter(call)) return;
    const { connection } = call;
    this.#lastId += 1;
    const stream = new PushStream<StreamedMethod>(this.#lastId, method, connection, call, {
      offer: (name) => this.#offer(name),
      sent: () => {
        this.#deps.metrics.record('workload_api_answers_total', { method });
        this.#options.onOwed();
      },
      closed: (ended, status) => {
        this.#streams.delete(ended);
        room.leave(connection, ended);
        this.#forgetUnheard(method);
        if (typeof status === 'number')
          this.#deps.metrics.record('workload_api_refusals_total', {
            method,
            code: grpcStatusName(status)!,
          });
      },
    });
    this.#streams.add(stream);
    room.hold(connection, stream);
    stream.changed();
  }

  /** Answers a call of a method with one answer. */
  async answer(method: UnaryMethod, call: Call, request: Buffer): Promise<void> {
    const refuse = (code: GrpcStatus, details: string) => {
      this.#deps.metrics.record('workload_api_refusals_total', {
        method,
        code: grpcStatusName(code)!,
      });
      call.finish(code, details);
    };
    if (!isSecure(call)) return refuse(GrpcStatus.INVALID_ARGUMENT, MISSING_HEADER);
    if (this.#waiting >= LIMITS.fetches)
      return refuse(GrpcStatus.UNAVAILABLE, `more than ${LIMITS.fetches} calls wait already`);
    this.#waiting += 1;
    try {
      const answer = await this.#answer(method, request);
      if (answer.kind === 'refusal') return refuse(answer.code, answer.details);
      this.#deps.metrics.record('workload_api_answers_total', { method });
      call.send(answer.message);
      call.finish();
    } catch (caught) {
      const { code, details } = this.#statusOf(caught);
      refuse(code, details);
    } finally {
      this.#waiting -= 1;
    }
  }

  streams(): number {
    return this.#streams.size;
  }

  isOwed(): boolean {
    for (const stream of this.#streams) if (stream.isOwed()) return true;
    return false;
  }

  sweep(): void {
    for (const stream of [...this.#streams]) if (stream.isOwed()) stream.sweep();
  }

  /** Ends every stream. */
  async close(): Promise<void> {
    for (const end of this.#endings) end();
    this.#ownKeys.close();
    for (const stream of [...this.#streams])
      stream.fail(GrpcStatus.UNAVAILABLE, 'the agent is stopping');
  }

  #accept(method: string, call: Call): boolean {
    if (isSecure(call)) return true;
    this.#deps.metrics.record('workload_api_refusals_total', {
      method,
      code: 'INVALID_ARGUMENT',
    });
    this.#options.observer.refused('security-header', { method });
    call.finish(GrpcStatus.INVALID_ARGUMENT, MISSING_HEADER);
    return false;
  }

  #changed(methods: readonly StreamedMethod[]): void {
    for (const method of methods) this.#stale.add(method);
    for (const stream of [...this.#streams]) if (methods.includes(stream.method)) stream.changed();
  }

  #answer(method: UnaryMethod, request: Buffer): Promise<Answer> {
    switch (method) {
      case 'FetchJWTSVID':
        return jwtSvidAnswer(request, this.#options, this.#options.jwt, this.#deps);
      case 'ValidateJWTSVID':
        return validationAnswer(request, this.#options, this.#options.jwt, this.#deps);
    }
  }

  #statusOf(caught: unknown): { readonly code: GrpcStatus; readonly details: string } {
    const status = grpcStatus(caught);
    if (status.code !== GrpcStatus.INTERNAL) return status;
    this.#failures.spend((withheld) =>
      this.#deps.log.error('workload api call failed', { cause: caught, withheld }),
    );
    return caught instanceof AgentError ? jwtUnavailable() : status;
  }

  /** An answer may hold a private key: it is not kept where nobody listens. */
  #forgetUnheard(method: StreamedMethod): void {
    for (const stream of this.#streams) if (stream.method === method) return;
    this.#answers.delete(method);
  }

  /** What a method answers at this moment. A refusal is looked at anew each time: it may be one of time. */
  #offer(method: StreamedMethod): AnswerState {
    const known = this.#answers.get(method);
    if (known?.kind === 'answer' && !this.#stale.has(method)) return known;
    const offer = sameAnswer(known, this.#make(method));
    this.#answers.set(method, offer);
    this.#stale.delete(method);
    return offer;
  }

  #make(method: StreamedMethod): AnswerState {
    switch (method) {
      case 'FetchX509SVID':
        return x509SvidAnswer(this.#options, this.#deps.clock.now());
      case 'FetchX509Bundles':
        return x509BundlesAnswer(this.#options);
      case 'FetchJWTBundles':
        return this.#ownKeys.offer((keys) => jwtBundlesAnswer(this.#options, keys));
    }
  }
}

function isSecure(call: Call): boolean {
  const header = call.header(SECURITY_HEADER);
  return header.length === 1 && header[0] === 'true';
}
