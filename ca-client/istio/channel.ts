import { createHash } from 'node:crypto';
import { connect, isIPv4, isIPv6 } from 'node:net';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { formatHostPort, type HostPort } from '../../agent/base/host-port';
import type { CaRoot } from '../../agent/trust/ca-root';
import type { ClientCertificate } from './client-certificate';
import { ChannelCredentials, Client } from './grpc';
import type { ServerVerifier } from './server-verifier';
import { TlsCredentials, type TlsFault } from './tls-credentials';
import { CREATE_CERTIFICATE, MAX_MESSAGE_BYTES } from './wire/service';

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

/** How call failed: gRPC's status, with what else is known of it. */
export class CallFailure extends Error {
  constructor(
    /** As in `status` of @grpc/grpc-js. */
    readonly code: number,
    readonly details: string,
    readonly trailers: Metadata,
    /** Those before the message; undefined where none came. */
    readonly headers: Metadata | undefined,
    /** Where TLS was the reason. */
    readonly tlsFault: TlsFault | undefined,
    /** Somebody there has come through the handshake with us, so that our credentials may have been seen. */
    readonly wasConnected: boolean,
  ) {
    super(details);
    this.name = 'CallFailure';
  }
}

interface Connection {
  readonly key: string;
  readonly client: Client;
  readonly tls: TlsCredentials | undefined;
  calls: number;
  retired: boolean;
}

const GRPC_OPTIONS = {
  // A pool of one's own: the shared one would make a new attempt wait for what gRPC thinks of the last one.
  'grpc.use_local_subchannel_pool': 1,
  // Waits between attempts are the keeper's, which knows how long the certificate lasts.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  // The token goes to the CA, by no proxy of an environment variable.
  'grpc.enable_http_proxy': 0,
  // Certificates are asked for hours apart: between them nothing is kept open at the CA.
  'grpc.client_idle_timeout_ms': 30_000,
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.enable_channelz': 0,
  'grpc-node.max_session_memory': 16,
} as const;

/**
 * The connection to a CA. It is made anew for other roots or another client certificate, and after every failed call, so that no attempt
 * inherits the fate of the one before. Several may use it: calls that are under way end on the connection that they began with.
 */
export class CaChannel {
  #current: Connection | undefined;

  constructor(private readonly options: ChannelOptions) {}

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
      const reply = await createCertificate(connection, request, metadata, signal);
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
   * One TLS handshake without a client certificate, for the judge alone: TLS shows ours before anybody could judge.
   *
   * @throws AgentError of the judge; Error of TLS or of the network.
   */
  async judge(root: CaRoot, judge: ServerVerifier, signal: AbortSignal): Promise<void> {
    const { address, serverName } = this.options;
    const tls = new TlsCredentials({
      rootPem: root.pem,
      serverName,
      certificate: undefined,
      judge,
    });
    const socket = connect({ ...address, signal });
    try {
      await tls._createSecureConnector().connect(socket);
    } finally {
      tls.destroy();
      socket.destroy();
    }
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
    const { address, serverName, plaintext } = this.options;
    const tls =
      plaintext || !root
        ? undefined
        : new TlsCredentials({ rootPem: root.pem, serverName, certificate, judge });
    const client = new Client(
      target(address),
      tls ?? ChannelCredentials.createInsecure(),
      GRPC_OPTIONS,
    );
    this.#current = { key, client, tls, calls: 0, retired: false };
    return this.#current;
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
  connection.client.close();
  connection.tls?.destroy();
}

function target(address: HostPort): string {
  const where = formatHostPort(address);
  if (isIPv4(address.host)) return `ipv4:${where}`;
  return isIPv6(address.host) ? `ipv6:${where}` : `dns:${where}`;
}

function createCertificate(
  { client, tls }: Connection,
  request: Buffer,
  metadata: Metadata,
  signal: AbortSignal,
): Promise<Buffer> {
  const { path, requestSerialize, responseDeserialize } = CREATE_CERTIFICATE;
  return new Promise((resolve, reject) => {
    let headers: Metadata | undefined;
    const done = (error: ServiceError | null, reply?: Buffer) => {
      signal.removeEventListener('abort', cancel);
      if (reply && !error) resolve(reply);
      else
        reject(
          new CallFailure(
            error!.code,
            error!.details,
            error!.metadata,
            headers,
            tls?.fault,
            tls?.shownDer.length !== 0,
          ),
        );
    };
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      {},
      done,
    );
    call.on('metadata', (received: Metadata) => {
      headers = received;
    });
    const cancel = () => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) cancel();
  });
}
