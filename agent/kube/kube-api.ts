import type { IncomingMessage } from 'node:http';
import { linked, withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError, errorText } from '../base/errors';
import type { Secret } from '../base/secret';
import { ISTIO_AUDIENCE, readTokenClaims } from '../jwt/token-claims';
import type { KubeConfig } from './kube-config';
import { KubeConnection, type KubeExchange, pathOnly } from './kube-connection';
import { type KubeStatus, KubeTooLarge, kubeError } from './kube-error';
import { assertKubePath } from './kube-path';

export type KubeMethod = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface KubeRequestOptions {
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Default `application/json`; of a PATCH `application/merge-patch+json`. */
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** For all of the exchange; default 30 s, and a minute where it changes something. */
  readonly timeoutMs?: number;
  /** Of the answer, default 16 MiB. */
  readonly maxBytes?: number;
  /** Called with the size of the answer. */
  readonly onBytes?: (bytes: number) => void;
}

/** One line of a watch. */
export interface KubeEvent<T = unknown> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

/**
 * The Kubernetes API: JSON over one set of kept-alive TLS connections. Safe for concurrent use.
 *
 * @example
 *   const path = kubePath`/api/v1/namespaces/${namespace}/configmaps/${name}`;
 *   const { data } = await api.request<ConfigMap>('GET', path, { signal });
 */
export interface KubeApi {
  /** For messages, e.g. `https://10.96.0.1:443`. */
  readonly server: string;
  /** Of the context or the pod, where one is known. */
  readonly namespace: string | undefined;
  /** Files that prove us to the server, or the server to us. */
  readonly credentialFiles: readonly string[];
  /**
   * One exchange. Credentials are read again every ten seconds, and after a 401 at once: then the request is sent once more.
   *
   * @param path  e.g. `/api/v1/namespaces/shop/configmaps/x`, query included, made by `kubePath`.
   * @returns     The answer's JSON.
   * @throws      KubeError for an answer that is not 2xx (`status` 409 for a conflict, see `kubeError`); AgentError ERR_TIMEOUT,
   *              ERR_CA_UNAVAILABLE, ERR_TOKEN, ERR_CA_RESPONSE (no JSON; KubeTooLarge), ERR_ABORTED, ERR_BUG for a path that is not encoded.
   */
  request<T>(method: KubeMethod, path: string, options?: KubeRequestOptions): Promise<T>;
  /**
   * Follows a path that lists objects, from the `resourceVersion` in its query or from now, and calls `onEvent` with each event, in order.
   * Returns when the server ends the watch, as it does every few minutes: read the state again and watch on. `onOpen` is called when the
   * server has granted it.
   *
   * @throws KubeError for an answer that is not 2xx and for an ERROR event (410: begin from a new list); AgentError as `request`, also
   *         where the connection breaks; ERR_ABORTED when the signal fires. What `onEvent` throws ends the watch and is thrown.
   */
  watch<T>(
    path: string,
    onEvent: (event: KubeEvent<T>) => void,
    signal: AbortSignal,
    onOpen?: () => void,
  ): Promise<void>;
  /** Ends every request and watch. */
  close(): Promise<void>;
}

/** Priority and fairness let a request wait for 15 s before it is begun. */
const READ_TIMEOUT_MS = 30_000;
/** As the API server's own (`--request-timeout`): admission webhooks have up to 30 s each, and what is cut and repeated is only more to do. */
const WRITE_TIMEOUT_MS = 60_000;
/** The largest object is 1.5 MiB in etcd, and up to six times that as JSON, which spells `<` as `\\u003c`. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** How long a watch is asked to last. A connection that died silently is found out no later than this. */
const WATCH_SECONDS = 240;
const WATCH_GRACE_MS = 15_000;

export function createKubeApi(config: KubeConfig, deps: Deps): KubeApi {
  const connection = new KubeConnection(config, deps);
  const stop = new AbortController();
  const running = new Set<Promise<unknown>>();

  async function tracked<T>(
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const task = linked([stop.signal, signal], `ask ${config.server}`, work);
    running.add(task);
    try {
      return await task;
    } finally {
      running.delete(task);
    }
  }

  /** The head of a 2xx answer. */
  async function open(exchange: KubeExchange, signal: AbortSignal): Promise<IncomingMessage> {
    const what = `${exchange.method} ${pathOnly(exchange.path)}`;
    let { answer, token } = await connection.send(exchange, false, signal);
    if (answer.statusCode === 401) {
      answer.destroy();
      // Nothing was done, so sending it again is safe. It is worth it even with the same token: the server caches its own verdicts.
      ({ answer, token } = await connection.send(exchange, true, signal));
    }
    const { statusCode = 0 } = answer;
    if (statusCode >= 200 && statusCode < 300) return answer;
    const text = (await readAll(answer, what, signal)).toString('utf8');
    const more = {
      hint: hintFor(statusCode, token !== undefined, config),
      isBlameless: token !== undefined && looksGood(token, deps),
    };
    throw kubeError(what, statusCode, statusOf(text), answer.headers['retry-after'], more);
  }

  return {
    server: config.server,
    namespace: config.namespace,
    credentialFiles: config.files,
    request: <T>(method: KubeMethod, path: string, options: KubeRequestOptions = {}) =>
      tracked(options.signal, (signal) => {
        const what = `${method} ${pathOnly(path)}`;
        const exchange = jsonExchange(method, path, options);
        return withDeadline(
          deps.clock,
          options.timeoutMs ?? (method === 'GET' ? READ_TIMEOUT_MS : WRITE_TIMEOUT_MS),
          `${what} at ${config.server}`,
          signal,
          async (bounded) => {
            const bytes = await readAll(
              await open(exchange, bounded),
              what,
              bounded,
              options.maxBytes,
            );
            options.onBytes?.(bytes.length);
            return parseJson<T>(bytes.toString('utf8'), what);
          },
        );
      }),
    watch: <T>(
      path: string,
      onEvent: (event: KubeEvent<T>) => void,
      signal: AbortSignal,
      onOpen?: () => void,
    ) =>
      tracked(signal, async (bounded) => {
        const query = `watch=true&allowWatchBookmarks=true&timeoutSeconds=${WATCH_SECONDS}`;
        const exchange = jsonExchange(
          'GET',
          `${path}${path.includes('?') ? '&' : '?'}${query}`,
          {},
        );
        const what = `watch ${pathOnly(path)}`;
        const answer = await withDeadline(
          deps.clock,
          READ_TIMEOUT_MS,
          `${what} at ${config.server}`,
          bounded,
          () => open(exchange, bounded),
        );
        onOpen?.();
        await withDeadline(
          deps.clock,
          WATCH_SECONDS * 1_000 + WATCH_GRACE_MS,
          what,
          bounded,
          (until) => readEvents(answer, what, onEvent, until),
        );
      }),
    async close() {
      stop.abort();
      await Promise.allSettled(running);
      connection.close();
    },
  };
}

