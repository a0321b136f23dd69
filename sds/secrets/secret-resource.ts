import { createHash } from 'node:crypto';
import type { DataSource } from '../proto/generated/envoy/config/core/v3/base';
import { Secret } from '../proto/generated/envoy/extensions/transport_sockets/tls/v3/secret';
import { SPIFFECertValidatorConfig } from '../proto/generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config';

/** One secret as it goes over the wire, encoded once and shared by every stream that sends it. */
export interface SecretResource {
  readonly name: string;
  /** The beginning of the SHA-256 of `secretBytes`, hex: equal secrets are equal versions, in this process and after it. */
  readonly version: string;
  /** An encoded `envoy.extensions.transport_sockets.tls.v3.Secret`. Holds a private key: it goes to the socket and nowhere else. */
  readonly secretBytes: Uint8Array;
  /** The leaf's serial number for a certificate, undefined for roots. */
  readonly serial: string | undefined;
  /** When this agent first had it, epoch milliseconds. */
  readonly publishedAt: number;
}

/** What there is to say about a name: the resource, `waiting` while there is none yet, `unknown` where there never will be. */
export type Lookup = (name: string) => SecretResource | 'waiting' | 'unknown';

const VERSION_DIGITS = 32;

/** A `tls_certificate` secret. Both PEMs are sent inline. */
export function certificateResource(
  name: string,
  pems: { readonly chainPem: Buffer; readonly keyPem: Buffer; readonly serial: string },
  publishedAt: number,
): SecretResource {
  const value = { certificateChain: inline(pems.chainPem), privateKey: inline(pems.keyPem) };
  return resource(
    name,
    Secret.encode({ name, type: { $case: 'tlsCertificate', value } }).finish(),
    pems.serial,
    publishedAt,
  );
}

/**
 * A `validation_context` secret that trusts these roots.
 *
 * @param crlPem  Revocation lists to go by. Only a leaf is looked for in them: roots and intermediates have lists of their own authorities,
 *                which nobody here has, and Envoy would refuse all that it finds no list for.
 */
export function rootsResource(
  name: string,
  rootsPem: Buffer,
  crlPem: Buffer | undefined,
  publishedAt: number,
): SecretResource {
  const onlyVerifyLeafCertCrl = crlPem !== undefined;
  const value = {
    trustedCa: inline(rootsPem),
    crl: crlPem && inline(crlPem),
    customValidatorConfig: undefined,
    onlyVerifyLeafCertCrl,
  };
  return resource(
    name,
    Secret.encode({ name, type: { $case: 'validationContext', value } }).finish(),
    undefined,
    publishedAt,
  );
}

const SPIFFE_VALIDATOR = 'envoy.tls.cert_validator.spiffe';
const SPIFFE_VALIDATOR_TYPE =
  'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig';

/**
 * A `validation_context` secret with Envoy's SPIFFE validator.
 *
 * @param domains  At least one, each with the PEM of its roots and of its revocation lists, which count for whole chains there.
 */
export function spiffeTrustResource(
  name: string,
  domains: readonly { readonly name: string; readonly pem: Buffer }[],
  publishedAt: number,
): SecretResource {
  const trustDomains = domains.map((each) => ({ name: each.name, trustBundle: inline(each.pem) }));
  const config = Buffer.from(SPIFFECertValidatorConfig.encode({ trustDomains }).finish());
  const customValidatorConfig = {
    name: SPIFFE_VALIDATOR,
    typedConfig: { typeUrl: SPIFFE_VALIDATOR_TYPE, value: config },
  };
  const value = {
    trustedCa: undefined,
    crl: undefined,
    customValidatorConfig,
    onlyVerifyLeafCertCrl: false,
  };
  return resource(
    name,
    Secret.encode({ name, type: { $case: 'validationContext', value } }).finish(),
    undefined,
    publishedAt,
  );
}

/** One version for several resources together: a hash over theirs. */
export function combinedVersion(resources: readonly SecretResource[]): string {
  if (resources.length === 1) return resources[0]!.version;
  const hash = createHash('sha256');
  for (const each of resources) hash.update(each.version).update('\0');
  return hash.digest('hex').slice(0, VERSION_DIGITS);
}

function resource(
  name: string,
  secretBytes: Uint8Array,
  serial: string | undefined,
  publishedAt: number,
): SecretResource {
  const version = createHash('sha256').update(secretBytes).digest('hex').slice(0, VERSION_DIGITS);
  return { name, version, secretBytes, serial, publishedAt };
}

function inline(bytes: Buffer): DataSource {
  return { specifier: { $case: 'inlineBytes', value: bytes } };
}
