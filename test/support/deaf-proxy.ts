import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A way to a server on which answers may get lost. */
export interface DeafProxy {
  /** `127.0.0.1:PORT`. */
  readonly address: string;
  close(): Promise<void>;
}

/** Passes connections on to `target`; one is cut off where the server says something and `isDeaf` holds. */
export async function startDeafProxy(target: string, isDeaf: () => boolean): Promise<DeafProxy> {
  const [host, port] = target.split(':') as [string, string];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const behind = connect(Number(port), host);
    for (const [one, other] of [
      [socket, behind],
      [behind, socket],
    ] as const) {
      sockets.add(one);
      one
        .on('error', () => undefined)
        .on('close', () => {
          sockets.delete(one);
          other.destroy();
        });
    }
    socket.pipe(behind);
    behind.on('data', (bytes) => (isDeaf() ? socket.resetAndDestroy() : socket.write(bytes)));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      const closed = new Promise((done) => server.close(done));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
