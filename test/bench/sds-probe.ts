import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
} from 'node:http2';
import { connect, type Socket } from 'node:net';
import {
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../sds/proto/generated/envoy/service/discovery/v3/discovery';

const METHOD = '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';
const SECRET = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';
const MAX_STREAMS_PER_CONNECTION = 100;

/** A client of SDS with next to nothing between it and the socket, so that what is measured is the server. It accepts every response. */
export class SdsConnection {
  readonly #session: ClientHttp2Session;

  constructor(socket: Socket) {
    this.#session = connectHttp2('http://localhost', { createConnection: () => socket });
    this.#session.on('error', () => undefined);
  }

  /** Watches one name until the connection is closed. `ended` is called when the server ends the stream. */
  watch(
    name: string,
    node: string,
    received: (response: DiscoveryResponse) => void,
    ended: () => void,
  ): void {
    const stream = this.#session.request({
      ':method': 'POST',
      ':path': METHOD,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let pending = Buffer.alloc(0);
    stream.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      for (let message = takeMessage(); message; message = takeMessage()) {
        const response = DiscoveryResponse.decode(message);
        send(stream, {
          resourceNames: [name],
          versionInfo: response.versionInfo,
          responseNonce: response.nonce,
        });
        received(response);
      }
    });
    stream.on('error', () => undefined);
    stream.on('close', ended);
    send(stream, { resourceNames: [name], node: { id: node, cluster: 'bench' } });

    function takeMessage(): Buffer | undefined {
      if (pending.length < 5 || pending.length < 5 + pending.readUInt32BE(1)) return undefined;
      const message = pending.subarray(5, 5 + pending.readUInt32BE(1));
      pending = pending.subarray(5 + message.length);
      return message;
    }
  }

  close(): void {
    this.#session.destroy();
  }
}

/** Connects as soon as somebody listens, looking every millisecond. */
async function connectWhenThere(path: string, signal: AbortSignal): Promise<Socket> {
  for (;;) {
    if (signal.aborted) throw signal.reason;
    const socket = await new Promise<Socket | undefined>((done) => {
      const tried: Socket = connect(path, () => done(tried));
      tried.once('error', () => done(undefined));
    });
    if (socket) return socket;
    await new Promise((done) => setTimeout(done, 1));
  }
}

/** Resolves, with the open connection, when somebody on the socket has given out `name` for the first time. */
export async function firstSecret(
  path: string,
  name: string,
  signal: AbortSignal,
): Promise<SdsConnection> {
  for (;;) {
    const connection = new SdsConnection(await connectWhenThere(path, signal));
    const got = await new Promise<boolean>((done) => {
      connection.watch(
        name,
        'bench',
        (response) => response.resources.length > 0 && done(true),
        () => done(false),
      );
      signal.addEventListener('abort', () => done(false), { once: true });
    });
    if (got) return connection;
    connection.close();
    if (signal.aborted) throw signal.reason;
  }
}

/** Many streams that watch `default`, up to a hundred on each connection, and how far each has come. */
export class SdsCrowd {
  readonly #connections: SdsConnection[] = [];
  readonly #counts: number[] = [];
  #changed = () => {};

  static async open(path: string, streams: number): Promise<SdsCrowd> {
    const crowd = new SdsCrowd();
    for (let stream = 0; stream < streams; stream += 1) {
      if (stream % MAX_STREAMS_PER_CONNECTION === 0) {
        crowd.#connections.push(
          new SdsConnection(await connectWhenThere(path, AbortSignal.timeout(5_000))),
        );
      }
      crowd.#counts.push(0);
      crowd.#connections.at(-1)!.watch(
        'default',
        `bench-${stream}`,
        () => {
          crowd.#counts[stream]! += 1;
          crowd.#changed();
        },
        () => undefined,
      );
    }
    await crowd.each(1);
    return crowd;
  }

  /** Resolves when every stream has received `count` secrets since it was opened. */
  each(count: number): Promise<void> {
    let left = 0;
    return new Promise((done) => {
      const look = () => {
        left = this.#counts.filter((received) => received < count).length;
        if (left === 0) done();
      };
      this.#changed = look;
      look();
    });
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}

function send(stream: ClientHttp2Stream, request: Partial<DiscoveryRequest>): void {
  const empty = {
    versionInfo: '',
    node: undefined,
    resourceNames: [],
    typeUrl: SECRET,
    responseNonce: '',
    errorDetail: undefined,
  };
  const body = DiscoveryRequest.encode({ ...empty, ...request }).finish();
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  stream.write(Buffer.concat([head, body]));
}
