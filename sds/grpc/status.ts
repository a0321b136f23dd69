import { AgentError, type ErrorCode } from '../../agent/base/errors';
import { GrpcStatus } from '../../agent/http2/grpc-status';

const STATUS_OF: Partial<Record<ErrorCode, GrpcStatus>> = {
  ERR_PARSE: GrpcStatus.INVALID_ARGUMENT,
  ERR_TOKEN: GrpcStatus.INVALID_ARGUMENT,
  ERR_SECRET_UNKNOWN: GrpcStatus.NOT_FOUND,
  ERR_ABORTED: GrpcStatus.UNAVAILABLE,
};

/** What a client is told of a failure. Anything that is not an answer to its own request is INTERNAL, without details. */
export function grpcStatus(caught: unknown): {
  readonly code: GrpcStatus;
  readonly details: string;
} {
  const code = caught instanceof AgentError ? STATUS_OF[caught.code] : undefined;
  if (code === undefined)
    return { code: GrpcStatus.INTERNAL, details: 'internal error; see the log of the agent' };
  return { code, details: (caught as AgentError).message };
}
