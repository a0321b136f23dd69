import type { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Call } from '../grpc/call';
import type { Connection, HeldStream } from '../grpc/connections';
import { PATIENCE } from '../grpc/limits';
import type { Pieces } from '../grpc/pieces';
import type { AnswerState } from './answer-state';

/** What a stream needs of its server. */
export interface PushHost<Method> {
  offer(method: Method): AnswerState;
  sent(stream: PushStream<Method>): void;
  /** How it ended: `cancelled` by the client, or the status that it was given. */
  closed(stream: PushStream<Method>, status: GrpcStatus | 'cancelled'): void;
}

/**
 * One stream of a method that pushes: it says what there is at once, then each change. One answer is on its way at a time, so a client that
 * does not read makes no queue grow and gets the newest when it reads again; one that does not read for a minute loses its connection.
 */
export class PushStream<Method> implements HeldStream {
  #sent: Pieces | undefined;
  #writing = false;
  #ended = false;
  #sweeps = 0;

  constructor(
    readonly id: number,
    readonly method: Method,
    readonly connection: Connection,
    private readonly call: Call,
    private readonly host: PushHost<Method>,
  ) {
    call.follow({ gone: () => this.#end('cancelled') });
  }

  /** What is offered may have changed. */
  changed(): void {
    if (this.#ended || this.#writing) return;
    const offer = this.host.offer(this.method);
    if (offer.kind === 'refusal') this.fail(offer.code, offer.details);
    else if (offer.kind === 'answer' && offer.message !== this.#sent) this.#send(offer.message);
  }

  isOwed(): boolean {
    return this.#writing;
  }

  /** One sweep has passed. */
  sweep(): void {
    this.#sweeps += 1;
    // A status would queue behind what is not being read.
    if (this.#sweeps > PATIENCE.unreadSweeps) this.connection.socket.destroy();
  }

  fail(code: GrpcStatus, details: string): void {
    if (this.#ended) return;
    this.#end(code);
    this.call.finish(code, details);
  }

  #send(message: Pieces): void {
    this.#sent = message;
    this.#writing = true;
    this.#sweeps = 0;
    this.host.sent(this);
    this.call.send(message, () => {
      this.#writing = false;
      this.changed();
    });
  }

  #end(status: GrpcStatus | 'cancelled'): void {
    if (this.#ended) return;
    this.#ended = true;
    this.host.closed(this, status);
  }
}
