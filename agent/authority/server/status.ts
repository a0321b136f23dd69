import { RetryInfo } from '../../../ca-client/proto/generated/google/rpc/error_details';
import { Status } from '../../../ca-client/proto/generated/google/rpc/status';
import { AgentError, type AgentErrorOptions, type ErrorCode } from '../../base/errors';
import { GrpcStatus, type GrpcStatusName } from '../../http2/grpc-status';
import { OWN_IDENTITY_ONLY } from '../csr-rules';
import { PATIENCE } from './limits';

/** A call that is not answered with a certificate. */
export interface Refusal {
  readonly status: GrpcStatusName;
  /** What the caller learns. */
  readonly message: string;
  /** When the caller may come again, where that is known. */
  readonly retryAfterMs?: number | undefined;
}

/** A refusal whose status and words are for the caller as they stand. */
export class RefusedCall extends AgentError {
  constructor(
    readonly status: GrpcStatusName,
    message: string,
    options: AgentErrorOptions = {},
  ) {
    super('ERR_CA_REJECTED', message, options);
  }
}

/** What a caller is told that comes at a bad time. @param retryAfterMs  When it may come again. */
export function tooManyRequests(
  what: string,
  retryAfterMs: number = PATIENCE.comeAgainMs,
): RefusedCall {
  return new RefusedCall('RESOURCE_EXHAUSTED', what, { retry: 'soon', retryAfterMs });
}

const STATUS_OF: Partial<Record<ErrorCode, GrpcStatusName>> = {
  ERR_PARSE: 'INVALID_ARGUMENT',
  ERR_CA_REJECTED: 'INVALID_ARGUMENT',
  ERR_TOKEN: 'UNAUTHENTICATED',
  ERR_CA_UNAVAILABLE: 'UNAVAILABLE',
  ERR_CA_STATE: 'UNAVAILABLE',
  ERR_OUTPUT: 'UNAVAILABLE',
  ERR_TIMEOUT: 'UNAVAILABLE',
  ERR_ABORTED: 'UNAVAILABLE',
};

/**
 * What the caller is told of a failure. Of its own request everything: it wrote it. Of its credential only that it does not do, as
 * upstream's CA (whose clients look for these very words). Of our own troubles only that there are some.
 */
export function refusalOf(caught: unknown): Refusal {
  const error = AgentError.from(caught);
  const { retryAfterMs } = error;
  if (error instanceof RefusedCall)
    return { status: error.status, message: error.message, retryAfterMs };
  if (error.rule === OWN_IDENTITY_ONLY)
    return { status: 'PERMISSION_DENIED', message: `${error.field}: ${error.rule}` };
  const status = STATUS_OF[error.code] ?? 'INTERNAL';
  return { status, message: messageOf(status, error), retryAfterMs };
}

function messageOf(status: GrpcStatusName, error: AgentError): string {
  if (status === 'INVALID_ARGUMENT') return error.message.slice(0, 500);
  if (status === 'UNAUTHENTICATED') return 'request authenticate failure';
  return status === 'UNAVAILABLE'
    ? 'the CA cannot sign now'
    : 'internal error; see the log of the CA';
}

/** The refusal as gRPC sends it, in headers: with the two hints that clients know, where there is one. */
export function statusHeaders({ status, message, retryAfterMs }: Refusal): Record<string, string> {
  const code = GrpcStatus[status];
  // Of anybody's text only what survives in a header.
  const text = message.replace(/[^\x20-\x7e]/g, '?');
  const headers = { 'grpc-status': String(code), 'grpc-message': text.replaceAll('%', '%25') };
  if (retryAfterMs === undefined) return headers;
  const hint = {
    'grpc-retry-pushback-ms': String(Math.ceil(retryAfterMs)),
    'grpc-status-details-bin': retryInfo(code, text, retryAfterMs),
  };
  return { ...headers, ...hint };
}

function retryInfo(code: number, message: string, retryAfterMs: number): string {
  const retryDelay = {
    seconds: BigInt(Math.floor(retryAfterMs / 1_000)),
    nanos: Math.floor(retryAfterMs % 1_000) * 1_000_000,
  };
  const value = Buffer.from(RetryInfo.encode({ retryDelay }).finish());
  const status = Status.encode({
    code,
    message,
    details: [{ typeUrl: 'type.googleapis.com/google.rpc.RetryInfo', value }],
  }).finish();
  return Buffer.from(status).toString('base64');
}
