import { isNativeError } from 'node:util/types';

/** What went wrong, for programs. Add a row to `EXIT_CODES` in cli/exit-code.ts with each new one. */
export type ErrorCode =
  | 'ERR_USAGE' // a command line that cannot be understood
  | 'ERR_CONFIG' // a flag, environment variable or file key is wrong; the message names its origin
  | 'ERR_PARSE' // PEM, DER or protobuf bytes that break their grammar
  | 'ERR_IDENTITY_INVALID' // a malformed SPIFFE ID or trust domain
  | 'ERR_TOKEN' // a credential for the CA is missing, unreadable or expired
  | 'ERR_CA_UNAVAILABLE' // the CA cannot answer now
  | 'ERR_CA_REJECTED' // the CA answered no
  | 'ERR_CA_RESPONSE' // the CA's answer was refused by the gate
  | 'ERR_CA_STATE' // the built-in CA's directory is wrong
  | 'ERR_TOO_EARLY' // what is asked for would harm now; the message says from when on it will not
  | 'ERR_INPUT' // a file that a command was given cannot be read
  | 'ERR_MANIFEST' // a Kubernetes manifest is wrong, or asks for what cannot be
  | 'ERR_POLICY' // a policy or a MeshConfig is wrong
  | 'ERR_SELF_CHECK' // what there is to serve would make a proxy refuse every peer
  | 'ERR_FILE_SOURCE' // mounted certificate files are missing or wrong
  | 'ERR_SECRET_UNKNOWN' // a resource name that nobody serves
  | 'ERR_SOCKET_IN_USE' // a live process listens on the socket
  | 'ERR_SOCKET' // the socket cannot be made
  | 'ERR_CONTROL' // the agent's control socket does not answer
  | 'ERR_OUTPUT' // files cannot be written
  | 'ERR_TIMEOUT' // a bounded wait ran out
  | 'ERR_ABORTED' // the caller gave up; nothing is wrong
  | 'ERR_BUG'; // a broken invariant of ours

/**
 * When trying again makes sense: `soon` with growing back-off, `slow` at the back-off's cap, `never` without a change by a person. `unsure`
 * is a refusal that may be an outage in disguise: soon for whoever has no certificate yet, slow for all others.
 */
export type Retry = 'soon' | 'unsure' | 'slow' | 'never';

export interface AgentErrorOptions {
  readonly retry?: Retry;
  /** What a person can do about it, lower case, no full stop. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** For refused input: the field, e.g. `trust domain`. */
  readonly field?: string;
  /** For refused input: the rule that it breaks, e.g. `must not be empty`. */
  readonly rule?: string;
  /** The server's own wish: not before this many milliseconds from now. */
  readonly retryAfterMs?: number;
}

/**
 * The one error type. The message reads "what we tried: what happened": lower case, no full stop, real values, no secrets.
 * It is translated at the edges only: gRPC status and HTTP code to AgentError in `ca-client`, AgentError to gRPC status in `sds`, to an
 * exit code in `cli`.
 */
export class AgentError extends Error {
  readonly code: ErrorCode;
  readonly retry: Retry;
  readonly hint: string | undefined;
  readonly field: string | undefined;
  readonly rule: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: AgentErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AgentError';
    this.code = code;
    this.retry = options.retry ?? 'never';
    this.hint = options.hint;
    this.field = options.field;
    this.rule = options.rule;
    this.retryAfterMs = options.retryAfterMs;
  }

  /** Normalises anything caught. What is not ours already becomes `code` (default ERR_BUG) and keeps the original as its cause. */
  static from(
    caught: unknown,
    code: ErrorCode = 'ERR_BUG',
    options: AgentErrorOptions = {},
  ): AgentError {
    if (caught instanceof AgentError) return caught;
    return new AgentError(code, errorText(caught), { ...options, cause: caught });
  }
}

/**
 * Refuses input: the error names the field and the rule.
 *
 * @param field  What was read, e.g. `spiffe id`, `csr`, `--ttl`.
 * @param rule   The rule that it breaks, e.g. `must start with spiffe://`.
 */
export function invalid(
  code: ErrorCode,
  field: string,
  rule: string,
  options: Omit<AgentErrorOptions, 'field' | 'rule'> = {},
): AgentError {
  return new AgentError(code, `${field}: ${rule}`, { ...options, field, rule });
}

/**
 * One problem as it is; several under one roof, each still on its own for whoever prints them.
 *
 * @param problems  At least one.
 * @param summary   What several are called.
 */
export function oneError(
  code: ErrorCode,
  problems: readonly AgentError[],
  summary: string,
): AgentError {
  const [first, ...others] = problems;
  if (first && others.length === 0) return first;
  return new AgentError(code, summary, { cause: new AggregateError(problems) });
}

/** The message of anything thrown, including system errors and strings. */
export function errorText(caught: unknown): string {
  return isNativeError(caught) ? caught.message : String(caught);
}

/** The `code` of a Node system error (`ENOENT`, ...), or undefined. */
export function systemCode(caught: unknown): string | undefined {
  // Not by instanceof: an error of another realm (a vm context, a test's) is one all the same.
  const code = isNativeError(caught) ? (caught as NodeJS.ErrnoException).code : undefined;
  return typeof code === 'string' ? code : undefined;
}
