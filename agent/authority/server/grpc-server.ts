import type { TLSSocket } from 'node:tls';
import { CREATE_CERTIFICATE_PATH, SERVER } from '../../../ca-client/istio/wire/service';
import type { Deps } from '../../base/deps';
import { LogRateLimit } from '../../base/log-rate-limit';
import type { Field } from '../../http2/hpack';
import type { Http2Error } from '../../http2/http2-error';
import { lengthPrefixed } from '../../http2/length-prefixed';
import type { RequestHeaders } from '../../http2/request-headers';
import { ServerConnection } from '../../http2/server-connection';
import type { ServerStream } from '../../http2/server-stream';
import { callDeadline } from './call-deadline';
import type { CertificateCall, CertificateService } from './certificate-service';
import { type Connection, type Connections, hasEnded, type IncompleteCall } from './connections';
import { LIMITS } from './limits';
import { RequestReader } from './request-reader';
import { type Refusal, refusalOf, statusHeaders } from './status';

export interface GrpcServer {
  /** Speaks HTTP/2 on a socket whose TLS handshake is done. */
  serve(socket: TLSSocket, connection: Connection): void;
  /** Tells every client, takes no more calls, and lets those that are there come to their end. */
  close(): void;
}

const HEADERS: readonly Field[] = [
  [':status', '200'],
  ['server', SERVER],
  ['content-type', 'application/grpc'],
  ['grpc-accept-encoding', 'identity'],
];
/** Whoever breaks rules again and again costs counters, not lines. */
const LINES_A_MINUTE = 20;

/**
 * gRPC around the service: one unary method, and neither reflection nor health nor compression beside it.
 *
 * By hand on our own HTTP/2, since a CA must see what a gRPC library keeps to itself: a header that is there twice, a request that never
 * ends, a stream that its client leaves half open.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
export function createGrpcServer(
  service: CertificateService,
  connections: Connections,
  deps: Deps,
): GrpcServer {
  const open = new Set<ServerConnection>();
  const lines = new LogRateLimit(deps.clock, LINES_A_MINUTE);
  const refusedBy = (peer: string, { code, rule, stream }: Http2Error) => {
    const reason = stream === undefined ? 'http2-connection' : 'http2-stream';
    deps.metrics.record('ca_refused_total', { reason });
    lines.spend((withheld) =>
      deps.log.warn('client refused', { reason, rule, code, stream, peer, withheld }),
    );
  };
  const opened = (stream: ServerStream, connection: Connection) => {
    if (hasEnded(connection, deps.clock.now())) {
      // Its client sends a call that was refused unread over a new connection, where it can show what it has now.
      connection.leave?.();
      stream.reset('REFUSED_STREAM');
      return;
    }
    const { values } = stream.headers;
    const call = {
      authorization: values('authorization'),
      deadline: callDeadline(timeoutOf(values('grpc-timeout'))),
      connection,
    };
    new Exchange(stream, call, service, connections, deps).run(misdirected(stream.headers));
  };
  return {
    serve: (socket, connection) => {
      const http2 = new ServerConnection(
        socket,
        { streams: LIMITS.callsPerConnection, headerBytes: LIMITS.headerBytes },
        {
          opened: (stream) => opened(stream, connection),
          refused: (violation) => refusedBy(connection.peer, violation),
          failed: (cause) => deps.log.error('call failed', { peer: connection.peer, cause }),
          now: () => performance.now(),
        },
      );
      open.add(http2);
      socket.once('close', () => open.delete(http2));
      connection.leave = () => http2.leave();
    },
    close: () => {
      for (const each of open) each.leave();
    },
  };
}

/** How to answer what is no call of ours, before its first byte; undefined where it is one. */
function misdirected({
  method,
  path,
  bytes,
  values,
}: RequestHeaders): readonly Field[] | undefined {
  if (method !== 'POST' || !/^application\/grpc($|[+;])/.test(values('content-type')[0] ?? ''))
    return [[':status', '415']];
  if (bytes > LIMITS.headerBytes) {
    return refused({
      status: 'RESOURCE_EXHAUSTED',
      message: `headers: must not be longer than ${LIMITS.headerBytes} bytes`,
    });
  }
  if (path === CREATE_CERTIFICATE_PATH) return undefined;
  return refused({
    status: 'UNIMPLEMENTED',
    message: `there is no method ${path.slice(0, 200)} here`,
  });
}

function refused(refusal: Refusal): readonly Field[] {
  return [...HEADERS, ...Object.entries(statusHeaders(refusal))];
}

/** Two of them are no timeout, and neither is what they say together. */
function timeoutOf(values: readonly string[]): string | undefined {
  return values.length === 0 ? undefined : values.join(', ');
}

/** One call, from its headers to its end. */
class Exchange implements IncompleteCall {
  readonly #reader = new RequestReader(LIMITS.requestBytes);

  #answered = false;

  constructor(
    private readonly stream: ServerStream,
    private readonly call: Omit<CertificateCall, 'request'>,
    private readonly service: CertificateService,
    private readonly connections: Connections,
    private readonly deps: Deps,
  ) {}

  get connection(): Connection {
    return this.call.connection;
  }

  run(misdirected: readonly Field[] | undefined): void {
    if (!this.connections.callOpened(this)) {
      this.#displace();
      return;
    }
    this.stream.listener = {
      data: (chunk) => this.#attempt(() => this.#reader.push(chunk)),
      end: () => this.#attempt(() => this.#answer(this.#reader.finish())),
      gone: () => this.connections.callComplete(this),
    };
    if (misdirected) this.#end(misdirected);
  }

  /** Told why, unless it has been told already. */
  end(why: 'slow' | 'calls'): void {
    if (why === 'calls') this.#displace();
    else
      this.#refuse(
        { status: 'DEADLINE_EXCEEDED', message: 'request timed out before it was complete' },
        'slow',
      );
  }

  #displace(): void {
    this.deps.metrics.record('ca_refused_total', { reason: 'calls' });
    this.stream.reset('REFUSED_STREAM');
  }

  #attempt(step: () => void): void {
    if (!this.#answerable) return;
    try {
      step();
    } catch (caught) {
      this.#refuse(refusalOf(caught), 'request');
    }
  }

  #answer(request: Uint8Array): void {
    this.connections.callComplete(this);
    const { stream } = this;
    void this.service.answer({ request, ...this.call }).then((answer) => {
      if (answer.kind === 'refused') return this.#end(refused(answer.refusal));
      if (!this.#answerable) return;
      this.#answered = true;
      stream.respond(HEADERS);
      stream.write(lengthPrefixed(answer.reply));
      stream.end([['grpc-status', '0']]);
    });
  }

  #refuse(refusal: Refusal, reason: string): void {
    this.deps.metrics.record('ca_refused_total', { reason });
    this.#end(refused(refusal));
  }

  #end(fields: readonly Field[]): void {
    if (!this.#answerable) return;
    this.#answered = true;
    this.connections.callComplete(this);
    this.stream.respond(fields, true);
  }

  /** Not answered yet, and not over: a client that resets its stream hears nothing more. */
  get #answerable(): boolean {
    return !this.#answered && !this.stream.over;
  }
}
