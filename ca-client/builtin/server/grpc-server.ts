import {
  constants,
  createServer,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Deps } from '../../../agent/base/deps';
import { CREATE_CERTIFICATE, SERVER } from '../../istio/service';
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

const HEADERS = { ':status': 200, server: SERVER, 'content-type': 'application/grpc', 'grpc-accept-encoding': 'identity' } as const;

/**
 * gRPC around the service: one unary method, and neither reflection nor health nor compression beside it.
 *
 * By hand on HTTP/2, since a CA must see what a gRPC library keeps to itself: a header that is there twice, a request that never ends, a
 * stream that its client leaves half open. What is HTTP/2's own (floods of resets, pings, settings, header blocks) is left to nghttp2.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
export function createGrpcServer(service: CertificateService, connections: Connections, deps: Deps): GrpcServer {
  const sessions = new Set<ServerHttp2Session>();
  const http2 = createServer({
    maxSessionMemory: LIMITS.sessionMegabytes,
    maxHeaderListPairs: LIMITS.headers,
    settings: { maxConcurrentStreams: LIMITS.callsPerConnection, maxHeaderListSize: LIMITS.headerBytes },
  });
  let incoming: Connection | undefined;
  http2.on('session', (session) => {
    const connection = incoming;
    // Only what `serve` hands over comes here, and it comes at once.
    if (connection === undefined) return session.destroy();
    sessions.add(session);
    connection.leave = () => session.close();
    session.on('error', () => undefined);
    session.on('close', () => sessions.delete(session));
    session.on('stream', (stream, headers, _flags, rawHeaders) => {
      stream.on('error', () => undefined);
      if (hasEnded(connection, deps.clock.now())) {
        // Its client sends a call that was refused unread over a new connection, where it can show what it has now.
        session.close();
        stream.close(constants.NGHTTP2_REFUSED_STREAM);
        return;
      }
      const call = { authorization: authorizations(rawHeaders), deadline: callDeadline(timeoutOf(headers)), connection };
      new Exchange(stream, call, service, connections, deps).run(misdirected(headers, rawHeaders));
    });
  });
  return {
    serve: (socket, connection) => {
      incoming = connection;
      http2.emit('connection', socket);
      incoming = undefined;
    },
    close: () => {
      for (const session of sessions) session.close();
    },
  };
}

/** How to answer what is no call of ours, before its first byte; undefined where it is one. */
function misdirected(headers: IncomingHttpHeaders, rawHeaders: readonly string[]): OutgoingHttpHeaders | undefined {
  if (headers[':method'] !== 'POST' || !/^application\/grpc($|[+;])/.test(headers['content-type'] ?? '')) return { ':status': 415 };
  const path = String(headers[':path']);
  // Node.js goes by our SETTINGS only once the client has acknowledged them, and by 64 KiB until then.
  if (rawHeaders.reduce((bytes, text) => bytes + text.length, 0) > LIMITS.headerBytes) {
    return refused({ status: 'RESOURCE_EXHAUSTED', message: `headers: must not be longer than ${LIMITS.headerBytes} bytes` });
  }
  if (path === CREATE_CERTIFICATE.path) return undefined;
  return refused({ status: 'UNIMPLEMENTED', message: `there is no method ${path.slice(0, 200)} here` });
}

function refused(refusal: Refusal): OutgoingHttpHeaders {
  return { ...HEADERS, ...statusHeaders(refusal) };
}

/** Node.js joins headers of one name with a comma, which is no timeout. */
function timeoutOf(headers: IncomingHttpHeaders): string | undefined {
  const value = headers['grpc-timeout'];
  return value === undefined ? undefined : String(value);
}

/** Every authorization header: among `headers` Node.js keeps the first one alone. */
function authorizations(rawHeaders: readonly string[]): string[] {
  return rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]!.toLowerCase() === 'authorization');
}

/** One call, from its headers to its end. */
class Exchange implements IncompleteCall {
  readonly #reader = new RequestReader(LIMITS.requestBytes);

  constructor(
    private readonly stream: ServerHttp2Stream,
    private readonly call: Omit<CertificateCall, 'request'>,
    private readonly service: CertificateService,
    private readonly connections: Connections,
    private readonly deps: Deps,
  ) {}

  get connection(): Connection {
    return this.call.connection;
  }

  run(misdirected: OutgoingHttpHeaders | undefined): void {
    if (!this.connections.callOpened(this)) {
      this.deps.metrics.record('ca_refused_total', { reason: 'calls' });
      this.stream.close(constants.NGHTTP2_REFUSED_STREAM);
      return;
    }
    this.stream.on('close', () => this.connections.callComplete(this));
    if (misdirected) this.#end(misdirected);
    this.stream.on('data', (chunk: Buffer) => this.#attempt(() => this.#reader.push(chunk)));
    this.stream.on('end', () => this.#attempt(() => this.#answer(this.#reader.finish())));
  }

  /** Told why, unless it has been told already; and its stream is not left half open. */
  end(why: 'slow' | 'calls'): void {
    if (why === 'calls') this.deps.metrics.record('ca_refused_total', { reason: 'calls' });
    if (why === 'calls' || this.stream.headersSent) {
      this.stream.close(constants.NGHTTP2_REFUSED_STREAM);
      return;
    }
    this.#refuse({ status: 'DEADLINE_EXCEEDED', message: 'the request took too long to arrive' }, 'slow');
    // Watched on, until its client has ended it too.
    this.connections.callOpened(this);
  }

  #attempt(step: () => void): void {
    // What still comes of a request that was refused is read and dropped: a client looks for its answer when it has sent everything.
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
    this.service.answer({ request, ...this.call }).then((answer) => {
      if (answer.kind === 'refused') return this.#end(refused(answer.refusal));
      if (!this.#answerable) return;
      stream.respond(HEADERS, { waitForTrailers: true });
      stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.end(lengthPrefixed(answer.reply));
    });
  }

  #refuse(refusal: Refusal, reason: string): void {
    this.deps.metrics.record('ca_refused_total', { reason });
    this.#end(refused(refusal));
  }

  #end(headers: OutgoingHttpHeaders): void {
    if (this.#answerable) this.stream.respond(headers, { endStream: true });
  }

  /** Not answered yet, and not over: a client that resets its stream without an error ends it like a request, and hears nothing more. */
  get #answerable(): boolean {
    const { headersSent, closed, destroyed } = this.stream;
    return !headersSent && !closed && !destroyed;
  }
}

function lengthPrefixed(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(5 + message.length);
  framed.writeUInt8(0, 0);
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, 5);
  return framed;
}
