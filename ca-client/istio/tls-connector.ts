import { isIP, type Socket } from 'node:net';
import {
  checkServerIdentity,
  connect,
  createSecureContext,
  type SecureContext,
  type TLSSocket,
} from 'node:tls';
import { AgentError, systemCode } from '../../agent/base/errors';
import { shownCertificates } from '../../agent/base/shown-certificates';
import { onSilence } from '../../agent/base/socket-silence';
import type { ClientCertificate } from './client-certificate';
import type { ServerVerifier } from './server-verifier';

export interface TlsOptions {
  /** PEM of the only roots that the server is judged by. */
  readonly rootPem: Buffer;
  /** The name, or address, that the server's certificate must carry. */
  readonly serverName: string;
  readonly certificate: ClientCertificate | undefined;
  /** What the server has to satisfy besides, before anything is sent to it. */
  readonly judge?: ServerVerifier | undefined;
}

/** What first went wrong with TLS, with any of the server's addresses. */
export interface TlsFault {
  /** Before the end of the handshake nothing was sent; after it, TLS 1.3 says what the server holds of our certificate. */
  readonly stage: 'handshake' | 'after handshake';
  readonly error: Error;
}

/** How long a server may be silent in a handshake: gRPC's least time for a connection. The answer itself may take longer. */
const HANDSHAKE_MS = 20_000;
/**
 * How long a connection is idle before TCP asks whether the other side is there. Not by pings of HTTP/2: a server of grpc-go, which istio-csr
 * is, ends a call in its third minute for them (`EnforcementPolicy.MinTime`, five minutes by default).
 */
const KEEP_ALIVE_MS = 30_000;

/** TLS 1.2 or later to one server, for HTTP/2. It keeps what went wrong. */
export class TlsConnector {
  readonly #context: SecureContext;
  readonly #serverName: string;
  readonly #judge: ServerVerifier | undefined;
  readonly #sockets = new Set<Socket>();
  #fault: TlsFault | undefined;
  #shownDer: readonly Uint8Array[] = [];

  /** @throws Error of OpenSSL where certificate and key cannot be used. */
  constructor(options: TlsOptions) {
    const { rootPem, serverName, certificate } = options;
    this.#serverName = serverName;
    this.#judge = options.judge;
    this.#context = createSecureContext({
      ca: rootPem,
      minVersion: 'TLSv1.2',
      // As Go does: an intermediate that was configured as root is trusted.
      allowPartialTrustChain: true,
      ...(certificate && { cert: certificate.chainPem, key: certificate.keyPem }),
    });
  }

  get fault(): TlsFault | undefined {
    return this.#fault;
  }

  /** What the server showed in its last handshake that held, DER, leaf first; empty where none did. */
  get shownDer(): readonly Uint8Array[] {
    return this.#shownDer;
  }

  /** Ends every connection, also those whose server never came to an end of the handshake. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /**
   * Shakes hands over a connection.
   *
   * @throws Error of TLS or of the network; AgentError of the judge.
   */
  connect(socket: Socket): Promise<TLSSocket> {
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => {
        this.#fault ??= { stage: 'handshake', error };
        reject(error);
      };
      const tls = connect({
        socket,
        secureContext: this.#context,
        ALPNProtocols: ['h2'],
        ...(isIP(this.#serverName) === 0 && { servername: this.#serverName }),
        checkServerIdentity: (_, certificate) => checkServerIdentity(this.#serverName, certificate),
      });
      this.#sockets.add(tls);
      const silent = new Error(`no answer to the handshake within ${HANDSHAKE_MS / 1_000} s`);
      const endWatch = onSilence(tls, HANDSHAKE_MS, () => tls.destroy(silent));
      const closed = () => fail(new Error('the server closed the connection during the handshake'));
      tls.once('error', fail).once('close', closed);
      tls.once('close', () => this.#sockets.delete(tls));
      tls.once('secureConnect', () => {
        endWatch();
        tls.off('error', fail).off('close', closed);
        // A server that never heard of ALPN is none of gRPC's, whatever its certificate says.
        if (tls.alpnProtocol !== 'h2') {
          tls.on('error', () => undefined).destroy();
          fail(new Error('the server does not speak HTTP/2'));
          return;
        }
        const shownDer = shownCertificates(tls).map(({ raw }) => raw);
        try {
          this.#judge?.assertServer(shownDer);
        } catch (caught) {
          tls.on('error', () => undefined).destroy();
          fail(AgentError.from(caught));
          return;
        }
        tls.on('error', (error) => {
          if (systemCode(error)?.startsWith('ERR_SSL_'))
            this.#fault ??= { stage: 'after handshake', error };
        });
        this.#shownDer = shownDer;
        resolve(tls);
      });
    });
  }
}
