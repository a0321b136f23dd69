import type { Socket } from 'node:net';
import { connectionBound } from '../../agent/base/connection-bound';
import type { GrpcStatus } from '../../agent/http2/grpc-status';
import type { ServerConnection } from '../../agent/http2/server-connection';
import { LIMITS, PATIENCE } from './limits';

/** A stream of any service of this server, as far as its place is concerned. */
export interface HeldStream {
  readonly id: number;
  /** Ends it with a status. */
  fail(code: GrpcStatus, details: string): void;
}

/** One client's connection. */
export interface Connection {
  readonly id: number;
  readonly socket: Socket;
  /** Open streams of every service. */
  readonly held: Set<HeldStream>;
  /** What speaks HTTP/2 on the socket. */
  http2: ServerConnection | undefined;
  /** Sweeps since the client should have done something: begin to speak HTTP/2, read what was sent, or go after a goodbye. */
  owedSweeps: number;
  /** Looks of `probe` in a row that found it without streams. */
  idleProbes: number;
}

/** The open connections: bounded in number, and rid of those that say nothing. */
export class Connections {
  readonly #open = new Map<number, Connection>();
  #lastId = 0;

  /** @param sockets  How many sockets of this process share its descriptors. */
  constructor(private readonly sockets: () => number = () => 1) {}

  /** How many there may be: one socket under a storm leaves the others theirs, and each has a few whatever their number. */
  get bound(): number {
    return Math.max(
      LIMITS.leastConnections,
      connectionBound(LIMITS.connections, 1 / 2 / Math.max(1, this.sockets())),
    );
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
      held: new Set(),
      http2: undefined,
      owedSweeps: 0,
      idleProbes: 0,
    };
    this.#open.set(connection.id, connection);
    socket.once('close', () => this.#open.delete(connection.id));
    return connection;
  }

  /** The connection with the most streams, undefined when there is none. */
  busiest(): Connection | undefined {
    let busiest: Connection | undefined;
    for (const each of this.#open.values())
      if (each.held.size > (busiest?.held.size ?? 0)) busiest = each;
    return busiest;
  }

  /** Whether `sweep` has anything to watch. */
  hasOwing(): boolean {
    for (const each of this.#open.values()) if (patienceFor(each) !== undefined) return true;
    return false;
  }

  /** Closes connections whose client said nothing, read nothing, or stayed after a goodbye, for too long. Returns how many. */
  sweep(): number {
    let closed = 0;
    for (const each of this.#open.values()) {
      const patience = patienceFor(each);
      each.owedSweeps = patience === undefined ? 0 : each.owedSweeps + 1;
      if (patience === undefined || each.owedSweeps <= patience) continue;
      each.socket.destroy();
      closed += 1;
    }
    return closed;
  }

  /** Asks each client for a sign of life, hangs up where none came since the last time, and says goodbye to who has had no stream for long. */
  probe(): void {
    for (const each of this.#open.values()) {
      each.idleProbes = each.held.size > 0 ? 0 : each.idleProbes + 1;
      if (each.idleProbes > PATIENCE.idleProbes) each.http2?.leave();
      else if (each.http2?.probe() === false) each.socket.destroy();
    }
  }

  /** Says goodbye to all: each connection ends with its last stream. */
  leave(): void {
    for (const each of this.#open.values()) each.http2?.leave();
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

/** Sweeps that a client may take for what it owes now; undefined where it owes nothing. */
function patienceFor({ http2 }: Connection): number | undefined {
  if (!http2?.begun) return PATIENCE.silentConnectionSweeps;
  if (http2.left) return PATIENCE.goodbyeSweeps;
  return http2.blocked ? PATIENCE.unreadSweeps : undefined;
}
