import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Server, Socket } from 'node:net';
import { evictIdlest } from './connection-bound';
import type { Deps } from './deps';
import { endInTime } from './end-in-time';
import { AgentError, systemCode } from './errors';
import { firstRequestOnly } from './first-request';
import { formatHostPort, type HostPort } from './host-port';

/** One whole answer. */
export interface HttpAnswer {
  readonly status: number;
  /** The content type. */
  readonly type: string;
  readonly body: string | Uint8Array;
}

export interface HttpServerOptions {
  /** Port 0 takes a free one. */
  readonly address: HostPort;
  /** What is answered here, for the error, e.g. `health and metrics`. */
  readonly purpose: string;
  /** The flag that moves it elsewhere, for the hint, e.g. `--admin-address`. */
  readonly flag: string;
  /** Who may have the address already, for the hint. */
  readonly rival?: string;
  /**
   * What answers a path, or undefined where nothing does.
   *
   * @param path  Without the query.
   */
  route(
    path: string,
    request: IncomingMessage,
  ): (() => HttpAnswer | Promise<HttpAnswer>) | undefined;
  /** What is answered where an answer fails; the log has the reason. */
  readonly failure: HttpAnswer;
}

export interface HttpServer {
  /** `host:port` with the port that was really taken. */
  readonly address: string;
  /** Ends open connections; resolves when the port is free. May be called twice. */
  close(): Promise<void>;
}

/** Enough for probes and a few scrapers; what comes beyond takes the place of the oldest, so a flood costs no memory and stops no probe. */
const MAX_CONNECTIONS = 256;
const MAX_HEADER_BYTES = 8_192;
/** For a whole header; probes and scrapers send a few hundred bytes. */
const REQUEST_MS = 5_000;
/** For one connection with its answer, which may be a large CRL for somebody far away. */
const CONNECTION_MS = 30_000;

/**
 * Answers GET and HEAD for anybody who can reach the port: bounded in connections, octets and time, read only, nothing of a request
 * repeated. A connection is for one request.
 *
 * @throws AgentError ERR_SOCKET when the address cannot be listened on.
 */
export async function serveHttp(
  options: HttpServerOptions,
  deps: Pick<Deps, 'clock' | 'log'>,
): Promise<HttpServer> {
  const http = createServer({ maxHeaderSize: MAX_HEADER_BYTES }, (request, response) => {
    answer(request, options).then(
      (found) => send(request, response, found),
      (cause) => {
        deps.log.error('http request failed', { path: request.url?.slice(0, 100), cause });
        send(request, response, options.failure);
      },
    );
  });
  const server = firstRequestOnly(http, REQUEST_MS, deps);
  evictIdlest(server, MAX_CONNECTIONS, 1 / 8);
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    endInTime(socket, CONNECTION_MS, deps);
  });
  const port = await listen(server, options);
  server.on('error', (cause) => deps.log.warn('connection not accepted', { cause }));
  let closing: Promise<void> | undefined;
  return {
    address: formatHostPort({ host: options.address.host, port }),
    close: () => {
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      });
      return closing;
    },
  };
}

/** Text for people, ended by a line break. */
export function plainAnswer(status: number, text: string): HttpAnswer {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` };
}

/** `ready`, or 503 with each reason on a line of its own. */
export function readyAnswer(reasons: readonly string[]): HttpAnswer {
  return reasons.length === 0
    ? plainAnswer(200, 'ready')
    : plainAnswer(503, reasons.map(oneLine).join('\n'));
}

/** A reason may quote a CA's words: they do not get to write lines of their own. */
function oneLine(reason: string): string {
  return reason.replace(/\p{Cc}+/gu, ' ');
}

async function answer(request: IncomingMessage, options: HttpServerOptions): Promise<HttpAnswer> {
  const handle = options.route((request.url ?? '').split('?', 1)[0]!, request);
  if (!handle) return plainAnswer(404, 'not found');
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return plainAnswer(405, 'method not allowed');
  return handle();
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, type, body }: HttpAnswer,
): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(status === 405 && { allow: 'GET, HEAD' }),
    connection: 'close',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/**
 * Listens with a server of any kind.
 *
 * @returns the port that was really taken.
 * @throws  AgentError ERR_SOCKET.
 */
export function listen(
  server: Server,
  {
    address,
    purpose,
    flag,
    rival,
  }: Pick<HttpServerOptions, 'address' | 'purpose' | 'flag' | 'rival'>,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown) => {
      const why = systemCode(cause) === 'EADDRINUSE' ? 'the address is in use' : systemCode(cause);
      const what = `listen on ${formatHostPort(address)} for ${purpose}: ${why}`;
      reject(
        new AgentError('ERR_SOCKET', what, {
          cause,
          hint: `choose another address with ${flag}${rival === undefined ? '' : `; ${rival}`}`,
        }),
      );
    };
    server.once('error', failed);
    server.listen(address.port, address.host, () => {
      server.off('error', failed);
      const bound = server.address();
      resolve(bound !== null && typeof bound === 'object' ? bound.port : address.port);
    });
  });
}
