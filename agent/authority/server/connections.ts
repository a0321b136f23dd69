import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { shownCertificates } from '../../base/shown-certificates';
import { LIMITS, PATIENCE } from './limits';

/** One client's connection. */
export interface Connection {
  /** Address and port of the client, for audit and log. */
  readonly peer: string;
  /** The address alone. */
  readonly address: string;
  /** What the client showed in the handshake, DER, leaf first. The same array for as long as the connection lives. */
  readonly certificatesDer: readonly Uint8Array[];
  /**
   * When the first of them ends that was valid in the handshake, epoch milliseconds; Infinity without any. The connection ends with it: the
   * client has another by then, and can only show that in a new handshake.
   */
  readonly endsAt: number;
  /** Tells the client to go, and ends when its calls have ended. Set by whoever speaks with it. */
  leave: (() => void) | undefined;
}

/** A call whose request has not arrived whole. */
export interface IncompleteCall {
  readonly connection: Connection;
  /** Ends it: it takes too long, or another one needs its place. */
  end(why: 'slow' | 'calls'): void;
}

/** The place of one connection, from its first octet on. */
export interface Place {
  readonly peer: string;
  readonly address: string;
  readonly raw: Socket;
  /** Whether it has opened a call yet, and how many sweeps ago it opened the last one, or was opened itself. */
  used: boolean;
  sweeps: number;
  /** Its calls that have not arrived whole. */
  incomplete: number;
  connection: Connection | undefined;
}

/** The open connections and the calls that have not arrived whole: bounded in number, and rid of those that say nothing. */
export class Connections {
  /** In the order in which they were opened. */
  readonly #open = new Set<Place>();
  readonly #places = new WeakMap<Connection, Place>();
  readonly #incomplete = new Map<IncompleteCall, { readonly place: Place; sweeps: number }>();

  get size(): number {
    return this.#open.size;
  }

  /** Takes a TCP socket in, before its handshake. Undefined after closing it: all others are in use, or it is gone already. */
  accept(raw: Socket): Place | undefined {
    const { remoteAddress: address, remotePort } = raw;
    if (address === undefined || (this.#open.size >= LIMITS.connections && !this.#evictUnused())) {
      raw.destroy();
      return undefined;
    }
    const place: Place = {
      peer: `${address}:${remotePort}`,
      address,
      raw,
      used: false,
      sweeps: 0,
      incomplete: 0,
      connection: undefined,
    };
    this.#open.add(place);
    raw.once('close', () => this.#open.delete(place));
    return place;
  }

  /** The TLS handshake in that place is done. @param now  Epoch milliseconds. */
  secured(place: Place, socket: TLSSocket, now: number): Connection {
    const shown = shownCertificates(socket);
    const { peer, address } = place;
    const connection: Connection = {
      peer,
      address,
      certificatesDer: shown.map(({ raw }) => raw),
      endsAt: Math.min(...shown.map(({ validTo }) => Date.parse(validTo)).filter((at) => at > now)),
      leave: undefined,
    };
    place.connection = connection;
    this.#places.set(connection, place);
    return connection;
  }

  /**
   * A call has been opened. Where too many wait for their requests already, the oldest of the connection that has most of them makes room,
   * so that whoever holds many holds up nobody but itself. False where that is the same connection.
   */
  callOpened(call: IncompleteCall): boolean {
    const place = this.#places.get(call.connection);
    if (place === undefined || !this.#open.has(place)) return false;
    place.used = true;
    place.sweeps = 0;
    if (this.#incomplete.size >= LIMITS.incompleteCalls && !this.#displaceFor(place)) return false;
    this.#incomplete.set(call, { place, sweeps: 0 });
    place.incomplete += 1;
    return true;
  }

  /** Its request has arrived, or it is over. */
  callComplete(call: IncompleteCall): void {
    const entry = this.#incomplete.get(call);
    if (entry === undefined) return;
    this.#incomplete.delete(call);
    entry.place.incomplete -= 1;
  }

  /** Ends calls and connections that have been silent for too long, and says how many. @param now  Epoch milliseconds. */
  sweep(now: number): number {
    let ended = 0;
    for (const each of this.#open) {
      each.sweeps += 1;
      // One that was of use is told, so that it does not take the next call with it.
      if (each.used && each.sweeps === PATIENCE.idleSweeps) each.connection?.leave?.();
      if (each.connection !== undefined && hasEnded(each.connection, now))
        each.connection.leave?.();
      if (
        each.sweeps <=
        (each.used ? PATIENCE.idleSweeps + PATIENCE.goodbyeSweeps : PATIENCE.silentSweeps)
      )
        continue;
      each.raw.destroy();
      ended += 1;
    }
    for (const [call, entry] of this.#incomplete) {
      entry.sweeps += 1;
      if (entry.sweeps <= PATIENCE.incompleteSweeps) continue;
      this.callComplete(call);
      call.end('slow');
      ended += 1;
    }
    return ended;
  }

  destroyAll(): void {
    for (const each of this.#open) each.raw.destroy();
  }

  #displaceFor(newcomer: Place): boolean {
    let busiest = newcomer;
    for (const each of this.#open) if (each.incomplete > busiest.incomplete) busiest = each;
    if (busiest === newcomer) return false;
    for (const [call, { place }] of this.#incomplete) {
      if (place !== busiest) continue;
      this.callComplete(call);
      call.end('calls');
      return true;
    }
    return false;
  }

  /** Makes room by closing the oldest connection that has never asked anything. */
  #evictUnused(): boolean {
    for (const each of this.#open) {
      if (each.used) continue;
      this.#open.delete(each);
      each.raw.destroy();
      return true;
    }
    return false;
  }
}

/** Whether a certificate that it was opened with has ended since: what it is asked is to be asked again over a new one. */
export function hasEnded({ endsAt }: Connection, now: number): boolean {
  return now >= endsAt;
}