function jsonExchange(
  method: KubeMethod,
  path: string,
  { body, contentType }: KubeRequestOptions,
): KubeExchange {
  assertKubePath(path);
  const type =
    contentType ?? (method === 'PATCH' ? 'application/merge-patch+json' : 'application/json');
  return {
    method,
    path,
    // As kubectl: the keys of service account tokens are JSON under another name, and refused to whoever takes one alone.
    headers: {
      accept: 'application/json, */*',
      'user-agent': 'keyturn',
      ...(body !== undefined && { 'content-type': type }),
    },
    body: body === undefined ? undefined : Buffer.from(JSON.stringify(body)),
  };
}

/** A JWT that has not ended, and is not for Istio's authorities alone: what is wrong with another shows from here. */
function looksGood(token: Secret<string>, { clock }: Deps): boolean {
  const { exp, aud } = readTokenClaims(token.reveal()) ?? {};
  return (
    typeof exp === 'number' && clock.now() < exp * 1_000 && [aud].flat().join() !== ISTIO_AUDIENCE
  );
}

function hintFor(statusCode: number, sentToken: boolean, config: KubeConfig): string | undefined {
  if (statusCode === 401) {
    return sentToken
      ? `the token of ${config.origin} is expired, or was issued for another audience than the Kubernetes API`
      : `the client certificate of ${config.origin} is missing, expired or of another cluster`;
  }
  return statusCode === 403 ? `grant it by RBAC to the user of ${config.origin}` : undefined;
}

async function readAll(
  answer: IncomingMessage,
  what: string,
  signal: AbortSignal,
  maxBytes = MAX_ANSWER_BYTES,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of chunksOf(answer, what, signal)) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > maxBytes) throw new KubeTooLarge(what, maxBytes);
  }
  return Buffer.concat(chunks);
}

async function readEvents<T>(
  answer: IncomingMessage,
  what: string,
  onEvent: (event: KubeEvent<T>) => void,
  signal: AbortSignal,
): Promise<void> {
  let rest: Buffer[] = [];
  let size = 0;
  for await (const chunk of chunksOf(answer, what, signal)) {
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
      const line = Buffer.concat([...rest, chunk.subarray(from, end)]).toString('utf8');
      [rest, size, from] = [[], 0, end + 1];
      if (line.trim() !== '') onEvent(readEvent<T>(line, what));
    }
    rest.push(chunk.subarray(from));
    size += chunk.length - from;
    if (size > MAX_ANSWER_BYTES) throw new KubeTooLarge(what, MAX_ANSWER_BYTES);
  }
}

function readEvent<T>(line: string, what: string): KubeEvent<T> {
  const event = parseJson<{ type?: unknown; object?: KubeStatus & { code?: unknown } }>(line, what);
  if (event?.type === 'ERROR')
    throw kubeError(what, Number(event.object?.code) || 500, event.object ?? {}, undefined);
  if (
    typeof event?.type !== 'string' ||
    typeof event.object !== 'object' ||
    event.object === null
  ) {
    throw new AgentError('ERR_CA_RESPONSE', `${what}: an event without type or object`, {
      retry: 'soon',
    });
  }
  return event as KubeEvent<T>;
}

/** The body, piece by piece. However the reading ends, nothing of the answer is left open. */
async function* chunksOf(
  answer: IncomingMessage,
  what: string,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const aborted = () => answer.destroy();
  signal.addEventListener('abort', aborted, { once: true });
  try {
    if (!signal.aborted) yield* answer as AsyncIterable<Buffer>;
  } catch (caught) {
    if (!signal.aborted) {
      throw new AgentError(
        'ERR_CA_UNAVAILABLE',
        `${what}: the connection broke: ${errorText(caught)}`,
        { retry: 'soon', cause: caught },
      );
    }
  } finally {
    signal.removeEventListener('abort', aborted);
    // A body that was read to its end leaves its connection for the next request.
    if (!answer.readableEnded) answer.destroy();
  }
  if (signal.aborted) throw new AgentError('ERR_ABORTED', `${what}: aborted`);
}

function parseJson<T>(text: string, what: string): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    // The parser's message would quote the answer, which may hold a token.
    throw new AgentError('ERR_CA_RESPONSE', `${what}: the answer is not JSON`, { retry: 'soon' });
  }
}

/** The Status object of an error's body; proxies in between answer with other things. */
function statusOf(text: string): KubeStatus {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
