import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { type Clock, untilAborted } from '../../agent/base/clock';
import { errorText } from '../../agent/base/errors';
import { formatHostPort, type HostPort } from '../../agent/base/host-port';
import { onSilence } from '../../agent/base/socket-silence';
import { VERSION } from '../../agent/base/version';
import { ClientConnection } from '../../agent/http2/client-connection';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { CaRoot } from '../../agent/trust/ca-root';
import { dial } from '../grpc/dial';
import { Metadata } from '../grpc/grpc-js';
import { callUnary } from '../grpc/unary-call';
import type { ClientCertificate } from './client-certificate';
import type { ServerVerifier } from './server-verifier';
import { TlsConnector, type TlsFault } from './tls-connector';
import { CREATE_CERTIFICATE_PATH, MAX_MESSAGE_BYTES } from './wire/service';

export interface ChannelOptions {
  readonly address: HostPort;
  /** What the server's certificate must be for. */
  readonly serverName: string;
  /** No TLS at all: whoever listens on the way reads the token. */
  readonly plaintext: boolean;
}

/** What the connection of a call is made with. */
export interface ConnectionFacts {
  /** Undefined for plaintext. */
  readonly root: CaRoot | undefined;
  readonly certificate: ClientCertificate | undefined;
  readonly judge?: ServerVerifier | undefined;
}

/** What a call brought. */
export interface CallAnswer {
  readonly reply: Buffer;
  /** What the server had shown in the handshake, DER, leaf first; nothing in plaintext. */
  readonly shownDer: readonly Uint8Array[];
}

/** How a call failed: gRPC's status, with what else is known of it. */
export class CallFailure extends Error {
  constructor(
    /** Of `GrpcStatus`. */
    readonly code: number,
    readonly details: string,
    readonly trailers: Metadata,
    /** Those before the message; undefined where none came. */
    readonly headers: Metadata | undefined,
    /** Where TLS was the reason. */
    readonly tlsFault: TlsFault | undefined,
    /** A server there has come through the handshake with us, so that our credentials may have been seen. */
    readonly wasConnected: boolean,
    /** Why no server was reached; undefined where one was. */
    readonly unreachable?: string,
  ) {
    super(details);
    this.name = 'CallFailure';
  }
}

interface Connection {
  readonly key: string;
  readonly http2: Promise<ClientConnection>;
  readonly tls: TlsConnector | undefined;
  readonly stop: AbortController;
  calls: number;
  retired: boolean;
}

/** Certificates are asked for hours apart: between them nothing is kept open at the CA. */
const IDLE_MS = 30_000;
const USER_AGENT = `keyturn/${VERSION}`;

/**
 * The connection to a CA. It is made anew for other roots or another client certificate, and after every failed call, so that no attempt
 * inherits the fate of the one before. Several may use it: calls that are under way end on the connection that they began with.
 */
export class CaChannel {
  #current: Connection | undefined;

  constructor(
    private readonly options: ChannelOptions,
    private readonly clock: Clock,
  ) {}

  /**
   * One CreateCertificate.
   *
   * @throws CallFailure, also (CANCELLED) when the signal fires; Error of OpenSSL where the client certificate is unusable.
   */
  async call(
    facts: ConnectionFacts,
    request: Buffer,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<CallAnswer> {
    const connection = this.#connect(facts);
    connection.calls += 1;
    try {
      const reply = await this.#createCertificate(connection, request, metadata, signal);
      return { reply, shownDer: connection.tls?.shownDer ?? [] };
    } catch (caught) {
      this.#retire(connection);
      throw caught;
    } finally {
      connection.calls -= 1;
      release(connection);
    }
  }

  /**
   * One TLS handshake without a client certificate, for the judge alone: TLS shows ours before anything could be judged.
   *
   * @throws AgentError of the judge; Error of TLS or of the network.
   */
  async judge(root: CaRoot, judge: ServerVerifier, signal: AbortSignal): Promise<void> {
    const { address, serverName } = this.options;
    const tls = new TlsConnector({
      rootPem: root.pem,
      serverName,
      certificate: undefined,
      judge,
    });
    const socket = await dial(address, (each) => tls.connect(each), this.clock, signal);
    socket.destroy();
  }

  async close(): Promise<void> {
    if (this.#current) this.#retire(this.#current);
  }

  #connect({ root, certificate, judge }: ConnectionFacts): Connection {
    const key = createHash('sha256')
      .update(`${root?.version} ${judge?.version}\n`)
      .update(certificate?.chainPem ?? '')
      .digest('hex');
    if (this.#current?.key === key) return this.#current;
    if (this.#current) this.#retire(this.#current);
    const { serverName, plaintext } = this.options;
    const tls =
      plaintext || !root
        ? undefined
        : new TlsConnector({ rootPem: root.pem, serverName, certificate, judge });
    const stop = new AbortController();
    const http2 = this.#open(tls, stop.signal);
    const connection = { key, http2, tls, stop, calls: 0, retired: false };
    this.#current = connection;
    http2.then(
      ({ leaving }) => leaving.then(() => this.#retire(connection)),
      () => this.#retire(connection),
    );
    return connection;
  }

  async #open(tls: TlsConnector | undefined, signal: AbortSignal): Promise<ClientConnection> {
    const { address } = this.options;
    const speak = async (socket: Socket) => {
      const http2 = new ClientConnection(socket, () => performance.now());
      await http2.settled;
      onSilence(socket, IDLE_MS, () => {
        if (!http2.busy) http2.leave();
      });
      return http2;
    };
    const open = async (socket: Socket) => speak(tls ? await tls.connect(socket) : socket);
    return dial(address, open, this.clock, signal);
  }

  async #createCertificate(
    { http2, tls }: Connection,
    request: Buffer,
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<Buffer> {
    const wasConnected = () => (tls ? tls.shownDer.length > 0 : true);
    const connected = await untilAborted(signal, http2).catch((caught) => {
      const none = new Metadata();
      const code = signal.aborted ? GrpcStatus.CANCELLED : GrpcStatus.UNAVAILABLE;
      const why = errorText(caught);
      throw new CallFailure(code, why, none, undefined, tls?.fault, wasConnected(), why);
    });
    const outcome = await callUnary(
      connected,
      {
        scheme: tls ? 'https' : 'http',
        authority: formatHostPort(this.options.address),
        path: CREATE_CERTIFICATE_PATH,
        userAgent: USER_AGENT,
        metadata,
        message: request,
        maxReplyBytes: MAX_MESSAGE_BYTES,
      },
      signal,
    );
    if (outcome.message) return outcome.message;
    const { code, details, trailers, headers } = outcome;
    throw new CallFailure(code, details, trailers, headers, tls?.fault, wasConnected());
  }

  #retire(connection: Connection): void {
    connection.retired = true;
    if (this.#current === connection) this.#current = undefined;
    release(connection);
  }
}

/** Calls of others on a retired connection end first. */
function release(connection: Connection): void {
  if (!connection.retired || connection.calls > 0) return;
  connection.stop.abort();
  connection.http2.then(
    (http2) => http2.leave(),
    () => undefined,
  );
  connection.tls?.destroy();
}
