import type { Certificate } from '../identity/certificate';
import type { CertificateSpec } from '../identity/engine';
import { EMPTY_NAME, encodeName } from '../identity/name';
import { keyIdentifier, type PublicKey, parsePublicKey } from '../identity/public-key';
import { formatSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import { randomSerial } from './serial';

/** Where no lifetime is asked for, as upstream's DEFAULT_WORKLOAD_CERT_TTL. */
export const DEFAULT_TTL_SECONDS = 24 * 3_600;
/** For peers whose clock is behind; upstream's CA backdates by as much. */
const LEAF_BACKDATE_MS = 2 * 60_000;
const ROOT_BACKDATE_MS = 10 * 60_000;
/** 3650 days, as upstream's CITADEL_SELF_SIGNED_CA_CERT_TTL. */
const ROOT_LIFETIME_MS = 3_650 * 24 * 3_600_000;
/** The last second that a certificate can name (RFC 5280 section 4.1.2.5). */
const LAST_SECOND_AT = Date.UTC(9999, 11, 31, 23, 59, 59);
/** RFC 5280 appendix A.1: ub-organization-name. */
const MAX_ORGANISATION = 64;

/** What of a signer stands in what it signs, or bounds it. */
export interface SignerFacts {
  readonly subjectDer: Uint8Array;
  readonly keyId: Uint8Array;
  /** The latest notBefore and the earliest notAfter from the signer to its root, epoch milliseconds. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
}

/**
 * A workload's certificate. It never outlives nor antedates what is above it: verifiers look at the whole path.
 *
 * @param ttlSeconds  Zero or less means `DEFAULT_TTL_SECONDS`. A fraction of a second is cut off.
 * @param now         Epoch milliseconds, within the issuer's validity.
 * @see RFC 5280 section 4.2.1.3: keyEncipherment is for keys that can encrypt, so RSA only (upstream sets it on EC keys too).
 * @see X509-SVID sections 2, 3.1, 4.3, 4.4.
 */
export function leafSpec(
  spkiDer: Uint8Array,
  id: SpiffeId,
  ttlSeconds: number,
  issuer: SignerFacts,
  now: number,
): CertificateSpec {
  const key = parsePublicKey(spkiDer);
  const profile = {
    kind: 'leaf',
    uri: formatSpiffeId(id),
    keyEncipherment: key.kind === 'rsa',
  } as const;
  return { ...endEntity(key, ttlSeconds, issuer, now), profile };
}

function endEntity(
  key: PublicKey,
  ttlSeconds: number,
  issuer: SignerFacts,
  now: number,
): Omit<CertificateSpec, 'profile'> {
  const ttlMs = (ttlSeconds > 0 ? ttlSeconds : DEFAULT_TTL_SECONDS) * 1_000;
  return {
    serial: randomSerial(),
    issuerDer: issuer.subjectDer,
    subjectDer: EMPTY_NAME,
    notBeforeAt: Math.max(wholeSecond(now - LEAF_BACKDATE_MS), issuer.notBeforeAt),
    notAfterAt: Math.min(wholeSecond(now + ttlMs), issuer.notAfterAt),
    spkiDer: key.spkiDer,
    authorityKeyId: issuer.keyId,
    subjectKeyId: keyIdentifier(key),
  };
}

/**
 * A self-signed root. It carries the trust domain's own SPIFFE ID: X509-SVID section 3.2 wants a signing certificate to be an SVID without
 * a path, and it lets a plugged-in CA of another trust domain be told apart.
 */
export function rootSpec(
  spkiDer: Uint8Array,
  trustDomain: string,
  now: number,
  lifetimeMs = ROOT_LIFETIME_MS,
): CertificateSpec {
  // The name is for people; the key identifier is what tells two roots apart, so a cut one does no harm.
  const name = encodeName([['O', trustDomain.slice(0, MAX_ORGANISATION)]]);
  const keyId = keyIdentifier(spkiDer);
  const notBeforeAt = wholeSecond(now - ROOT_BACKDATE_MS);
  return {
    serial: randomSerial(),
    issuerDer: name,
    subjectDer: name,
    notBeforeAt,
    notAfterAt: notBeforeAt + lifetimeMs,
    spkiDer,
    authorityKeyId: keyId,
    subjectKeyId: keyId,
    profile: { kind: 'root', uri: `spiffe://${trustDomain}` },
  };
}

/**
 * Certifies another signer's name and key, within the validity of both: who trusts the root of `by` alone verifies what that signer signs.
 * Purposes and constraints of the signer's own certificate bind those who verify by its own root; here those of `by` do.
 */
export function crossSpec(
  signer: Certificate,
  by: SignerFacts,
  trustDomain: string,
  now: number,
): CertificateSpec {
  return {
    serial: randomSerial(),
    issuerDer: by.subjectDer,
    subjectDer: signer.subjectDer,
    notBeforeAt: Math.max(wholeSecond(now - ROOT_BACKDATE_MS), by.notBeforeAt),
    notAfterAt: Math.min(by.notAfterAt, signer.notAfterAt),
    spkiDer: signer.publicKey.spkiDer,
    authorityKeyId: by.keyId,
    subjectKeyId: signer.subjectKeyId ?? keyIdentifier(signer.publicKey),
    profile: { kind: 'root', uri: `spiffe://${trustDomain}` },
  };
}

/** Whom a TLS server is to be reached as. */
export interface ServerNames {
  /** Hosts, as clients write them. */
  readonly dns: readonly string[];
  /** IPv4 and IPv6 addresses as text. */
  readonly ip: readonly string[];
}

/** The certificate of a TLS server of ours, for serverAuth alone: it is no workload and proves no identity to a peer. */
export function serverSpec(
  spkiDer: Uint8Array,
  names: ServerNames,
  ttlSeconds: number,
  issuer: SignerFacts,
  now: number,
): CertificateSpec {
  return {
    ...endEntity(parsePublicKey(spkiDer), ttlSeconds, issuer, now),
    profile: { kind: 'server', dnsNames: names.dns, ipAddresses: names.ip },
  };
}

/**
 * A leaf that shows whether a signer's certificates verify, and to when: for the signer's own key, valid at `now` whatever the signer is, and
 * for longer than any path of it can be.
 */
export function probeSpec(
  signer: Certificate,
  keyId: Uint8Array,
  trustDomain: string,
  now: number,
): CertificateSpec {
  const { spkiDer } = signer.publicKey;
  return {
    serial: randomSerial(),
    issuerDer: signer.subjectDer,
    subjectDer: EMPTY_NAME,
    notBeforeAt: wholeSecond(now - LEAF_BACKDATE_MS),
    notAfterAt: LAST_SECOND_AT,
    spkiDer,
    authorityKeyId: keyId,
    subjectKeyId: keyId,
    profile: { kind: 'leaf', uri: `spiffe://${trustDomain}/probe`, keyEncipherment: false },
  };
}

function wholeSecond(at: number): number {
  return Math.floor(at / 1_000) * 1_000;
}
