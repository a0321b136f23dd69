import { status as GrpcStatus, Metadata } from '@grpc/grpc-js';
import { AgentError, type AgentErrorOptions, type ErrorCode } from '../../../agent/base/errors';
import { RetryInfo } from '../../proto/generated/google/rpc/error_details';
import { Status } from '../../proto/generated/google/rpc/status';
import { OWN_IDENTITY_ONLY } from '../csr-rules';

/** A call that is not answered with a certificate. */
export interface Refusal {
  readonly code: GrpcStatus;
  /** What the caller learns. */
  readonly message: string;
  /** When the caller may come again, where that is known. */
  readonly retryAfterMs?: number | undefined;
}

/** A refusal whose status and words are for the caller as they stand. */
export class RefusedCall extends AgentError {
  constructor(
    readonly status: GrpcStatus,
    message: string,
    options: AgentErrorOptions = {},
  ) {
    super('ERR_CA_REJECTED', message, options);
  }
}

const STATUS_OF: Partial<Record<ErrorCode, GrpcStatus>> = {
  ERR_PARSE: GrpcStatus.INVALID_ARGUMENT,
  ERR_CA_REJECTED: GrpcStatus.INVALID_ARGUMENT,
  ERR_TOKEN: GrpcStatus.UNAUTHENTICATED,
  ERR_CA_UNAVAILABLE: GrpcStatus.UNAVAILABLE,
  ERR_CA_STATE: GrpcStatus.UNAVAILABLE,
  ERR_OUTPUT: GrpcStatus.UNAVAILABLE,
  ERR_TIMEOUT: GrpcStatus.UNAVAILABLE,
  ERR_ABORTED: GrpcStatus.UNAVAILABLE,
};

/**
 * What the caller is told of a failure. Of its own request everything: it wrote it. Of its credential only that it does not do, as
 * upstream's CA (whose clients look for these very words). Of our own troubles only that there are some.
 */
export function refusalOf(caught: unknown): Refusal {
  const error = AgentError.from(caught);
  if (error instanceof RefusedCall) return { code: error.status, message: error.message, retryAfterMs: error.retryAfterMs };
  if (error.rule === OWN_IDENTITY_ONLY) return { code: GrpcStatus.PERMISSION_DENIED, message: `${error.field}: ${error.rule}` };
  const code = STATUS_OF[error.code] ?? GrpcStatus.INTERNAL;
  return { code, message: messageOf(code, error), retryAfterMs: error.retryAfterMs };
}

function messageOf(code: GrpcStatus, error: AgentError): string {
  if (code === GrpcStatus.INVALID_ARGUMENT) return error.message.slice(0, 500);
  if (code === GrpcStatus.UNAUTHENTICATED) return 'request authenticate failure';
  return code === GrpcStatus.UNAVAILABLE ? 'the CA cannot sign now' : 'internal error; the log of the CA says more';
}

/** What ends a call. */
interface CallStatus {
  readonly code: GrpcStatus;
  readonly details: string;
  readonly metadata?: Metadata;
}

/** The refusal as gRPC sends it: with the two hints that clients know, where there is one. */
export function grpcStatus({ code, message, retryAfterMs }: Refusal): CallStatus {
  // Of anybody's text only what survives in a header; gRPC itself fails on a lone surrogate.
  const details = message.replace(/[^\x20-\x7e]/g, '?');
  if (retryAfterMs === undefined) return { code, details };
  const metadata = new Metadata();
  metadata.set('grpc-retry-pushback-ms', String(Math.ceil(retryAfterMs)));
  metadata.set('grpc-status-details-bin', retryInfo(code, details, retryAfterMs));
  return { code, details, metadata };
}

function retryInfo(code: GrpcStatus, message: string, retryAfterMs: number): Buffer {
  const retryDelay = { seconds: BigInt(Math.floor(retryAfterMs / 1_000)), nanos: Math.ceil(retryAfterMs % 1_000) * 1_000_000 };
  const value = Buffer.from(RetryInfo.encode({ retryDelay }).finish());
  return Buffer.from(Status.encode({ code, message, details: [{ typeUrl: 'type.googleapis.com/google.rpc.RetryInfo', value }] }).finish());
}
