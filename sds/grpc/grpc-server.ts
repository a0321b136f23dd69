import type { Socket } from 'node:net';
import { sleepFor } from '../../agent/base/clock';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import { parseGrpcTimeout } from '../../agent/http2/grpc-timeout';
import { ServerConnection } from '../../agent/http2/server-connection';
import type { ServerStream, StreamListener } from '../../agent/http2/server-stream';
import { Call } from './call';
import type { Connection, HeldStream } from './connections';
import { LIMITS, PATIENCE } from './limits';
import { MessageReader, UnreadableMessage } from './message-reader';
import { RequestMemory } from './request-memory';
import type { StreamLimiter } from './stream-limiter';

/** What answers the calls of one method. */
export type Method =
  /** Exactly one request, whole when it is called. */
  | { readonly requests: 'one'; serve(call: Call, request: Buffer): void }
  /** Any number of them: `serve` sets the call's listener. */
  | { readonly requests: 'many'; serve(call: Call): void };

/** Methods by their path, `/SERVICE/METHOD`. */
export type Methods = ReadonlyMap<string, Method>;

/** Counts and logs what clients do. */
export interface CallObserver {
  /** A connection, stream or message that is over a limit or malformed. */
  refused(reason: string, facts: Readonly<Record<string, unknown>>): void;
  /** A fault of our own in one call. */
  failed(subject: { readonly id: number; readonly node: string }, cause: unknown): void;
}

/** gRPC over our own HTTP/2, on sockets that were accepted elsewhere. */
export class GrpcServer {
  readonly #incomplete = new Set<IncompleteCall>();
  readonly #memory: RequestMemory;
  #lastId = 0;

  /**
   * @param observer  Told of what clients do against the rules of HTTP/2.
   * @param onOwed    Called when a client owes the rest of its request: `isOwed` says whether it does.
   */
  constructor(
    private readonly methods: Methods,
    private readonly room: StreamLimiter,
    private readonly observer: CallObserver,
    private readonly onOwed: () => void,
    private readonly deps: Deps,
  ) {
    this.#memory = new RequestMemory((facts) => observer.refused('memory', facts));
  }

  /** Speaks HTTP/2 on an accepted socket. */
  serve(socket: Socket, connection: Connection): void {
    connection.http2 = new ServerConnection(
      socket,
      { streams: LIMITS.streamsPerConnection, headerBytes: LIMITS.headerBytes },
      {
        opened: (stream) => this.#open(stream, connection),
        refused: ({ code, rule, stream }) =>
          this.observer.refused(stream === undefined ? 'http2-connection' : 'http2-stream', {
            rule,
            code,
            stream,
            connection: connection.id,
          }),
        failed: (cause) => this.observer.failed({ id: connection.id, node: '' }, cause),
        now: () => performance.now(),
      },
    );
  }

  /** Whether a client has begun a request and not ended it. */
  isOwed(): boolean {
    return this.#incomplete.size > 0;
  }

