import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { BinaryWriter } from '@bufbuild/protobuf/wire';

/** One StreamSecrets call on a connection of its own, spoken without a gRPC library: it shows what the server really does to it. */
export interface SdsStream {
  /** How many responses have come. */
  responses(): number;
  /** Resolves when at least that many have come; fails when the stream ends before. */
  response(count: number): Promise<void>;
  /** Resolves when the connection has ended, with whether the server announced it by GOAWAY. */
  readonly ended: Promise<{ readonly goaway: boolean }>;
  close(): void;
}

const TYPE_URL = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

/** Subscribes to `names` and acknowledges nothing. */
export function openSdsStream(socketPath: string, names: readonly string[]): SdsStream {
  const session: ClientHttp2Session = connectHttp2('http://sds', {
    createConnection: () => connect(socketPath),
  });
  let goaway = false;
  let count = 0;
  let buffered = Buffer.alloc(0);
  const waiting = new Set<() => void>();
  const look = () => {
    for (const each of [...waiting]) each();
  };
  session.on('error', () => undefined);
  session.on('goaway', () => {
    goaway = true;
  });
  const ended = new Promise<{ goaway: boolean }>((resolve) => {
    session.on('close', () => {
      resolve({ goaway });
      look();
    });
  });
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => undefined);
  stream.on('close', look);
  stream.on('data', (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk]);
    // A gRPC message: one byte of flags, four of length.
    while (buffered.length >= 5 && buffered.length >= 5 + buffered.readUInt32BE(1)) {
      buffered = buffered.subarray(5 + buffered.readUInt32BE(1));
      count += 1;
    }
    look();
  });
  stream.write(framed(discoveryRequest(names)));
  return {
    responses: () => count,
    response: (wanted) =>
      new Promise((resolve, reject) => {
        const settle = () => {
          if (count < wanted && !session.closed && !stream.closed) return;
          waiting.delete(settle);
          if (count >= wanted) resolve();
          else reject(new Error(`the stream ended after ${count} of ${wanted} responses`));
        };
        waiting.add(settle);
        settle();
      }),
    ended,
    close: () => session.destroy(),
  };
}

/** DiscoveryRequest: node (2) with an id (1), resource_names (3), type_url (4). */
function discoveryRequest(names: readonly string[]): Uint8Array {
  const writer = new BinaryWriter();
  writer.uint32(18).fork().uint32(10).string('test').join();
  for (const name of names) writer.uint32(26).string(name);
  return writer.uint32(34).string(TYPE_URL).finish();
}

function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
