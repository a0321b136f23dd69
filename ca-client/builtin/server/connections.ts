import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { LIMITS, PATIENCE } from './limits';

/** One client's connection. */
export interface Connection {
  /** Of the client, as gRPC writes it, for audit and log. */
  readonly peer: string;
  /** What the client showed in the handshake, DER, leaf first. The same array for as long as the connection lives. */
  readonly certificatesDer: readonly Uint8Array[];
}

/** A call whose request has not arrived whole. */
export interface IncompleteCall {
  /** Ends it with a status. */
  end(): void;
}

interface Open {
  readonly raw: Socket;
  connection: Connection | undefined;
  calls: number;
  sweeps: number;
  /** One of its calls was ended for being slow; its stream stays open for as long as the client likes. */
  slow: boolean;
}

const MAX_SHOWN = 8;

/**
 * The open connections and the calls that have not arrived whole: bounded in number, and rid of those that say nothing.
 *
 * gRPC does not tell a handler which connection its call came by, but it tells the peer's address and port, and no two open connections
 * to one port have the same.
 */
export class Connections {
  readonly #open = new Map<string, Open>();
  readonly #incomplete = new Map<IncompleteCall, { readonly open: Open | undefined; sweeps: number }>();

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
    const open: Open = { raw, connection: undefined, calls: 0, sweeps: 0, slow: false };
    this.#open.set(peer, open);
    raw.once('close', () => {
      if (this.#open.get(peer) === open) this.#open.delete(peer);
    });
    return true;
  }

  /** The TLS handshake on a socket is done. False after closing it: it is gone already. */
  secured(socket: TLSSocket): boolean {
    const peer = peerOf(socket);
    const open = peer === undefined ? undefined : this.#open.get(peer);
    if (peer === undefined || open === undefined) {
      socket.destroy();
      return false;
    }
    open.connection = { peer, certificatesDer: shownCertificates(socket) };
    return true;
  }

  /** The connection of a call, from its `getPeer()`; undefined when it is gone. */
  find(peer: string): Connection | undefined {
    return this.#open.get(peer)?.connection;
  }

  /** A call has been opened. False where too many wait for their requests already. */
  callOpened(peer: string, call: IncompleteCall): boolean {
    const open = this.#open.get(peer);
    if (open !== undefined) open.calls += 1;
    if (this.#incomplete.size >= LIMITS.incompleteCalls) return false;
    this.#incomplete.set(call, { open, sweeps: 0 });
    return true;
  }

  /** Its request has arrived, or it is over. */
  callComplete(call: IncompleteCall): void {
    this.#incomplete.delete(call);
  }

  /** Ends what has been silent for too long: a call with a status, then its connection. Returns how many. */
  sweep(): number {
    let ended = 0;
    for (const each of this.#open.values()) {
      each.sweeps += 1;
      if (!each.slow && (each.calls > 0 || each.sweeps <= PATIENCE.silentSweeps)) continue;
      each.raw.destroy();
      ended += 1;
    }
    for (const [call, entry] of this.#incomplete) {
      entry.sweeps += 1;
      if (entry.sweeps <= PATIENCE.incompleteSweeps) continue;
      this.#incomplete.delete(call);
      if (entry.open) entry.open.slow = true;
      call.end();
      ended += 1;
    }
    return ended;
  }

  destroyAll(): void {
    for (const each of this.#open.values()) each.raw.destroy();
  }

  /** Makes room by closing the oldest connection that has never asked anything. */
  #evictUnused(): boolean {
    for (const [peer, each] of this.#open) {
      if (each.calls > 0) continue;
      this.#open.delete(peer);
      each.raw.destroy();
      return true;
    }
    return false;
  }
}

/** What came in the Certificate message, as it came. */
function shownCertificates(socket: TLSSocket): readonly Uint8Array[] {
  const shown: Uint8Array[] = [];
  let next = socket.getPeerX509Certificate();
  for (; next !== undefined && shown.length < MAX_SHOWN; next = next.issuerCertificate) shown.push(next.raw);
  return shown;
}

function peerOf({ remoteAddress, remotePort }: Socket): string | undefined {
  return remoteAddress === undefined ? undefined : `${remoteAddress}:${remotePort}`;
}
