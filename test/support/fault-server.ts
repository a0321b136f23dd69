import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createSecureContext, TLSSocket } from 'node:tls';
import { type FakeCa, type FakeCaOptions, startFakeIstiod } from './fake-istio-csr';
import { serverPair } from './tls-ca';
import type { UnaryAnswer, UnaryCall } from './unary-server';

/** What goes wrong, and where on the way up. `none` is a CA that works. */
export type Fault =
  | 'none'
  /** The connection is taken, and nothing is ever sent. */
  | 'no tls'
  /** TLS, but never a word of HTTP/2. */
  | 'tls then silence'
  /** TLS by which nothing is agreed to be spoken. */
  | 'tls without http/2'
  | 'reset at once'
  | { readonly call: (call: UnaryCall) => UnaryAnswer | undefined };

/** A CA behind a port that can go wrong in every way. */
export interface FaultServer {
  readonly fake: FakeCa;
  /** `localhost:PORT`. */
  readonly address: string;
  readonly port: number;
  /** Connections that were taken so far. */
  connections(): number;
  /** Everything that came without TLS, and over TLS that does not agree on HTTP/2. */
  rawBytes(): Buffer;
  /** From now on. */
  behave(fault: Fault): void;
  close(): Promise<void>;
}

/** @param host  Where to listen; the CA behind is on 127.0.0.1. */
export async function startFaultServer(
  options: FakeCaOptions & { readonly host?: string; readonly frontPort?: number } = {},
): Promise<FaultServer> {
  let fault: Fault = 'none';
  const fake = await startFakeIstiod({
    ...options,
    misbehave: (call) => (typeof fault === 'object' ? fault.call(call) : undefined),
  });
  const pair = serverPair(fake.signer);
  const secureContext = createSecureContext({ cert: pair.chainPem, key: pair.keyPem });
  const sockets = new Set<Socket>();
  const raw: Buffer[] = [];
  let connections = 0;
  const front = createServer((socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    if (fault === 'reset at once') socket.resetAndDestroy();
    else if (fault === 'no tls') socket.on('data', (bytes) => raw.push(bytes));
    else if (fault === 'tls then silence')
      silent(new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: ['h2'] }));
    else if (fault === 'tls without http/2')
      silent(new TLSSocket(socket, { isServer: true, secureContext })).on('data', (bytes) =>
        raw.push(bytes),
      );
    else pass(socket, fake.server.port);
  });
  const { host = '127.0.0.1', frontPort = 0 } = options;
  await new Promise<void>((done) => front.listen(frontPort, host, done));
  const { port } = front.address() as AddressInfo;
  return {
    fake,
    address: `localhost:${port}`,
    port,
    connections: () => connections,
    rawBytes: () => Buffer.concat(raw),
    behave: (next) => {
      fault = next;
    },
    async close() {
      const closed = new Promise((done) => front.close(done));
      for (const socket of sockets) socket.destroy();
      await closed;
      await fake.close();
    },
  };
}

function silent(socket: TLSSocket): TLSSocket {
  return socket.on('error', () => undefined);
}

function pass(socket: Socket, port: number): void {
  const behind = connect(port, '127.0.0.1');
  behind.on('error', () => socket.destroy()).on('close', () => socket.destroy());
  socket.on('close', () => behind.destroy());
  socket.pipe(behind).pipe(socket);
}
