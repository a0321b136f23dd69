import { constants } from 'node:crypto';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { Deps } from '../../../agent/base/deps';
import { AgentError, systemCode } from '../../../agent/base/errors';
import { formatHostPort, type HostPort } from '../../../agent/base/host-port';
import { certificatesPem } from '../../../agent/identity/certificate';
import type { Connection, Connections } from './connections';
import { PATIENCE } from './limits';
import type { ServingIdentity } from './serving-certificate';

export interface TlsListener {
  /** `host:port` with the port that was really taken. */
  readonly address: string;
  /** New handshakes show another certificate. */
  use(identity: ServingIdentity): void;
  /** Takes no more connections. Those that exist are `Connections.destroyAll`'s. */
  close(): Promise<void>;
}

const BACKLOG = 1_024;

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
  const server = createServer({
    ...contextOptions(identity),
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
    handshakeTimeout: PATIENCE.handshakeMs,
  });
  server.on('connection', (raw) => {
    // Errors of a socket are the client's; TLS hears of them too, but only once it has the socket.
    raw.on('error', () => undefined);
    raw.setNoDelay(true);
    if (!connections.accept(raw)) refused('connections');
  });
  server.on('secureConnection', (socket) => {
    socket.on('error', () => undefined);
    if (socket.alpnProtocol !== 'h2') {
      refused('protocol');
      socket.destroy();
      return;
    }
    const connection = connections.secured(socket);
    if (connection !== undefined) onSocket(socket, connection);
  });
  server.on('tlsClientError', (cause, socket) => {
    // One that takes too long is told of here and not ended.
    socket.destroy();
    refused('handshake');
    deps.log.debug('tls handshake failed', { cause });
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
    address: formatHostPort({ host: address.host, port: typeof bound === 'object' && bound !== null ? bound.port : address.port }),
    use: (next) => server.setSecureContext(contextOptions(next)),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

function contextOptions({ certPem, keyPem, bundle }: ServingIdentity): TlsOptions {
  return {
    cert: certPem,
    key: keyPem,
    // Named to clients, so that those who hold several certificates show one of ours.
    ca: certificatesPem(bundle.rootsDer),
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}

function cannotListen(address: HostPort, cause: unknown): AgentError {
  const why = systemCode(cause) === 'EADDRINUSE' ? 'it is taken' : systemCode(cause);
  return new AgentError('ERR_SOCKET', `listen on ${formatHostPort(address)} for certificate requests: ${why}`, {
    cause,
    hint: 'choose another address with --listen',
  });
}
