import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Deps } from '../base/deps';
import { AgentError, systemCode } from '../base/errors';
import { formatHostPort, type HostPort, parseHostPort } from '../base/host-port';
import type { AgentView } from './agent-view';
import type { AgentMetrics } from './metrics';

export interface AdminServerOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  readonly view: AgentView;
  readonly metrics: AgentMetrics;
}

export interface AdminServer {
  /** `host:port` with the port that was really taken. */
  readonly address: string;
  /** Ends open connections; resolves when the port is free. May be called twice. */
  close(): Promise<void>;
}

/** Enough for probes and a few scrapers; what comes beyond is hung up on, so a flood costs no memory. */
const MAX_CONNECTIONS = 256;
const MAX_HEADER_BYTES = 8_192;
/** For one whole request; probes and scrapers send a few hundred bytes. */
const REQUEST_MS = 5_000;
const KEEP_ALIVE_MS = 5_000;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/**
 * Health and metrics over HTTP, for anybody who can reach the port: read only, nothing secret, nothing repeated of what was asked.
 *
 * `/healthz/ready` 200, or 503 with a line for each reason (JSON with `?verbose` or `accept: application/json`); `/healthz/live` 200 for as
 * long as the loop turns, whatever the CA does; `/metrics` and, for scrapers that were set up for Istio, `/stats/prometheus`.
 *
 * @throws AgentError ERR_SOCKET when the address cannot be listened on.
 */
export async function createAdminServer(options: AdminServerOptions, deps: Pick<Deps, 'log'>): Promise<AdminServer> {
  const wanted = parseHostPort(options.address, '--admin-address');
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: REQUEST_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: REQUEST_MS,
    },
    (request, response) => {
      answer(request, options).then(
        (found) => send(request, response, found),
        (err) => {
          deps.log.error('health or metrics request failed', { cause: err });
          send(request, response, plain(500, 'internal error'));
        },
      );
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  const port = await listen(server, wanted);
  server.on('error', (err) => deps.log.warn('connection not accepted', { cause: err }));
  const address = formatHostPort({ host: wanted.host, port });
  deps.log.info('admin server listening', { address });
  let closing: Promise<void> | undefined;
  return {
    address,
    close: () => {
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      return closing;
    },
  };
}

async function answer(request: IncomingMessage, options: AdminServerOptions): Promise<Answer> {
  const [path, query] = (request.url ?? '').split('?', 2);
  const handle = ROUTES[path ?? ''];
  if (!handle) return plain(404, 'not found');
  if (request.method !== 'GET' && request.method !== 'HEAD') return plain(405, 'method not allowed');
  return handle(options, wantsJson(request, query));
}

type Route = (options: AdminServerOptions, json: boolean) => Answer | Promise<Answer>;

const metrics: Route = async ({ metrics, view }) => ({ status: 200, type: metrics.contentType, body: await metrics.text(view) });

// No prototype: a path such as /constructor must find nothing.
const ROUTES: Readonly<Record<string, Route>> = Object.assign(Object.create(null), {
  '/healthz/live': () => plain(200, 'live'),
  '/healthz/ready': ({ view }, json) => {
    const reasons = view.reasons();
    const status = reasons.length === 0 ? 200 : 503;
    if (json) return { status, type: 'application/json', body: `${JSON.stringify({ ready: status === 200, reasons })}\n` };
    return plain(status, reasons.length === 0 ? 'ready' : reasons.map(oneLine).join('\n'));
  },
  '/metrics': metrics,
  '/stats/prometheus': metrics,
} satisfies Record<string, Route>);

function wantsJson(request: IncomingMessage, query: string | undefined): boolean {
  return /(^|&)verbose(=|&|$)/.test(query ?? '') || (request.headers.accept ?? '').includes('application/json');
}

/** A reason may quote a CA's words: they do not get to write lines of their own. */
function oneLine(reason: string): string {
  return reason.replace(/\p{Cc}+/gu, ' ');
}

function plain(status: number, text: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` };
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(status === 405 && { allow: 'GET, HEAD' }),
    // A body is never read, so the connection cannot be used again after one.
    ...(hasBody(request) && { connection: 'close' }),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function hasBody(request: IncomingMessage): boolean {
  return request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0';
}

function listen(server: Server, { host, port }: HostPort): Promise<number> {
  return new Promise((resolve, reject) => {
    const failed = (err: unknown) => {
      const taken = systemCode(err) === 'EADDRINUSE';
      reject(
        new AgentError(
          'ERR_SOCKET',
          `listen on ${formatHostPort({ host, port })} for health and metrics: ${taken ? 'it is taken' : systemCode(err)}`,
          {
            hint: 'choose another address with --admin-address',
            cause: err,
          },
        ),
      );
    };
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      const bound = server.address();
      resolve(bound !== null && typeof bound === 'object' ? bound.port : port);
    });
  });
}
