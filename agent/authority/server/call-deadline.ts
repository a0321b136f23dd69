import { parseGrpcTimeout } from '../../http2/grpc-timeout';
import { RefusedCall } from './status';

/** Until when the caller of a gRPC method waits. */
export interface CallDeadline {
  /** @throws RefusedCall DEADLINE_EXCEEDED where nobody waits any more; INVALID_ARGUMENT where the header says nothing of the kind. */
  assertAhead(): void;
}

const NONE: CallDeadline = { assertAhead: () => undefined };

/**
 * The deadline that `grpc-timeout` sets, counted from now by the monotonic clock, so a jump of the wall clock ends nothing.
 *
 * @param value  Of the header; undefined where there is none, and then there is no deadline.
 */
export function callDeadline(value: string | undefined): CallDeadline {
  if (value === undefined) return NONE;
  const timeoutMs = parseGrpcTimeout(value);
  const endAt = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
  return {
    assertAhead: () => {
      if (endAt === undefined)
        throw new RefusedCall(
          'INVALID_ARGUMENT',
          'grpc-timeout: must be up to eight digits and one of H, M, S, m, u, n',
        );
      if (performance.now() >= endAt)
        throw new RefusedCall('DEADLINE_EXCEEDED', 'deadline exceeded', {
          retry: 'soon',
        });
    },
  };
}
