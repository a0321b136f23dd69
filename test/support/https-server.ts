import type { RequestListener } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { writePem } from '../../agent/base/pem';
import { PURPOSE } from '../../agent/identity/extensions';
import {
  dnsName,
  HOUR_MS,
  ipName,
  issueLeaf,
  makeKey,
  makeTestCa,
  spkiOf,
  type TestCa,
} from './certs';

/** An HTTPS server on loopback that does as `listener` does. */
export interface HttpsServer {
  readonly url: string;
  /** The root to judge it by, PEM. */
  readonly caPem: Buffer;
  /** TLS connections taken so far. */
  connections(): number;
  close(): Promise<void>;
}

export interface HttpsServerOptions {
  readonly ca?: TestCa;
  /** GeneralNames of its certificate; default 127.0.0.1 and localhost. */
  readonly names?: readonly Uint8Array[];
  readonly notAfterAt?: number;
}

/** What a server on loopback shows, and the root to judge it by, PEM. Valid around the machine's clock, which TLS goes by. */
export async function makeServerKey(options: HttpsServerOptions = {}) {
  const now = Date.now();
  const ca =
    options.ca ??
    (await makeTestCa({ notBeforeAt: now - HOUR_MS, notAfterAt: now + 24 * HOUR_MS }));
  const key = makeKey('ec', 'prime256v1');
  const leafDer = issueLeaf(ca, {
    key: { spkiDer: spkiOf(key) },
    uris: [],
    otherNames: options.names ?? [ipName(127, 0, 0, 1), dnsName('localhost')],
    purposes: [PURPOSE.serverAuth],
    notBeforeAt: now - HOUR_MS / 2,
    notAfterAt: options.notAfterAt ?? now + HOUR_MS,
  });
  return {
    keyPem: Buffer.from(key.export({ type: 'pkcs8', format: 'pem' })),
    certPem: writePem('CERTIFICATE', leafDer),
    caPem: writePem('CERTIFICATE', ca.certificateDer),
  };
}

export async function startHttpsServer(
  listener: RequestListener,
  options: HttpsServerOptions = {},
): Promise<HttpsServer> {
  const { keyPem, certPem, caPem } = await makeServerKey(options);
  const server: Server = createServer(
    { key: keyPem, cert: certPem, keepAliveTimeout: 60_000 },
    listener,
  );
  let connections = 0;
  server.on('secureConnection', () => {
    connections += 1;
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    caPem,
    connections: () => connections,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}
