import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { shownCertificates } from '../../../agent/base/shown-certificates';
import { LIMITS, PATIENCE } from './limits';

/** One client's connection. */
export interface Connection {
  /** Address and port of the client, for audit and log. */
  readonly peer: string;
  /** The address alone. */
  readonly address: string;
  /** What the client showed in the handshake, DER, leaf first. The same array for as long as the connection lives. */
  readonly certificatesDer: readonly Uint8Array[];
  /** Tells the client to go, and ends when its calls have ended. Set by whoever speaks with it. */
  leave: (() => void) | undefined;
}

/** A call whose request has not arrived whole. */
export interface IncompleteCall {
  readonly connection: Connection;
  /** Ends it: it takes too long, or another one needs its place. */
  end(why: 'slow' | 'calls'): void;
}

interface Open {
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
  /** By address and port of the client: no two open connections to one port have the same. */
  readonly #open = new Map<string, Open>();
  readonly #incomplete = new Map<IncompleteCall, { readonly open: Open; sweeps: number }>();

  get size(): number {
    return this.#open.size;
  }

  /** Takes a TCP socket in, before its handshake. False after closing it: all others are in use. */
  accept(raw: Socket): boolean {
    const peer = peerOf(raw);
    if (peer === undefined || (this.#open.size >= LIMITS.connections && !this.#evictUnused())) {
      raw.destroy();
      return false;
    }
    const open: Open = { raw, used: false, sweeps: 0, incomplete: 0, connection: undefined };
    this.#open.set(peer, open);
    raw.once('close', () => {
      if (this.#open.get(peer) === open) this.#open.delete(peer);
    });
    return true;
  }

  /** The TLS handshake on a socket is done. Undefined after closing it: it is gone already. */
  secured(socket: TLSSocket): Connection | undefined {
    const peer = peerOf(socket);
    const open = peer === undefined ? undefined : this.#open.get(peer);
    if (peer === undefined || open === undefined) {
      socket.destroy();
      return undefined;
    }
    open.connection = { peer, address: socket.remoteAddress!, certificatesDer: shownCertificates(socket), leave: undefined };
    return open.connection;
  }

  /**
   * A call has been opened. Where too many wait for their requests already, the oldest of the connection that has most of them makes room,
   * so that whoever holds many holds up nobody but itself. False where that is the same connection.
   */
  callOpened(call: IncompleteCall): boolean {
    const open = this.#open.get(call.connection.peer);
    if (open === undefined) return false;
    open.used = true;
    open.sweeps = 0;
    if (this.#incomplete.size >= LIMITS.incompleteCalls && !this.#displaceFor(open)) return false;
    this.#incomplete.set(call, { open, sweeps: 0 });
    open.incomplete += 1;
    return true;
  }

  /** Its request has arrived, or it is over. */
  callComplete(call: IncompleteCall): void {
    const entry = this.#incomplete.get(call);
    if (entry === undefined) return;
    this.#incomplete.delete(call);
    entry.open.incomplete -= 1;
  }

  /** Ends calls and connections that have been silent for too long. Returns how many. */
  sweep(): number {
    let ended = 0;
    for (const each of this.#open.values()) {
      each.sweeps += 1;
      // One that was of use is told, so that it does not take the next call with it.
      if (each.used && each.sweeps === PATIENCE.idleSweeps) each.connection?.leave?.();
      if (each.sweeps <= (each.used ? PATIENCE.idleSweeps + PATIENCE.goodbyeSweeps : PATIENCE.silentSweeps)) continue;
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
    for (const each of this.#open.values()) each.raw.destroy();
  }

  #displaceFor(newcomer: Open): boolean {
    let busiest = newcomer;
    for (const each of this.#open.values()) if (each.incomplete > busiest.incomplete) busiest = each;
    if (busiest === newcomer) return false;
    for (const [call, { open }] of this.#incomplete) {
      if (open !== busiest) continue;
      this.callComplete(call);
      call.end('calls');
      return true;
    }
    return false;
  }

  /** Makes room by closing the oldest connection that has never asked anything. */
  #evictUnused(): boolean {
    for (const [peer, each] of this.#open) {
      if (each.used) continue;
      this.#open.delete(peer);
      each.raw.destroy();
      return true;
    }
    return false;
  }
}

function peerOf({ remoteAddress, remotePort }: Socket): string | undefined {
  return remoteAddress === undefined ? undefined : `${remoteAddress}:${remotePort}`;
}
