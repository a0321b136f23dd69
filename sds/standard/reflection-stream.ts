import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Call } from '../grpc/call';
import type { HeldStream } from '../grpc/connections';
import { PATIENCE } from '../grpc/limits';
import { grpcStatus } from '../grpc/status';
import {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from '../proto/generated/grpc/reflection/v1/reflection';
import { decodeMessage } from '../secrets/messages';
import { reflectionAnswer } from './reflection';

/** Questions that may wait for their answers to be read. */
const MAX_UNREAD = 100;

/** One stream of server reflection: an answer to each question, in order. Who asks nothing, or reads nothing, for half a minute is let go. */
export class ReflectionStream implements HeldStream {
  #unread = 0;
  #sweeps = 0;

  constructor(
    readonly id: number,
    private readonly call: Call,
  ) {
    call.follow({
      message: (bytes) => this.#take(bytes),
      end: () => call.finish(),
      gone: () => undefined,
    });
  }

  /** One sweep has passed. */
  sweep(): void {
    this.#sweeps += 1;
    if (this.#sweeps > PATIENCE.silentStreamSweeps)
      this.fail(GrpcStatus.DEADLINE_EXCEEDED, 'no request came');
  }

  fail(code: GrpcStatus, details: string): void {
    this.call.fail(code, details);
  }

  #take(bytes: Buffer): void {
    this.#sweeps = 0;
    this.#unread += 1;
    if (this.#unread > MAX_UNREAD) {
      this.fail(GrpcStatus.RESOURCE_EXHAUSTED, `more than ${MAX_UNREAD} answers are not read`);
      return;
    }
    try {
      const originalRequest = decodeMessage(
        'server reflection request',
        bytes,
        ServerReflectionRequest,
      );
      const answer = {
        validHost: originalRequest.host,
        originalRequest,
        messageResponse: reflectionAnswer(originalRequest),
      };
      this.call.send([ServerReflectionResponse.encode(answer).finish()], () => {
        this.#unread -= 1;
      });
    } catch (caught) {
      const { code, details } = grpcStatus(caught);
      this.fail(code, details);
    }
  }
}
