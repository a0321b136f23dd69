import { readFileSync } from 'node:fs';
import type { Server, Socket } from 'node:net';

/**
 * How many connections a listener may hold: what it wishes, or a share of the descriptors that this process may open where those are few.
 * Without a descriptor nothing can be renewed or written, and Bun, which runs the executable, spins on a connection that it cannot accept.
 *
 * @param share  More than 0 and less than 1; the shares of all listeners together leave some over.
 */
export function connectionBound(wish: number, share: number): number {
  limit ??= descriptorLimit();
  return Math.max(1, Math.min(wish, Math.floor(share * limit)));
}

/** Hangs up on connections beyond that bound, as `maxConnections` would, which HTTP servers in Bun do not know. */
export function boundConnections(server: Server, wish: number, share: number): void {
  const bound = connectionBound(wish, share);
  let open = 0;
  server.on('connection', (socket: Socket) => {
    if (open >= bound) {
      socket.destroy();
      return;
    }
    open += 1;
    socket.once('close', () => {
      open -= 1;
    });
  });
}

/**
 * As `boundConnections`, but for ports that strangers reach: what comes beyond the bound takes the place of the connection that has been
 * quiet for longest. So whoever opens any number of them and says nothing keeps no place from others.
 *
 * @returns  to be told whenever a connection is of use; a TLS socket stands for the one below it.
 */
export function evictIdlest(server: Server, wish: number, share: number): (socket: Socket) => void {
  const bound = connectionBound(wish, share);
  // In the order in which they were opened or of use last.
  const open = new Map<unknown, Socket>();
  server.on('connection', (socket: Socket) => {
    const [quietest] = open;
    if (quietest !== undefined && open.size >= bound) {
      open.delete(quietest[0]);
      quietest[1].destroy();
    }
    const key = connectionOf(socket);
    open.set(key, socket);
    socket.once('close', () => open.get(key) === socket && open.delete(key));
  });
  return (used) => {
    const key = connectionOf(used);
    const socket = open.get(key);
    if (socket === undefined) return;
    open.delete(key);
    open.set(key, socket);
  };
}

/** By which a socket and the TLS above it are known as one: both ends, for one of them has many connections. A peer that has gone is only itself. */
function connectionOf(socket: Socket): unknown {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return remotePort === undefined
    ? socket
    : `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

let limit: number | undefined;

/** The soft limit, which the runtime has raised to the hard one when it started; unlimited where nobody says. */
function descriptorLimit(): number {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'));
    return found ? Number(found[1]) : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
