import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Call } from './call';
import type { Connection, Connections, HeldStream } from './connections';
import { LIMITS } from './limits';

/** The places for streams, which all services of the socket share: bounded in number, and no client takes those of the others. */
export class StreamLimiter {
  readonly #connections: Connections;
  readonly #refused: (facts: Readonly<Record<string, unknown>>) => void;
  #held = 0;

  /** @param refused  Told of each stream that got no place, or lost it. */
  constructor(
    connections: Connections,
    refused: (facts: Readonly<Record<string, unknown>>) => void,
  ) {
    this.#connections = connections;
    this.#refused = refused;
  }

  /** Whether a call may have a place; where not, it has been answered with why. */
  enter(call: Call): boolean {
    const { connection } = call;
    if (this.#held < LIMITS.streams || this.#makeRoom(connection)) return true;
    this.#refused({ limit: LIMITS.streams });
    call.finish(GrpcStatus.RESOURCE_EXHAUSTED, `more than ${LIMITS.streams} streams`);
    return false;
  }

  hold(connection: Connection, stream: HeldStream): void {
    connection.held.add(stream);
    this.#held += 1;
  }

  leave(connection: Connection, stream: HeldStream): void {
    if (connection.held.delete(stream)) this.#held -= 1;
  }

  /** A connection with few streams gets its place from the one with the most. */
  #makeRoom(connection: Connection): boolean {
    if (connection.held.size >= LIMITS.modestStreams) return false;
    const busiest = this.#connections.busiest();
    if (!busiest || busiest.held.size <= LIMITS.modestStreams) return false;
    const last = [...busiest.held].at(-1)!;
    this.#refused({ limit: LIMITS.streams, displaced: last.id });
    last.fail(GrpcStatus.RESOURCE_EXHAUSTED, `more than ${LIMITS.streams} streams`);
    return true;
  }
}
