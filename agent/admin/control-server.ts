import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { boundConnections } from '../base/connection-bound';
import type { Deps } from '../base/deps';
import { AgentError, type ErrorCode, invalid } from '../base/errors';
import { listenUnix } from '../base/unix-socket';
import type { AgentStatus, AgentView, WorkloadStatus } from './agent-view';

export interface ControlServerOptions {
  /** Of the socket, which is made with mode 0600: whoever may connect may command. */
  readonly path: string;
  readonly view: AgentView;
}

/** `GET /plan`: when each certificate will be renewed and why. */
export interface PlanAnswer {
  readonly now: string;
  readonly workloads: readonly Pick<
    WorkloadStatus,
    'name' | 'id' | 'state' | 'certificate' | 'plan' | 'retryAt' | 'lastError' | 'outageBudget'
  >[];
}

/** `POST /rotate`. */
export interface RotateRequest {
  /** Answer only when every SDS stream has acknowledged; default false. */
  readonly wait?: boolean;
  /** Milliseconds after which the answer is ERR_TIMEOUT; 1 to 3,600,000, default 30,000. The renewal itself goes on. */
  readonly timeoutMs?: number;
  /** For the log, at most 200 characters; default `requested over the control socket`. */
  readonly reason?: string;
  /** Of a list, by name; default all. */
  readonly workload?: string;
}

/** What any request is answered with when it fails. */
export interface ControlFailure {
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint?: string };
}

const MAX_BODY_BYTES = 65_536;
const MAX_CONNECTIONS = 32;
const REQUEST_MS = 5_000;
const DEFAULT_ROTATE_MS = 30_000;
const MAX_ROTATE_MS = 3_600_000;
/** After the deadline the agent may still say which streams are behind; then we answer ourselves. */
const LAST_WORD_MS = 200;

export interface ControlServer {
  /** Why commands do not reach the socket by its path, undefined where they do. */
  problem(): string | undefined;
  close(): Promise<void>;
}

/**
 * The commands that need the running agent, as JSON over HTTP/1.1 on a Unix socket: `GET /status`, `/plan`, `/settings` and `POST /rotate`.
 * With `?workload=NAME` the first two are about one workload of a list.
 *
 * @throws AgentError ERR_SOCKET | ERR_SOCKET_IN_USE.
 */
export async function createControlServer(
  options: ControlServerOptions,
  deps: Deps,
): Promise<ControlServer> {
  const limits = {
    headersTimeout: REQUEST_MS,
    requestTimeout: REQUEST_MS,
    connectionsCheckingInterval: REQUEST_MS,
    maxHeaderSize: 8_192,
  };
  const server = createServer(limits, (request, response) => {
    const gone = new AbortController();
    response.on('close', () =>
      gone.abort(new AgentError('ERR_ABORTED', 'control request: client disconnected')),
    );
    answer(request, options.view, deps, gone.signal).then(
      (body) => send(response, 200, body),
      (caught) => fail(response, AgentError.from(caught), deps),
    );
  });
  boundConnections(server, MAX_CONNECTIONS, 1 / 8);
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  // Node looks after headers and requests that do not come to an end once it believes to listen.
  server.emit('listening');
  const listener = await listenUnix(
    { path: options.path, mode: 0o600, what: 'control socket' },
    server,
    deps,
  ).catch((caught) => {
    server.close();
    throw caught;
  });
  return {
    problem: () => listener.problem(),
    close: () => {
      const closed = listener.close();
      for (const socket of open) socket.destroy();
      server.close();
      return closed;
    },
  };
}

async function answer(
  request: IncomingMessage,
  view: AgentView,
  deps: Deps,
  signal: AbortSignal,
): Promise<unknown> {
  const [path, query] = (request.url ?? '').split('?', 2);
  const workload = new URLSearchParams(query).get('workload') ?? undefined;
  switch (`${request.method} ${path}`) {
    case 'GET /status':
      return statusOf(view.status(), workload);
    case 'GET /plan':
      return planOf(statusOf(view.status(), workload));
    case 'GET /settings':
      return view.settings();
    case 'POST /rotate':
      return rotate(parseRotateRequest(await readBody(request)), view, deps, signal);
    default:
      throw new AgentError('ERR_USAGE', 'control request: unknown request', {
        hint: 'the command and the agent may be of different versions: keyturn --version and keyturn status show them',
      });
  }
}

/** All of it, or what is about one workload. */
function statusOf(status: AgentStatus, workload: string | undefined): AgentStatus {
  if (workload === undefined) return status;
  const workloads = status.workloads.filter(({ name }) => name === workload);
  const refused = (status.refused ?? []).filter(({ name }) => name === workload);
  if (workloads.length + refused.length === 0) {
    throw invalid(
      'ERR_USAGE',
      'workload',
      `${JSON.stringify(workload.slice(0, 100))} is not in the list`,
      {
        hint: '`keyturn status` shows which are',
      },
    );
  }
  const reasons = status.reasons.filter((reason) => reason.startsWith(`workload ${workload}: `));
  const { refused: _, ...rest } = status;
  return {
    ...rest,
    ready: reasons.length === 0,
    reasons,
    workloads,
    ...(refused.length > 0 && { refused }),
  };
}