  /** One sweep has passed. */
  sweep(): void {
    for (const each of [...this.#incomplete]) each.sweep();
  }

  #open(stream: ServerStream, connection: Connection): void {
    const { method, path, bytes, values } = stream.headers;
    if (method !== 'POST' || !/^application\/grpc($|[+;])/.test(values('content-type')[0] ?? '')) {
      stream.respond([[':status', method === 'POST' ? '415' : '405']], true);
      return;
    }
    const call = new Call(stream, connection);
    if (bytes > LIMITS.headerBytes) {
      call.finish(
        GrpcStatus.RESOURCE_EXHAUSTED,
        `headers: must not be longer than ${LIMITS.headerBytes} bytes`,
      );
      return;
    }
    const found = this.methods.get(path);
    if (!found) {
      call.finish(
        GrpcStatus.UNIMPLEMENTED,
        `there is no method ${path.slice(0, LIMITS.shownName)} here`,
      );
      return;
    }
    const [timeout] = values('grpc-timeout');
    if (timeout !== undefined && !this.#limit(call, timeout)) return;
    const reader = new MessageReader(LIMITS.requestBytes, values('grpc-encoding')[0]);
    call.atEnd(() => this.#memory.release(connection, reader));
    if (found.requests === 'one') {
      this.#collect(call, stream, reader, (request) => found.serve(call, request));
      return;
    }
    stream.listener = this.#listen(call, reader, {
      message: (message) => call.listener?.message?.(message),
      end: () => {
        if (reader.amid) call.fail(GrpcStatus.INTERNAL, 'request: must be whole');
        else call.listener?.end?.();
      },
    });
    found.serve(call);
  }

  /** Ends a call when its client's time is over. False where that is no time. */
  #limit(call: Call, timeout: string): boolean {
    const ms = parseGrpcTimeout(timeout);
    if (ms === undefined) {
      call.finish(
        GrpcStatus.INVALID_ARGUMENT,
        'grpc-timeout: must be up to eight digits and one of H, M, S, m, u, n',
      );
      return false;
    }
    const timer = new AbortController();
    call.atEnd(() => timer.abort());
    sleepFor(this.deps.clock, ms, timer.signal).then(
      () => call.fail(GrpcStatus.DEADLINE_EXCEEDED, 'deadline exceeded'),
      (caught) => {
        if (!(caught instanceof AgentError && caught.code === 'ERR_ABORTED'))
          this.observer.failed({ id: 0, node: '' }, caught);
      },
    );
    return true;
  }

  /** Waits for the one request of a call. Such a call has a place among the streams, so nobody opens any number of them and says nothing. */
  #collect(
    call: Call,
    stream: ServerStream,
    reader: MessageReader,
    serve: (request: Buffer) => void,
  ): void {
    if (!this.room.enter(call)) return;
    this.#lastId += 1;
    let request: Buffer | undefined;
    const incomplete = new IncompleteCall(this.#lastId, call);
    const leave = () => {
      if (this.#incomplete.delete(incomplete)) this.room.leave(call.connection, incomplete);
    };
    this.room.hold(call.connection, incomplete);
    this.#incomplete.add(incomplete);
    call.atEnd(leave);
    this.onOwed();
    stream.listener = this.#listen(call, reader, {
      message: (message) => {
        if (request)
          throw new UnreadableMessage(GrpcStatus.UNIMPLEMENTED, 'request: must be one message');
        request = message;
      },
      end: () => {
        leave();
        if (request && !reader.amid) serve(request);
        else call.finish(GrpcStatus.UNIMPLEMENTED, 'request: must be one whole message');
      },
    });
  }

  /** Reads messages from a stream; what is wrong with one ends its call. */
  #listen(
    call: Call,
    reader: MessageReader,
    to: { message(bytes: Buffer): void; end(): void },
  ): StreamListener {
    const { connection } = call;
    return {
      data: (chunk) => {
        try {
          for (const message of reader.read(chunk)) {
            if (call.over) return;
            to.message(message);
          }
          if (!call.over) this.#memory.hold(connection, reader);
        } catch (caught) {
          if (!(caught instanceof UnreadableMessage)) throw caught;
          this.observer.refused('message', { rule: caught.message, connection: connection.id });
          call.fail(caught.code, caught.message);
        }
      },
      end: () => {
        if (!call.over) to.end();
      },
      gone: () => call.lose(),
    };
  }
}

/** A call whose one request is not whole. */
class IncompleteCall implements HeldStream {
  #sweeps = 0;

  constructor(
    readonly id: number,
    private readonly call: Call,
  ) {}

  sweep(): void {
    this.#sweeps += 1;
    if (this.#sweeps > PATIENCE.silentStreamSweeps)
      this.fail(GrpcStatus.DEADLINE_EXCEEDED, 'no request came');
  }

  fail(code: GrpcStatus, details: string): void {
    this.call.fail(code, details);
  }
}
