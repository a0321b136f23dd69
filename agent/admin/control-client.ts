import type { IncomingMessage, RequestOptions } from 'node:http';
import { systemClock, withDeadline } from '../base/clock';
import { AgentError, errorText, systemCode } from '../base/errors';
import type { ControlFailure } from './control-server';

/** A status with a thousand streams is about a megabyte. */
const MAX_ANSWER_BYTES = 64 * 1_048_576;
const DEFAULT_TIMEOUT_MS = 10_000;

/**
 * Asks the running agent over its control socket, e.g. `callControl<AgentStatus>(path, 'GET', '/status')`.
 *
 * @param options.timeoutMs  For the whole call, default 10 s; give `POST /rotate` more than its own `timeoutMs`.
 * @throws AgentError ERR_CONTROL when no agent answers there, ERR_TIMEOUT, or the agent's own error as it was.
 */
export async function callControl<T>(
  socketPath: string,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
  options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
): Promise<T> {
  const { request } = await import('node:http');
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const what = `control socket ${socketPath}`;
  const exchange = (signal: AbortSignal) =>
    new Promise<{ readonly status: number; readonly text: string }>((resolve, reject) => {
      const how: RequestOptions = { socketPath, method, path, signal, agent: false };
      const asked = request(how, (response) => {
        readAll(response).then(
          (text) => resolve({ status: response.statusCode ?? 0, text }),
          reject,
        );
      });
      asked.on('error', reject);
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
  try {
    const { status, text } = await withDeadline(
      systemClock,
      timeoutMs,
      what,
      options.signal,
      exchange,
    );
    return readAnswer<T>(status, text, what);
  } catch (caught) {
    throw explain(caught, what);
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES)
      throw new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function readAnswer<T>(status: number, text: string, what: string): T {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (err) {
    throw new AgentError('ERR_CONTROL', `${what}: HTTP ${status} without JSON`, {
      hint: NOT_AN_AGENT,
      cause: err,
    });
  }
  if (status === 200) return answer as T;
  const error = (answer as Partial<ControlFailure> | null)?.error;
  if (typeof error?.message !== 'string' || !/^ERR_[A-Z_]{1,40}$/.test(error.code)) {
    throw new AgentError('ERR_CONTROL', `${what}: HTTP ${status}`, { hint: NOT_AN_AGENT });
  }
  throw new AgentError(
    error.code,
    error.message,
    typeof error.hint === 'string' ? { hint: error.hint } : {},
  );
}

const NOT_AN_AGENT =
  'something other than keyturn seems to listen there; give the right path with --control-socket';

function explain(caught: unknown, what: string): AgentError {
  if (caught instanceof AgentError) return caught;
  switch (systemCode(caught)) {
    case 'ENOENT':
    case 'ECONNREFUSED':
    case 'ENOTDIR':
      return new AgentError('ERR_CONTROL', `${what}: no agent listens there`, {
        hint: 'is keyturn run running? if its socket is elsewhere, name it with --control-socket',
        cause: caught,
      });
    case 'EACCES':
    case 'EPERM':
      return new AgentError('ERR_CONTROL', `${what}: permission denied`, {
        hint: 'run this command as root or as the user that keyturn run runs as',
        cause: caught,
      });
    case 'ABORT_ERR':
      return new AgentError('ERR_ABORTED', `${what}: aborted`, { cause: caught });
    default:
      return new AgentError('ERR_CONTROL', `${what}: ${errorText(caught)}`, {
        hint: NOT_AN_AGENT,
        cause: caught,
      });
  }
}
