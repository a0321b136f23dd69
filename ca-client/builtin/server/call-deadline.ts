import { RefusedCall } from './status';

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** Until when the caller of a gRPC method waits. */
export interface CallDeadline {
  /** @throws RefusedCall DEADLINE_EXCEEDED where nobody waits any more; INVALID_ARGUMENT where the header says nothing of the kind. */
  assertAhead(): void;
}

const NONE: CallDeadline = { assertAhead: () => undefined };

/**
 * Reads `grpc-timeout`: at most eight digits and a unit, counted from now by the monotonic clock, so a jump of the wall clock ends nothing.
 *
 * @param value  Of the header; undefined where there is none, and then there is no deadline.
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md "Timeout"
 */
export function callDeadline(value: string | undefined): CallDeadline {
  if (value === undefined) return NONE;
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(value) ?? [];
  const endAt = digits === undefined ? undefined : performance.now() + Number(digits) * UNIT_MS[unit!]!;
  return {
    assertAhead: () => {
      if (endAt === undefined)
        throw new RefusedCall('INVALID_ARGUMENT', 'grpc-timeout: must be up to eight digits and one of H, M, S, m, u, n');
      if (performance.now() >= endAt) throw new RefusedCall('DEADLINE_EXCEEDED', 'the deadline of the call is past', { retry: 'soon' });
    },
  };
}
