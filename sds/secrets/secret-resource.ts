import { createHash } from 'node:crypto';
import type { CrlSet } from '../../agent/identity/crl';
import { field, type Pieces } from '../grpc/pieces';
import type { DataSource } from '../proto/generated/envoy/config/core/v3/base';
import { TypedExtensionConfig } from '../proto/generated/envoy/config/core/v3/extension';
import {
  CertificateValidationContext,
  Secret,
} from '../proto/generated/envoy/extensions/transport_sockets/tls/v3/secret';
import { SPIFFECertValidatorConfig_TrustDomain } from '../proto/generated/envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config';
import { Any } from '../proto/generated/google/protobuf/any';

/** One secret as it goes over the wire, encoded once and shared by every stream that sends it. */
export interface SecretResource {
  readonly name: string;
  /** The beginning of a SHA-256 over what it says, hex: equal secrets are equal versions, in this process and after it. */
  readonly version: string;
  /** An encoded `envoy.extensions.transport_sockets.tls.v3.Secret`. Holds a private key: it goes to the socket and nowhere else. */
  readonly secret: Pieces;
  /** The leaf's serial number for a certificate, undefined for roots. */
  readonly serial: string | undefined;
  /** When this agent first had it, epoch milliseconds. */
  readonly publishedAt: number;
}

/** What there is to say about a name: the resource, `waiting` while there is none yet, `unknown` where there never will be. */
export type Lookup = (name: string) => SecretResource | 'waiting' | 'unknown';

/** Revocation lists as they are served. */
export type ServedLists = Pick<CrlSet, 'pem' | 'version'>;

const VERSION_DIGITS = 32;
/** Numbers of fields that may be long, or that such a one is in. */
const FIELD = {
  validationContext: 4,
  contextCrl: 7,
  customValidator: 12,
  inlineBytes: 2,
  typedConfig: 2,
  anyValue: 2,
  trustDomain: 1,
  trustBundle: 2,
} as const;
const NO_CONTEXT: CertificateValidationContext = {
  trustedCa: undefined,
  crl: undefined,
  customValidatorConfig: undefined,
  onlyVerifyLeafCertCrl: false,
};

/** A `tls_certificate` secret. Both PEMs are sent inline. */
export function certificateResource(
  name: string,
  pems: { readonly chainPem: Buffer; readonly keyPem: Buffer; readonly serial: string },
  publishedAt: number,
): SecretResource {
  const value = { certificateChain: inline(pems.chainPem), privateKey: inline(pems.keyPem) };
  const secret = Secret.encode({ name, type: { $case: 'tlsCertificate', value } }).finish();
  const version = versionOf([secret]);
  return { name, version, secret: [secret], serial: pems.serial, publishedAt };
}

/**
 * A `validation_context` secret that trusts these roots.
 *
 * @param lists  Revocation lists to go by. Only a leaf is looked for in them: roots and intermediates have lists of their own authorities,
 *               which nobody here has, and Envoy would refuse all that it finds no list for.
 */
export function rootsResource(
  name: string,
  rootsPem: Buffer,
  lists: ServedLists | undefined,
  publishedAt: number,
): SecretResource {
  const context = {
    ...NO_CONTEXT,
    trustedCa: inline(rootsPem),
    onlyVerifyLeafCertCrl: lists !== undefined,
  };
  const listed = lists ? field(FIELD.contextCrl, field(FIELD.inlineBytes, [lists.pem])) : [];
  return contextResource(name, context, listed, [rootsPem, listsVersion(lists)], publishedAt);
}

const SPIFFE_VALIDATOR = 'envoy.tls.cert_validator.spiffe';
const SPIFFE_VALIDATOR_TYPE =
  'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig';

/** A trust domain with its roots, and its revocation lists, which count for whole chains there. */
export interface TrustedDomain {
  readonly name: string;
  readonly rootsPem: Buffer;
  readonly lists: ServedLists | undefined;
}

/**
 * A `validation_context` secret with Envoy's SPIFFE validator.
 *
 * @param domains  At least one.
 */
export function spiffeTrustResource(
  name: string,
  domains: readonly TrustedDomain[],
  publishedAt: number,
): SecretResource {
  const any = Any.encode({ typeUrl: SPIFFE_VALIDATOR_TYPE, value: Buffer.alloc(0) });
  const config = field(FIELD.anyValue, domains.flatMap(trustDomainField));
  const validator = TypedExtensionConfig.encode({ name: SPIFFE_VALIDATOR, typedConfig: undefined });
  const typed = field(FIELD.typedConfig, [any.finish(), ...config]);
  const content = field(FIELD.customValidator, [validator.finish(), ...typed]);
  const identity = domains.flatMap((each) => [
    Buffer.from(each.name),
    each.rootsPem,
    listsVersion(each.lists),
  ]);
  return contextResource(name, NO_CONTEXT, content, identity, publishedAt);
}

function trustDomainField({ name, rootsPem, lists }: TrustedDomain): Pieces {
  const domain = SPIFFECertValidatorConfig_TrustDomain.encode({ name, trustBundle: undefined });
  const bundle = field(FIELD.inlineBytes, lists ? [rootsPem, lists.pem] : [rootsPem]);
  return field(FIELD.trustDomain, [domain.finish(), ...field(FIELD.trustBundle, bundle)]);
}

/**
 * @param rest      Fields of the context that may be long.
 * @param identity  What tells one from another: lists of tens of megabytes are known by their version, and not hashed again.
 */
function contextResource(
  name: string,
  context: CertificateValidationContext,
  rest: Pieces,
  identity: Pieces,
  publishedAt: number,
): SecretResource {
  const value = [CertificateValidationContext.encode(context).finish(), ...rest];
  const named = Secret.encode({ name, type: undefined }).finish();
  const secret = [named, ...field(FIELD.validationContext, value)];
  const version = versionOf([named, ...identity]);
  return { name, version, secret, serial: undefined, publishedAt };
}

/** One version for several resources together: a hash over theirs. */
export function combinedVersion(resources: readonly SecretResource[]): string {
  if (resources.length === 1) return resources[0]!.version;
  const hash = createHash('sha256');
  for (const each of resources) hash.update(each.version).update('\0');
  return hash.digest('hex').slice(0, VERSION_DIGITS);
}

/** Each with its length before it, so that what one ends with is not what the next begins with. */
function versionOf(identity: Pieces): string {
  const hash = createHash('sha256');
  for (const each of identity) hash.update(`${each.length}:`).update(each);
  return hash.digest('hex').slice(0, VERSION_DIGITS);
}

function listsVersion(lists: ServedLists | undefined): Buffer {
  return Buffer.from(lists?.version ?? '');
}

function inline(bytes: Buffer): DataSource {
  return { specifier: { $case: 'inlineBytes', value: bytes } };
}