function planOf(status: AgentStatus): PlanAnswer {
  return {
    now: status.now,
    workloads: status.workloads.map(
      ({ name, id, state, certificate, plan, retryAt, lastError, outageBudget }) => ({
        ...(name !== undefined && { name }),
        id,
        state,
        plan,
        ...(certificate && { certificate }),
        ...(retryAt !== undefined && { retryAt }),
        ...(lastError && { lastError }),
        ...(outageBudget && { outageBudget }),
      }),
    ),
  };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES)
      throw invalid(
        'ERR_USAGE',
        'control request',
        `must not be longer than ${MAX_BODY_BYTES} bytes`,
      );
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * Reads the body of `POST /rotate`; an empty one asks for the defaults.
 *
 * @throws AgentError ERR_USAGE with field and rule.
 */
export function parseRotateRequest(text: string): ParsedRotateRequest {
  const given = parseObject(text);
  const {
    wait = false,
    timeoutMs = DEFAULT_ROTATE_MS,
    reason = 'requested over the control socket',
    workload,
    ...unknown
  } = given;
  const [stranger] = Object.keys(unknown);
  if (stranger !== undefined)
    throw invalid(
      'ERR_USAGE',
      'rotate request',
      `has an unknown field ${JSON.stringify(stranger.slice(0, 40))}`,
    );
  if (typeof wait !== 'boolean') throw invalid('ERR_USAGE', 'wait', 'must be true or false');
  if (
    !Number.isInteger(timeoutMs) ||
    (timeoutMs as number) < 1 ||
    (timeoutMs as number) > MAX_ROTATE_MS
  ) {
    throw invalid('ERR_USAGE', 'timeoutMs', `must be a whole number from 1 to ${MAX_ROTATE_MS}`);
  }
  if (typeof reason !== 'string' || reason.length > 200)
    throw invalid('ERR_USAGE', 'reason', 'must be text of at most 200 characters');
  if (workload !== undefined && typeof workload !== 'string')
    throw invalid('ERR_USAGE', 'workload', 'must be a name');
  return { wait, timeoutMs: timeoutMs as number, reason, workload };
}

type ParsedRotateRequest = Required<Omit<RotateRequest, 'workload'>> & {
  readonly workload: string | undefined;
};

function parseObject(text: string): Record<string, unknown> {
  if (text.length === 0) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (err) {
    throw invalid('ERR_USAGE', 'rotate request', 'must be JSON', { cause: err });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid('ERR_USAGE', 'rotate request', 'must be a JSON object');
  return value as Record<string, unknown>;
}

async function rotate(
  request: ParsedRotateRequest,
  view: AgentView,
  deps: Deps,
  signal: AbortSignal,
): Promise<unknown> {
  const { wait, timeoutMs, reason, workload } = request;
  const late = new AgentError('ERR_TIMEOUT', `rotate: not done within ${timeoutMs / 1000} s`, {
    retry: 'soon',
    hint: 'keyturn status shows which stream or CA is behind',
  });
  const deadline = new AbortController();
  const answered = new AbortController();
  const ended = AbortSignal.any([signal, answered.signal]);
  const expired = (async () => {
    await deps.clock.sleepUntil(deps.clock.now() + timeoutMs, ended);
    deadline.abort(late);
    await deps.clock.sleepUntil(deps.clock.now() + LAST_WORD_MS, ended);
    throw late;
  })();
  try {
    return await Promise.race([
      view.rotate({ wait, reason, workload }, AbortSignal.any([signal, deadline.signal])),
      expired,
    ]);
  } finally {
    answered.abort();
    void expired.catch(() => undefined);
  }
}

/** For programs that speak HTTP to the socket; ours reads the code. */
function httpStatus(code: ErrorCode): number {
  switch (code) {
    case 'ERR_USAGE':
      return 400;
    case 'ERR_TIMEOUT':
      return 504;
    case 'ERR_CA_UNAVAILABLE':
    case 'ERR_CA_REJECTED':
    case 'ERR_CA_RESPONSE':
      return 502;
    default:
      return 500;
  }
}

function fail(response: ServerResponse, error: AgentError, deps: Deps): void {
  if (error.code === 'ERR_BUG') deps.log.error('control request failed', { cause: error });
  const failure: ControlFailure = {
    error: {
      code: error.code,
      message: error.message,
      ...(error.hint !== undefined && { hint: error.hint }),
    },
  };
  // What is left of a body that was too long is not read.
  response.setHeader('connection', 'close');
  send(response, httpStatus(error.code), failure);
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}
