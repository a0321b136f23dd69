import { connect, isIP, isIPv6, type Socket } from 'node:net';
import { type Clock, scoped } from '../../agent/base/clock';
import type { HostPort } from '../../agent/base/host-port';

/** So long an address has for itself before the next is tried beside it (RFC 8305 section 5). */
const HEAD_START_MS = 250;

/**
 * Connects to a host: each of its addresses as soon as those before it have failed, or have had a quarter of a second. The first that `open`
 * has made something of is taken, and the others are given up.
 *
 * @param open    What is to be made of a connection, e.g. TLS.
 * @param signal  Gives all of them up.
 * @throws        Why the last address failed, or the name has none.
 */
export async function dial<T>(
  { host, port }: HostPort,
  open: (socket: Socket) => Promise<T>,
  clock: Clock,
  signal: AbortSignal,
): Promise<T> {
  return scoped(signal, async (scope) => {
    const hosts = isIP(host) === 0 ? await addressesOf(host) : [host];
    let turn: Promise<unknown> = Promise.resolve();
    const attempts = hosts.map((each) => {
      const mine = turn.then(() => attempt({ host: each, port }, open, scope));
      const failed = new Promise<void>((resolve) => mine.catch(() => resolve()));
      const later = () => clock.sleepUntil(clock.now() + HEAD_START_MS, scope);
      if (each !== hosts.at(-1))
        turn = Promise.race([failed, turn.then(later)]).catch(() => undefined);
      return mine;
    });
    return Promise.any(attempts).catch((caught) => {
      throw caught instanceof AggregateError ? caught.errors.at(-1) : caught;
    });
  });
}

/** As the resolver orders them, but that the other family has every second turn (RFC 8305 section 4). */
async function addressesOf(host: string): Promise<string[]> {
  // Loaded for a name: an address needs no resolver.
  const { promises } = await import('node:dns');
  const found = (await promises.lookup(host, { all: true })).map(({ address }) => address);
  const first = isIPv6(found[0] ?? '');
  const ours = found.filter((each) => isIPv6(each) === first);
  const others = found.filter((each) => isIPv6(each) !== first);
  return found.flatMap((_, index) => [
    ...ours.slice(index, index + 1),
    ...others.slice(index, index + 1),
  ]);
}

async function attempt<T>(
  address: HostPort,
  open: (socket: Socket) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  signal.throwIfAborted();
  const socket = connect({ ...address });
  const end = () => socket.destroy();
  signal.addEventListener('abort', end, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      const closed = () => reject(new Error('Socket closed'));
      socket.once('error', reject).once('close', closed);
      socket.once('connect', () => {
        socket.off('error', reject).off('close', closed);
        resolve();
      });
    });
    socket.setNoDelay();
    return await open(socket);
  } catch (caught) {
    socket.on('error', () => undefined).destroy();
    throw caught;
  } finally {
    signal.removeEventListener('abort', end);
  }
}
