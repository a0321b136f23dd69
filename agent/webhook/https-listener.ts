import type { Server as HttpServer, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { createServer, type Server as TlsServer } from 'node:tls';
import { evictIdlest } from '../base/connection-bound';
import type { Deps } from '../base/deps';
import { formatHostPort, type HostPort } from '../base/host-port';
import { listen } from '../base/http-server';

/** What a TLS server shows, PEM. */
export interface ServerKey {
  readonly certPem: Buffer;
  readonly keyPem: Buffer;
}

export interface HttpsListener {
  /** `host:port` with the port that was really taken. */
  readonly address: string;
  /** New handshakes show another certificate; before the first there is none, and handshakes fail. */
  use(key: ServerKey): void;
  /** Takes no more connections, lets requests that have arrived be answered, and frees the port. */
  close(): Promise<void>;
}

const MAX_CONNECTIONS = 512;
const HANDSHAKE_MS = 5_000;
const SWEEP_MS = 1_000;
/** A connection until its first request, and a request until it has been answered. */
const BUSY_SWEEPS = 6;
/** API servers keep connections; one that is idle for longer is gone without a word, likely. */
const IDLE_SWEEPS = 120;
const GOODBYE_MS = 500;

interface Open {
  /** How many sweeps ago it was opened, asked or was answered. */
  sweeps: number;
  waiting: boolean;
}

/**
 * HTTPS whose certificate may be exchanged at any time: TLS of our own in front of an HTTP server that listens nowhere, since the runtime of
 * the executable cannot exchange that of an HTTPS server, nor knows an HTTP server's patience.
 *
 * @throws AgentError ERR_SOCKET.
 */
export async function listenHttps(
  http: HttpServer,
  address: HostPort,
  deps: Deps,
): Promise<HttpsListener> {
  const tls = createServer({ minVersion: 'TLSv1.2', handshakeTimeout: HANDSHAKE_MS });
  const used = evictIdlest(tls, MAX_CONNECTIONS, 1 / 2);
  const open = new Map<Socket, Open>();
  tls.on('connection', (raw) => raw.on('error', () => undefined));
  tls.on('tlsClientError', (cause, socket) => {
    socket.destroy();
    deps.log.debug('tls handshake failed', { cause });
  });
  tls.on('secureConnection', (socket) => {
    socket.on('error', () => undefined);
    open.set(socket, { sweeps: 0, waiting: true });
    socket.once('close', () => open.delete(socket));
    http.emit('connection', socket);
  });
  http.on('request', ({ socket }, response: ServerResponse) => {
    const turn = (waiting: boolean) => {
      used(socket);
      const found = open.get(socket);
      if (found) Object.assign(found, { sweeps: 0, waiting });
    };
    turn(true);
    response.once('finish', () => turn(false));
  });
  // Node looks after headers and requests that do not come to an end once it believes to listen.
  http.emit('listening');
  const port = await listen(tls, { address, purpose: 'admission requests', flag: '--listen' });
  tls.on('error', (cause) => deps.log.warn('connection not accepted', { cause }));
  const stop = new AbortController();
  const sweeping = sweep(open, deps, stop.signal);
  let closing: Promise<void> | undefined;
  return {
    address: formatHostPort({ host: address.host, port }),
    use: ({ certPem, keyPem }) =>
      tls.setSecureContext({ cert: certPem, key: keyPem, minVersion: 'TLSv1.2' }),
    close: () => {
      closing ??= (async () => {
        stop.abort();
        await sweeping;
        await goodbye(tls, open, deps);
        http.close();
      })();
      return closing;
    },
  };
}

async function sweep(
  open: ReadonlyMap<Socket, Open>,
  { clock }: Deps,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleepUntil(clock.now() + SWEEP_MS, signal).catch(() => undefined);
    for (const [socket, each] of open) {
      each.sweeps += 1;
      if (each.sweeps > (each.waiting ? BUSY_SWEEPS : IDLE_SWEEPS)) socket.destroy();
    }
  }
}

/** A request that has arrived whole is answered in the same turn of the loop; what is left after a moment is only on its way. */
async function goodbye(
  tls: TlsServer,
  open: ReadonlyMap<Socket, Open>,
  { clock }: Deps,
): Promise<void> {
  const closed = new Promise<void>((resolve) => tls.close(() => resolve()));
  for (const [socket, { waiting }] of open) if (!waiting) socket.destroy();
  if (open.size > 0) await clock.sleepUntil(clock.now() + GOODBYE_MS);
  for (const socket of open.keys()) socket.destroy();
  await closed;
}
