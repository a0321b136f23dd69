import type { Socket } from 'node:net';
import type { Deps } from './deps';

/**
 * Ends a connection that has not come to its end after so many milliseconds.
 *
 * @returns Lets it live; idempotent.
 */
export function endInTime(
  socket: Socket,
  afterMs: number,
  { clock }: Pick<Deps, 'clock'>,
): () => void {
  const over = new AbortController();
  const stop = () => over.abort();
  socket.once('close', stop);
  clock.sleepUntil(clock.now() + afterMs, over.signal).then(
    () => socket.destroy(),
    () => undefined,
  );
  return stop;
}
