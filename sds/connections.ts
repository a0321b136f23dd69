import type { Socket } from 'node:net';
import { connectionBound } from '../agent/base/connection-bound';
import { LIMITS, PATIENCE } from './limits';
import type { LeafSecret } from './secrets';
import type { OpenStream } from './stream';
import type { HeldStream } from './stream-room';

/** One client's connection. */
export interface Connection {
  readonly id: number;
  readonly socket: Socket;
  /** Open streams of secret discovery. */
  readonly streams: Set<OpenStream>;
  /** Open streams of every service. */
  readonly held: Set<HeldStream>;
  /** The leaf that this client is offered. Behind the newest while a newer bundle has not been sent to it. */
  leaf: LeafSecret | undefined;
  /** Streams that were refused for the number of all. */
  refusals: number;
  /** Whether a call came by it: in Bun an HTTP/2 session does not count what its socket has read. */
  called: boolean;
  /** Sweeps since it was accepted, as long as it has not begun to speak HTTP/2. */
  silentSweeps: number;
}

/** HTTP/2 begins with a preface of this many bytes from the client (RFC 9113 section 3.4). */
const PREFACE_BYTES = 24;

/**
 * The open connections: bounded in number, and rid of those that say nothing.
 *
 * gRPC does not tell a handler which connection its call came by, and a Unix socket has no peer address. So each accepted socket is given
 * one that is its number, and `ofCall` reads it back from what gRPC calls the peer.
 */
export class Connections {
  readonly #open = new Map<number, Connection>();
  #lastId = 0;

  /** @param sockets  How many sockets of this process share its descriptors. */
  constructor(private readonly sockets: () => number = () => 1) {}

  /** How many there may be: one socket under a storm leaves the others theirs, and each has a few whatever their number. */
  get bound(): number {
    return Math.max(LIMITS.leastConnections, connectionBound(LIMITS.connections, 1 / 2 / Math.max(1, this.sockets())));
  }

  get size(): number {
    return this.#open.size;
  }

  get full(): boolean {
    return this.#open.size >= this.bound;
  }

  /** Takes a new socket in, or returns undefined after closing it: too many others are in use. */
  accept(socket: Socket): Connection | undefined {
    if (this.full && !this.#evictUnused()) {
      socket.destroy();
      return undefined;
    }
    this.#lastId += 1;
    const connection: Connection = {
      id: this.#lastId,
      socket,
      streams: new Set(),
      held: new Set(),
      leaf: undefined,
      refusals: 0,
      called: false,
      silentSweeps: 0,
    };
    this.#open.set(connection.id, connection);
    Object.defineProperty(socket, 'remoteAddress', { value: String(connection.id) });
    socket.once('close', () => this.#open.delete(connection.id));
    return connection;
  }

  /** The connection of a call that has come, from its `getPeer()`; undefined when it is gone. */
  ofCall(peer: string): Connection | undefined {
    const found = this.#open.get(Number(peer));
    if (found) found.called = true;
    return found;
  }

  /** The connection with the most streams, undefined when there is none. */
  busiest(): Connection | undefined {
    let busiest: Connection | undefined;
    for (const each of this.#open.values()) if (each.held.size > (busiest?.held.size ?? 0)) busiest = each;
    return busiest;
  }

  /** Whether `sweep` has anything to watch. */
  hasSilent(): boolean {
    for (const each of this.#open.values()) if (isSilent(each)) return true;
    return false;
  }

  /** Closes connections on which nothing came for too long. Returns how many. */
  sweep(): number {
    let closed = 0;
    for (const each of this.#open.values()) {
      if (!isSilent(each)) continue;
      each.silentSweeps += 1;
      if (each.silentSweeps <= PATIENCE.silentConnectionSweeps) continue;
      each.socket.destroy();
      closed += 1;
    }
    return closed;
  }

  destroyAll(): void {
    for (const each of this.#open.values()) each.socket.destroy();
  }

  /** Makes room by closing the oldest connection without streams. */
  #evictUnused(): boolean {
    for (const each of this.#open.values()) {
      if (each.held.size > 0) continue;
      this.#open.delete(each.id);
      each.socket.destroy();
      return true;
    }
    return false;
  }
}

function isSilent(connection: Connection): boolean {
  return connection.held.size === 0 && !connection.called && connection.socket.bytesRead < PREFACE_BYTES;
}
