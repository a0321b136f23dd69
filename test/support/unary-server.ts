import {
  createSecureServer,
  type Http2Session,
  type IncomingHttpHeaders,
  type SecureServerOptions,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { parseCertificate, uriNames } from '../../agent/identity/certificate';
import type { PemPair } from './tls-ca';

/** One call as the server got it. */
export interface UnaryCall {
  readonly headers: IncomingHttpHeaders;
  readonly message: Buffer;
  /** URI SANs of the client certificate, where one was shown and verified. */
  readonly clientUris: readonly string[] | undefined;
  readonly stream: ServerHttp2Stream;
  readonly session: Http2Session;
}

/** What to answer: a message, a status, or nothing where the handler did something to the stream itself. */
export type UnaryAnswer =
  | { readonly message: Buffer }
  | {
      readonly status: number;
      readonly words?: string;
      readonly trailers?: Readonly<Record<string, string | Buffer>>;
    }
  | 'nothing';

export interface UnaryServerOptions {
  readonly pair: PemPair;
  /** Client certificates are verified by these, if given: a foreign one ends the connection after the handshake, as with Go. */
  readonly clientRootsPem?: Buffer;
  readonly tls?: SecureServerOptions;
  readonly port?: number;
  readonly answer: (call: UnaryCall) => UnaryAnswer | Promise<UnaryAnswer>;
}

/** A gRPC server of unary calls over TLS, made by hand on HTTP/2, so that it can misbehave at every step. */
export interface UnaryServer {
  readonly port: number;
  /** `localhost:PORT`. */
  readonly address: string;
  /** Calls that came, in order, whatever became of them. */
  readonly calls: UnaryCall[];
  /** Bytes that came before or without TLS, and TLS connections that were made. */
  readonly handshakes: { done: number; failed: number };
  /** Ends every connection and listens no more. */
  close(): Promise<void>;
}

export async function startUnaryServer(options: UnaryServerOptions): Promise<UnaryServer> {
  const { pair, clientRootsPem, answer } = options;
  const server = createSecureServer({
    cert: pair.chainPem,
    key: pair.keyPem,
    ...(clientRootsPem && { ca: clientRootsPem, requestCert: true }),
    rejectUnauthorized: false,
    ...options.tls,
  });
  const calls: UnaryCall[] = [];
  const handshakes = { done: 0, failed: 0 };
  const sessions = new Set<Http2Session>();
  server.on('secureConnection', (socket: TLSSocket) => {
    handshakes.done += 1;
    const shown = Object.keys(socket.getPeerCertificate() ?? {}).length > 0;
    if (clientRootsPem && shown && !socket.authorized) socket.destroy();
  });
  server.on('tlsClientError', () => {
    handshakes.failed += 1;
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.on('error', () => undefined);
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', async () => {
      const session = stream.session!;
      const call = {
        headers,
        message: Buffer.concat(chunks).subarray(5),
        clientUris: clientUris(session.socket as TLSSocket),
        stream,
        session,
      };
      calls.push(call);
      const what = await answer(call);
      if (!stream.destroyed) respond(stream, what);
    });
  });
  await new Promise<void>((done) => server.listen(options.port ?? 0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    address: `localhost:${port}`,
    calls,
    handshakes,
    async close() {
      const closed = new Promise((done) => server.close(done));
      for (const session of sessions) session.destroy();
      await closed;
    },
  };
}

function clientUris(socket: TLSSocket): readonly string[] | undefined {
  const shown = socket.authorized ? socket.getPeerCertificate() : undefined;
  return shown?.raw ? uriNames(parseCertificate(shown.raw)) : undefined;
}

/** The length-prefixed form of a message. */
export function frame(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** What every good answer begins with. */
export const RESPONSE_HEADERS = { ':status': 200, 'content-type': 'application/grpc' } as const;

function respond(stream: ServerHttp2Stream, what: UnaryAnswer): void {
  if (what === 'nothing') return;
  if ('message' in what) {
    stream.respond(RESPONSE_HEADERS, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end(frame(what.message));
    return;
  }
  const trailers = Object.entries(what.trailers ?? {}).map(([name, value]) => [
    name,
    Buffer.isBuffer(value) ? value.toString('base64') : value,
  ]);
  const head = {
    'grpc-status': String(what.status),
    'grpc-message': encodeURIComponent(what.words ?? ''),
    ...Object.fromEntries(trailers),
  };
  stream.respond({ ...RESPONSE_HEADERS, ...head }, { endStream: true });
}
