import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import type { HostPort } from '../base/host-port';
import {
  type AdmissionRequest,
  formatAdmissionReview,
  parseAdmissionReview,
  type Verdict,
} from './admission-review';
import { type HttpsListener, listenHttps } from './https-listener';

export interface AdmissionServerOptions {
  /** Port 0 takes a free one. */
  readonly address: HostPort;
  /** Decides one request. What it throws is our fault and answered with 500. */
  decide(request: AdmissionRequest): Verdict;
}

/** Where requests are sent to. */
export const ADMISSION_PATH = '/inject';

/** An API server takes no request beyond 3 MiB, and etcd by its defaults no object beyond 1.5 MiB. */
const MAX_BODY_BYTES = 3 * 1024 * 1024;
/** Of all requests that have not arrived whole. */
const MAX_WAITING_BYTES = 32 * 1024 * 1024;
const MAX_HEADER_BYTES = 16_384;
const HEADERS_MS = 5_000;
/** For one whole request: an API server has it and sends it at once. */
const REQUEST_MS = 5_000;
const IDLE_MS = 120_000;
const CHECK_MS = 1_000;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/**
 * Answers `POST /inject` with an AdmissionReview for each, over HTTPS. API servers show no certificate unless they were told to, so whoever
 * reaches the port may ask, and learns nothing but what a pod would become; all bounds are for strangers.
 *
 * @throws AgentError ERR_SOCKET.
 */
export function createAdmissionServer(
  options: AdmissionServerOptions,
  deps: Deps,
): Promise<HttpsListener> {
  const desk = new Desk(options, deps);
  const http = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: IDLE_MS,
      connectionsCheckingInterval: CHECK_MS,
    },
    (request, response) => desk.take(request, response),
  );
  return listenHttps(http, options.address, deps);
}

/** Reads requests and answers them. */
class Desk {
  #waitingBytes = 0;

  constructor(
    private readonly options: AdmissionServerOptions,
    private readonly deps: Deps,
  ) {}

  take(request: IncomingMessage, response: ServerResponse): void {
    const refused = judgeHead(request);
    if (refused !== undefined) {
      this.#end(response, refused, true);
      return;
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    const forget = () => {
      this.#waitingBytes -= bytes;
      bytes = 0;
    };
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      this.#waitingBytes += chunk.length;
      chunks.push(chunk);
      if (bytes <= MAX_BODY_BYTES && this.#waitingBytes <= MAX_WAITING_BYTES) return;
      const tooMuch = bytes > MAX_BODY_BYTES ? TOO_LARGE : plain(503, 'too many requests at once');
      chunks.length = 0;
      request.removeAllListeners('data').removeAllListeners('end');
      forget();
      this.#end(response, tooMuch, true);
    });
    request.on('end', () => {
      forget();
      this.#end(response, this.#answer(Buffer.concat(chunks)), false);
    });
    // One that broke off is nobody's any more.
    request.on('close', forget);
    request.on('error', () => undefined);
    response.on('error', () => undefined);
  }

  #answer(body: Buffer): Answer {
    let request: AdmissionRequest;
    try {
      request = parseAdmissionReview(body);
    } catch (caught) {
      return plain(400, AgentError.from(caught).message);
    }
    try {
      return {
        status: 200,
        type: 'application/json',
        body: formatAdmissionReview(request.uid, this.options.decide(request)),
      };
    } catch (cause) {
      this.deps.log.error('admission request failed', { uid: request.uid, cause });
      return plain(500, 'internal error');
    }
  }

  /** @param hangUp  The rest of a request is not waited for. */
  #end(response: ServerResponse, { status, type, body }: Answer, hangUp: boolean): void {
    if (status !== 200)
      this.deps.metrics.record('webhook_refused_total', { status: String(status) });
    response.writeHead(status, {
      'content-type': type,
      'content-length': Buffer.byteLength(body),
      'cache-control': 'no-store',
      ...(status === 405 && { allow: 'POST' }),
      ...(hangUp && { connection: 'close' }),
    });
    response.end(body, () => hangUp && response.req.destroy());
  }
}

const TOO_LARGE = plain(413, `body: must not be longer than ${MAX_BODY_BYTES} bytes`);

/** What of a request is wrong before its body is looked at. */
function judgeHead({ url = '', method, headers }: IncomingMessage): Answer | undefined {
  // API servers add their timeout as a query.
  if (url.split('?', 1)[0] !== ADMISSION_PATH) return plain(404, 'not found');
  if (method !== 'POST') return plain(405, 'method not allowed');
  if (!/^application\/json *(;|$)/i.test(headers['content-type'] ?? ''))
    return plain(415, 'content-type: must be application/json');
  if (headers['content-encoding'] !== undefined)
    return plain(415, 'content-encoding: must not be there');
  return Number(headers['content-length'] ?? 0) > MAX_BODY_BYTES ? TOO_LARGE : undefined;
}

function plain(status: number, text: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` };
}
