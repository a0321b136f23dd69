import { MAX_CRL_ENTRIES } from '../../identity/crl-bounds';

/** Live certificates of one identity, the most that may be allowed: all of them may have to be revoked, and a list holds no more. */
export const MAX_LIVE_PER_IDENTITY = MAX_CRL_ENTRIES;
/** Replicas of a Deployment share one identity. Of 25 such identities all certificates may be revoked at the same time. */
export const DEFAULT_LIVE_PER_IDENTITY = MAX_CRL_ENTRIES / 25;

/**
 * What one stranger, and all of them together, may take. A CA is asked by everybody who can reach its port, long before anything is known
 * of them, so every bound holds before authentication; what a known identity may ask for is in `rate-limits.ts`.
 */
export const LIMITS = {
  /** Bytes of one request: a CSR for RSA-8192 is 6 kB of PEM. What says that it is longer is refused for that alone. */
  requestBytes: 64 * 1024,
  /** All headers of a call, by their bytes as HTTP/2 counts them. */
  headerBytes: 32 * 1024,
  /** Bytes of a token: those of Kubernetes are below 2 kB, of large identity providers below 16 kB. */
  tokenBytes: 16 * 1024,
  /** Open connections, those still in their TLS handshake included. At the cap the oldest that has asked nothing makes room. */
  connections: 2_048,
  /**
   * Octets of a client that TLS gets to see until the handshake is done: a ClientHello with keys for after quantum computers is 2 KiB; then
   * there is room for a leaf and three CAs of RSA-4096. Every certificate that is shown is verified by TLS itself, at once: 22 with compressed
   * keys of P-521 or sect571r1, the smallest that can be made, go in here, which take 60 to 75 ms on Node.js.
   */
  handshakeBytes: { hello: 4 * 1_024, certificates: 6 * 1_024 },
  /** Open calls in one connection (told to clients by HTTP/2 SETTINGS), and those of all that have not arrived whole. */
  callsPerConnection: 128,
  incompleteCalls: 2_048,
  /** Calls that are being answered. Beyond them RESOURCE_EXHAUSTED with a hint: the machine is busy for seconds already. */
  answering: 1_024,
  /** Chains of strangers that wait to be verified. One is verified at a time, in some milliseconds at most. */
  verifying: 256,
  /** Tokens that the Kubernetes API is asked about: a second for one source address, a second in all, and at once. */
  reviewsPerAddress: 20,
  reviews: 100,
  reviewsAtOnce: 8,
} as const;

/** How long a stranger may be silent or slow. Sweeps are counted, not measured, so a jump of the clock ends nothing. */
export const PATIENCE = {
  sweepMs: 1_000,
  handshakeMs: 10_000,
  /** A connection that has not opened a call yet. */
  silentSweeps: 30,
  /** A call whose request has not arrived whole. */
  incompleteSweeps: 10,
  /** A connection whose last call is that long ago: clients that are gone without a word are found out by it too. */
  idleSweeps: 300,
  /** What it has to go by itself then. */
  goodbyeSweeps: 10,
  /** For one answer of the Kubernetes API, which may ask a webhook that has 30 s itself. */
  reviewMs: 30_000,
  /** When a client that was refused for being one too many may come again. */
  comeAgainMs: 1_000,
} as const;
