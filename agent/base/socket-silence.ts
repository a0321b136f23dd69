import type { Socket } from 'node:net';

/**
 * Calls `silent` when a socket has neither taken nor brought a byte for that long.
 *
 * @param ms  Milliseconds.
 * @returns   Ends the watch.
 */
export function onSilence(socket: Socket, ms: number, silent: () => void): () => void {
  socket.setTimeout(ms, silent);
  return () => socket.setTimeout(0, silent);
}
