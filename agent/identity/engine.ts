import type { Csr, UnverifiedCsr } from './csr';
import type { KeyAlgorithm, KeyPair } from './keys';
import type { SpiffeId } from './spiffe-id';

/**
 * `direct`: our own DER on node:crypto. `webcrypto`: @peculiar/x509 on the runtime's WebCrypto. `peculiar`: @peculiar/x509 on
 * @peculiar/webcrypto. All three pass the same suite; README.md has the numbers behind the default.
 */
export const ENGINES = ['direct', 'webcrypto', 'peculiar'] as const;
export type EngineName = (typeof ENGINES)[number];

/** Makes keys, CSRs and certificates. Each call may be made concurrently; none blocks the event loop for longer than an RSA signature. */
export interface CertificateEngine {
  readonly name: EngineName;
  generateKeyPair(algorithm: KeyAlgorithm): Promise<KeyPair>;
  /**
   * PKCS#10, DER: subject an empty `O` (RDN `30 0b 31 09 30 07 06 03 55 04 0a 13 00`, as istio-agent), one critical URI SAN, nothing else.
   * ECDSA with SHA-256 (P-256) or SHA-384 (P-384), RSA PKCS#1 v1.5 with SHA-256.
   */
  createCsr(key: KeyPair, id: SpiffeId): Promise<Uint8Array>;
  /**
   * Reads a PKCS#10 request strictly and verifies its signature and key strength.
   *
   * @throws AgentError ERR_PARSE with field and rule.
   */
  readCsr(der: Uint8Array): Promise<Csr>;
  /** What `readCsr` does after `parseCsr`, which costs next to nothing: so a server can authenticate the caller between the two. */
  verifyCsr(csr: UnverifiedCsr): Promise<Csr>;
  /** Signs a certificate. `spec` is taken as it stands: the caller has decided. */
  createCertificate(spec: CertificateSpec, issuerKey: KeyPair): Promise<Uint8Array>;
}

export interface CertificateSpec {
  /** Positive, at most 20 octets, big endian without leading zeros. */
  readonly serial: Uint8Array;
  /** DER Names. An empty subject is `30 00`; then the SAN is critical. */
  readonly issuerDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  /** Epoch milliseconds, whole seconds. UTCTime up to 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5). */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
  readonly spkiDer: Uint8Array;
  readonly authorityKeyId: Uint8Array;
  readonly subjectKeyId: Uint8Array;
  readonly profile:
    | { readonly kind: 'root'; readonly uri: string | undefined }
    | {
        readonly kind: 'intermediate';
        readonly pathLength: number;
        readonly uri: string | undefined;
      }
    /** keyEncipherment is set for RSA only. */
    | { readonly kind: 'leaf'; readonly uri: string; readonly keyEncipherment: boolean }
    /** Of a TLS server that is no workload: serverAuth alone, at least one name. */
    | {
        readonly kind: 'server';
        readonly dnsNames: readonly string[];
        readonly ipAddresses: readonly string[];
      };
}
