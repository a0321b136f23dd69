import { createServer, type Server, type ServerResponse } from 'node:http';
import type { Deps } from '../../../agent/base/deps';
import { AgentError, systemCode } from '../../../agent/base/errors';
import { formatHostPort, type HostPort } from '../../../agent/base/host-port';
import { readPem } from '../../../agent/base/pem';
import type { Watched } from '../../../agent/base/watched';
import { certificatesPem } from '../../../agent/identity/certificate';
import type { TrustBundle } from '../../../agent/identity/trust-bundle';

export interface HttpEndpointsOptions {
  readonly address: HostPort;
  readonly trust: Watched<TrustBundle>;
  /** The signed CRLs of this moment, PEM, that of the signer in use first; undefined where none are offered. */
  readonly crl: (() => Promise<Uint8Array>) | undefined;
  /** Metrics in Prometheus' text format. */
  readonly metrics: (() => Promise<{ readonly contentType: string; readonly body: string }>) | undefined;
  /** Why no certificate can be issued now, one sentence each; empty where it can. */
  reasons(): readonly string[];
}

export interface HttpEndpoints {
  readonly address: string;
  close(): Promise<void>;
}

const MAX_CONNECTIONS = 256;
const MAX_HEADER_BYTES = 8_192;
const REQUEST_MS = 5_000;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string | Uint8Array;
}

/**
 * What of a CA is for everybody, over plain HTTP, since all of it is public or signed: `/bundle.pem`; `/crl` and `/crl.pem`, the
 * lists of all signers, and `/crl.der`, that of the one in use; `/healthz/ready` (200 where it can sign, else 503 with a line for each reason), `/healthz/live`, `/metrics`. Read only.
 *
 * A bundle fetched from here is as good as the way that it came: whoever has no root yet must get the first one otherwise.
 *
 * @throws AgentError ERR_SOCKET.
 */
export async function serveHttpEndpoints(options: HttpEndpointsOptions, deps: Pick<Deps, 'log'>): Promise<HttpEndpoints> {
  const limits = { maxHeaderSize: MAX_HEADER_BYTES, headersTimeout: REQUEST_MS, requestTimeout: REQUEST_MS, keepAliveTimeout: REQUEST_MS };
  const server = createServer({ ...limits, connectionsCheckingInterval: REQUEST_MS }, (request, response) => {
    const route = routeOf(request.url, options);
    const readable = request.method === 'GET' || request.method === 'HEAD';
    const found = route === undefined ? plain(404, 'not found') : readable ? route() : plain(405, 'method not allowed');
    Promise.resolve(found).then(
      (answer) => send(response, answer, request.method === 'HEAD'),
      (cause) => {
        deps.log.error('http request failed', { path: request.url?.slice(0, 100), cause });
        send(response, plain(503, 'not available now'), false);
      },
    );
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, options.address);
  server.on('error', (cause) => deps.log.warn('connection not accepted', { cause }));
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : options.address.port;
  return {
    address: formatHostPort({ host: options.address.host, port }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function routeOf(url: string | undefined, options: HttpEndpointsOptions): (() => Answer | Promise<Answer>) | undefined {
  const { crl, metrics } = options;
  switch ((url ?? '').split('?', 1)[0]) {
    case '/bundle.pem':
      return () => pem(certificatesPem(options.trust.value.rootsDer));
    case '/crl':
    case '/crl.pem':
      return crl && (async () => pem(await crl()));
    case '/crl.der':
      return crl && (async () => ({ status: 200, type: 'application/pkix-crl', body: firstBlock(await crl()) }));
    case '/metrics':
      return metrics && (async () => metrics().then(({ contentType, body }) => ({ status: 200, type: contentType, body })));
    case '/healthz/live':
      return () => plain(200, 'live');
    case '/healthz/ready':
      return () => {
        const reasons = options.reasons();
        return reasons.length === 0
          ? plain(200, 'ready')
          : plain(503, reasons.map((reason) => reason.replace(/\p{Cc}+/gu, ' ')).join('\n'));
      };
    default:
      return undefined;
  }
}

function firstBlock(pemText: Uint8Array): Buffer {
  return readPem(pemText, 'crl')[0]!.der;
}

function pem(body: Uint8Array): Answer {
  return { status: 200, type: 'application/x-pem-file', body };
}

function plain(status: number, text: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` };
}

function send(response: ServerResponse, { status, type, body }: Answer, headOnly: boolean): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(status === 405 && { allow: 'GET, HEAD' }),
    // A body is never read, so the connection cannot be used again after one.
    connection: 'close',
  });
  response.end(headOnly ? undefined : body);
}

function listen(server: Server, address: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown) => {
      const why = systemCode(cause) === 'EADDRINUSE' ? 'it is taken' : systemCode(cause);
      reject(new AgentError('ERR_SOCKET', `listen on ${formatHostPort(address)} for health, bundle and CRL: ${why}`, { cause }));
    };
    server.once('error', failed);
    server.listen(address.port, address.host, () => {
      server.off('error', failed);
      resolve();
    });
  });
}
