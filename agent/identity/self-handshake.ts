import { Duplex } from 'node:stream';
import { connect, createSecureContext, createServer, type TLSSocket } from 'node:tls';
import { AgentError, systemCode } from '../base/errors';

/** What goes out to a proxy, PEM. */
export interface HandshakeMaterial {
  readonly keyPem: string | Buffer;
  readonly chainPem: string | Buffer;
  readonly rootsPem: string | Buffer;
  /** One list to an element: of several in one text the runtime reads the first. They count for the whole chain here, so leave them out where only some of its CAs have one. */
  readonly listsPem: readonly Buffer[];
}

/** What a thread that shakes hands for another says at its end. */
export type HandshakeOutcome =
  | { readonly obstacle: string | undefined }
  | { readonly failure: string };

/**
 * What `proxyObstacle` has found by the caller's own clock and by Envoy's search, from which OpenSSL's and that of Bun differ: dates, which
 * certificate stands for an issuer, and purposes and policies, which Envoy does not look for in a root. Of policies that it cannot read Bun
 * says `UNSPECIFIED`.
 */
const VERIFIED_BEFORE: readonly string[] = [
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CRL_HAS_EXPIRED',
  'CRL_NOT_YET_VALID',
  'CERT_SIGNATURE_FAILURE',
  'CRL_SIGNATURE_FAILURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_CRL',
  'INVALID_PURPOSE',
  'UNSPECIFIED',
];

/**
 * Lets the runtime's own TLS shake hands with itself in memory, mutually, with exactly this key, chain, roots and lists.
 *
 * @returns  Why either side refuses the other, as the runtime's TLS names it (`CERT_REVOKED`, `ERR_SSL_OVERFLOW`); undefined where both accept.
 */
export function handshakeObstacle({
  keyPem,
  chainPem,
  rootsPem,
  listsPem,
}: HandshakeMaterial): Promise<string | undefined> {
  // As Envoy: an intermediate in the bundle is trusted as it stands.
  const trust = {
    ca: rootsPem,
    allowPartialTrustChain: true,
    ...(listsPem.length > 0 && { crl: [...listsPem] }),
  };
  const material = { key: keyPem, cert: chainPem, ...trust };
  const options = {
    ...material,
    rejectUnauthorized: false,
    requestCert: true,
    minVersion: 'TLSv1.2',
  } as const;
  return new Promise((resolve) => {
    const [near, far] = duplexPair();
    const server = createServer(options);
    const outcomes = new Set<TLSSocket>();
    const end = (obstacle: string | undefined) => {
      near.destroy();
      far.destroy();
      resolve(obstacle);
    };
    const shaken = (socket: TLSSocket) => {
      // What one side says when the other is destroyed.
      socket.on('error', () => undefined);
      const refused = verdictOf(socket);
      if (refused !== undefined && !VERIFIED_BEFORE.includes(refused)) return end(refused);
      if (outcomes.add(socket).size === 2) end(undefined);
    };
    const failed = (caught: unknown) => end(systemCode(caught) ?? AgentError.from(caught).message);
    server.on('secureConnection', shaken).on('tlsClientError', failed);
    const secureContext = createSecureContext(material);
    const client = connect({
      socket: near,
      secureContext,
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
    });
    client.on('secureConnect', () => shaken(client)).on('error', failed);
    server.emit('connection', far);
  });
}

/** Node.js gives the code as a string or as an error that has one, Bun as the latter. */
function verdictOf({ authorized, authorizationError }: TLSSocket): string | undefined {
  if (authorized) return undefined;
  const error: unknown = authorizationError;
  return systemCode(error) ?? String(error);
}

/** Two ends of a pipe in memory. */
function duplexPair(): readonly [Duplex, Duplex] {
  const end = (other: () => Duplex) =>
    new Duplex({
      read: () => undefined,
      write: (chunk, _, done) => {
        other().push(chunk);
        done();
      },
      final: (done) => {
        other().push(null);
        done();
      },
    });
  const near: Duplex = end(() => far);
  const far: Duplex = end(() => near);
  return [near, far];
}
