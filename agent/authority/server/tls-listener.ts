import { constants } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import type { Deps } from '../../base/deps';
import { endInTime } from '../../base/end-in-time';
import { AgentError, systemCode } from '../../base/errors';
import { formatHostPort, type HostPort } from '../../base/host-port';
import { OneATurn } from '../../base/one-a-turn';
import { certificatesPem } from '../../identity/certificate';
import { rootsThatFit } from '../../identity/proxy-check';
import { readAccepted } from '../../identity/valid-now';
import type { ServingIdentity } from '../serving-certificate';
import type { Connection, Connections, Place } from './connections';
import { HANDSHAKE_LANES, HandshakeMeter } from './handshake-meter';
import { LIMITS, PATIENCE } from './limits';

export interface TlsListener {
  /** `host:port` with the port that was really taken. */
  readonly address: string;
  /** New handshakes show another certificate. */
  use(identity: ServingIdentity): void;
  /** Takes no more connections. Those that exist are `Connections.destroyAll`'s. */
  close(): Promise<void>;
}

const BACKLOG = 1_024;
/** One takes a millisecond. With dear certificates it is more, and those get a quarter of the time together. */
const HANDSHAKES = { plainMs: 5, rests: 3, lanes: HANDSHAKE_LANES };

/**
 * TLS 1.2 and 1.3 for HTTP/2 alone. A client certificate is asked for, and any is taken: who it proves is judged at each call. No session is
 * ever resumed, so every connection has shown its certificate itself.
 *
 * @throws AgentError ERR_SOCKET.
 */
export async function listenTls(
  address: HostPort,
  identity: ServingIdentity,
  connections: Connections,
  onSocket: (socket: TLSSocket, connection: Connection) => void,
  deps: Deps,
): Promise<TlsListener> {
  const refused = (reason: string) => deps.metrics.record('ca_refused_total', { reason });
  const turns = new OneATurn(HANDSHAKES);
  let context = contextOf(identity);
  const server = createServer((raw) => {
    // Errors of a socket are the client's; TLS hears of what they end.
    raw.on('error', () => undefined);
    raw.setNoDelay(true);
    const place = connections.accept(raw);
    if (place === undefined) return refused('connections');
    const secured = (socket: TLSSocket) => {
      if (socket.alpnProtocol === 'h2')
        return onSocket(socket, connections.secured(place, socket, deps.clock.now()));
      refused('protocol');
      socket.destroy();
    };
    const failed = (cause: unknown) => {
      refused('handshake');
      deps.log.debug('tls handshake failed', { peer: place.peer, cause });
    };
    handshake(place, context, turns, secured, failed, deps);
  });
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error) => reject(cannotListen(address, cause));
    server.once('error', failed);
    server.listen({ ...address, backlog: BACKLOG }, () => {
      server.off('error', failed);
      resolve();
    });
  });
  server.on('error', (cause) => deps.log.warn('connection not accepted', { cause }));
  const bound = server.address();
  return {
    address: formatHostPort({
      host: address.host,
      port: typeof bound === 'object' && bound !== null ? bound.port : address.port,
    }),
    use: (next) => {
      context = contextOf(next);
    },
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** TLS of our own on each socket, not a server of it, so that the two are known as one and what comes is metered. */
function handshake(
  { raw, address }: Place,
  secureContext: SecureContext,
  turns: OneATurn,
  secured: (socket: TLSSocket) => void,
  failed: (cause: unknown) => void,
  deps: Deps,
): void {
  const meter = new HandshakeMeter(raw, address, LIMITS.handshakeBytes, turns);
  const options = {
    isServer: true,
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    secureContext,
  };
  // Any Duplex will do; the types know of sockets only.
  const socket = new TLSSocket(meter as unknown as Socket, options);
  const letLive = endInTime(raw, PATIENCE.handshakeMs, deps);
  let cause: unknown;
  let isDone = false;
  socket.on('error', (caught) => {
    cause = caught;
  });
  socket.once('close', () => isDone || failed(cause));
  socket.once('secure', () => {
    isDone = true;
    letLive();
    meter.handshakeDone();
    // As a TLS server of Node.js does: else HTTP/2 waits for the event of a client.
    Object.assign(socket, { secureConnecting: false });
    secured(socket);
  });
}

function contextOf({ certPem, keyPem, bundle }: ServingIdentity): SecureContext {
  return createSecureContext({
    cert: certPem,
    key: keyPem,
    // Named to clients, so that those who hold several certificates show one of ours; no handshake carries more names.
    ca: certificatesPem(bundle.rootsDer.slice(0, rootsThatFit(bundle.rootsDer.map(readAccepted)))),
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  });
}

function cannotListen(address: HostPort, cause: unknown): AgentError {
  const why = systemCode(cause) === 'EADDRINUSE' ? 'the address is in use' : systemCode(cause);
  return new AgentError(
    'ERR_SOCKET',
    `listen on ${formatHostPort(address)} for certificate requests: ${why}`,
    {
      cause,
      hint: 'choose another address with --listen',
    },
  );
}
