import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';

/** A port of loopback that nobody had a moment ago, for programs that do not take 0. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done, failed) =>
    server.once('error', failed).listen(0, '127.0.0.1', done),
  );
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}
