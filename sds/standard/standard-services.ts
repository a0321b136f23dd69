import type { Watched } from '../../agent/base/watched';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { CertState } from '../../agent/identity/cert-state';
import type { Call } from '../grpc/call';
import type { Answerer } from '../grpc/lazy';
import { grpcStatus } from '../grpc/status';
import type { StreamLimiter } from '../grpc/stream-limiter';
import {
  HealthCheckRequest,
  HealthCheckResponse,
  HealthCheckResponse_ServingStatus,
} from '../proto/generated/grpc/health/v1/health';
import { decodeMessage } from '../secrets/messages';
import { type AnswerState, sameAnswer } from '../workload-api/answer-state';
import { PushStream } from '../workload-api/push-stream';
import { SERVICES } from './reflection';
import { ReflectionStream } from './reflection-stream';

export interface StandardServicesOptions {
  readonly state: Watched<CertState>;
  readonly room: StreamLimiter;
  /** Called when a client may not have read its answer, or may have nothing to ask: `isOwed` says whether it has. */
  readonly onOwed: () => void;
}

/**
 * What tools expect beside the services: `grpc.health.v1.Health` says SERVING while a certificate is in service, for the server ("") and for
 * each service; reflection describes them. Neither takes the header of the Workload API, since neither gives anything of it away.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/health-checking.md; SPIFFE Workload Endpoint, section 7.
 */
export class StandardServices implements Answerer {
  readonly #options: StandardServicesOptions;
  readonly #watches = new Set<PushStream<'Watch'>>();
  readonly #reflections = new Set<ReflectionStream>();
  readonly #unsubscribe: () => void;
  #lastId = 0;

  constructor(options: StandardServicesOptions) {
    this.#options = options;
    this.#unsubscribe = options.state.subscribe(() => {
      for (const stream of [...this.#watches]) stream.changed();
    });
  }

  check(call: Call, request: Buffer): void {
    this.#withService(call, request, (service) => {
      if (!isServed(service))
        return call.finish(
          GrpcStatus.NOT_FOUND,
          `there is no service ${service.slice(0, 200)} here`,
        );
      call.send([this.#health(service)]);
      call.finish();
    });
  }

  watch(call: Call, request: Buffer): void {
    const { room, onOwed } = this.#options;
    this.#withService(call, request, (service) => {
      if (call.over || !room.enter(call)) return;
      const { connection } = call;
      this.#lastId += 1;
      let said: AnswerState | undefined;
      const stream = new PushStream<'Watch'>(this.#lastId, 'Watch', connection, call, {
        // The same octets for the same health, so that a stream hears of changes only.
        offer: () => {
          said = sameAnswer(said, { kind: 'answer', message: [this.#health(service)] });
          return said;
        },
        sent: onOwed,
        closed: (ended) => {
          this.#watches.delete(ended);
          room.leave(connection, ended);
        },
      });
      this.#watches.add(stream);
      room.hold(connection, stream);
      stream.changed();
    });
  }

  reflect(call: Call): void {
    const { room, onOwed } = this.#options;
    if (!room.enter(call)) return;
    const { connection } = call;
    this.#lastId += 1;
    const stream = new ReflectionStream(this.#lastId, call);
    call.atEnd(() => {
      this.#reflections.delete(stream);
      room.leave(connection, stream);
    });
    this.#reflections.add(stream);
    room.hold(connection, stream);
    onOwed();
  }

  streams(): number {
    return this.#watches.size + this.#reflections.size;
  }

  isOwed(): boolean {
    if (this.#reflections.size > 0) return true;
    for (const stream of this.#watches) if (stream.isOwed()) return true;
    return false;
  }

  sweep(): void {
    for (const stream of [...this.#watches]) if (stream.isOwed()) stream.sweep();
    for (const stream of [...this.#reflections]) stream.sweep();
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    for (const stream of [...this.#watches, ...this.#reflections])
      stream.fail(GrpcStatus.UNAVAILABLE, 'the agent is stopping');
  }

  #withService(call: Call, request: Buffer, use: (service: string) => void): void {
    try {
      use(decodeMessage('health check request', request, HealthCheckRequest).service);
    } catch (caught) {
      const { code, details } = grpcStatus(caught);
      call.finish(code, details);
    }
  }

  #health(service: string): Buffer {
    const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;
    const { kind } = this.#options.state.value;
    const status = kind === 'current' || kind === 'overdue' ? SERVING : NOT_SERVING;
    return Buffer.from(
      HealthCheckResponse.encode({ status: isServed(service) ? status : SERVICE_UNKNOWN }).finish(),
    );
  }
}

function isServed(service: string): boolean {
  return service === '' || SERVICES.includes(service);
}
