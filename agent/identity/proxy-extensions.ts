import { contextTag, type DerReader, readDer, TAG } from '../base/der';
import { AgentError } from '../base/errors';
import type { Certificate } from './certificate';
import { EXTENSION, readGeneralName } from './extensions';

const OID = {
  distributionPoints: '2.5.29.31',
  anyPolicy: '2.5.29.32.0',
  policyMappings: '2.5.29.33',
  policyConstraints: '2.5.29.36',
  inhibitAnyPolicy: '2.5.29.54',
  tlsFeature: '1.3.6.1.5.5.7.1.24',
} as const;
/** As Envoy looks for it: status_request and nothing else. */
const MUST_STAPLE = Buffer.from([0x30, 0x03, 0x02, 0x01, 0x05]);
const MAX_ITEMS = 1024;

/**
 * Why Envoy takes a certificate for nobody's issuer, of what only it reads, as a rule that is broken: BoringSSL wants distribution points that
 * it can read.
 *
 * @see BoringSSL crypto/x509/v3_purp.cc, x509v3_cache_extensions.
 */
export function unreadableForProxy(certificate: Certificate): string | undefined {
  return readRule(
    certificate,
    OID.distributionPoints,
    'CRL distribution points',
    readDistributionPoints,
  );
}

/**
 * What Envoy refuses of the extensions of a path's certificate that nothing else here reads, as a rule that is broken. BoringSSL follows
 * certificate policies though nobody asks for one, but not those of the path's end; and Envoy wants a stapled answer for a leaf that
 * promises one.
 *
 * @param index  0 is the leaf.
 * @see BoringSSL crypto/x509/policy.cc; Envoy source/common/tls/context_impl.cc.
 */
export function extensionObstacle(
  certificate: Certificate,
  index: number,
  isEnd: boolean,
): string | undefined {
  const unreadable = unreadableForProxy(certificate);
  if (unreadable !== undefined) return unreadable;
  const feature = extensionOf(certificate, OID.tlsFeature);
  if (index === 0 && feature && Buffer.compare(feature, MUST_STAPLE) === 0) {
    return `must not have the extension TLS feature (${OID.tlsFeature}): no OCSP answer is stapled`;
  }
  if (isEnd) return undefined;
  const constraints = (reader: DerReader, name: string) =>
    readPolicyConstraints(reader, name, index);
  return (
    readRule(certificate, EXTENSION.certificatePolicies, 'certificate policies', readPolicies) ??
    readRule(certificate, OID.policyConstraints, 'policy constraints', constraints) ??
    readRule(certificate, OID.inhibitAnyPolicy, 'a bound of any policy', (reader, name) =>
      reader.smallInteger(name),
    ) ??
    (index > 0
      ? readRule(certificate, OID.policyMappings, 'policy mappings', readPolicyMappings)
      : undefined)
  );
}

function extensionOf({ extensions }: Certificate, oid: string): Uint8Array | undefined {
  return extensions.find((each) => each.oid === oid)?.value;
}

type Read = (reader: DerReader, name: string) => unknown;

function readRule(
  certificate: Certificate,
  oid: string,
  name: string,
  read: Read,
): string | undefined {
  const value = extensionOf(certificate, oid);
  if (value === undefined) return undefined;
  try {
    readDer(value, name, (reader) => read(reader, name));
    return undefined;
  } catch (caught) {
    const { rule, message } = AgentError.from(caught);
    return `must have ${name} (${oid}) that Envoy takes, which ${rule ?? message}`;
  }
}

function readDistributionPoints(reader: DerReader, name: string): void {
  const readNames = (inner: DerReader) =>
    inner.list(name, MAX_ITEMS, (each) => readGeneralName(each, name));
  const readPlace = (inner: DerReader) => {
    inner.optional(name, contextTag(0), readNames);
    inner.optional(name, contextTag(1), (relative) =>
      relative.list(name, MAX_ITEMS, (each) => each.element(name, TAG.sequence)),
    );
  };
  const readPoint = (inner: DerReader) => {
    inner.optional(name, contextTag(0), readPlace);
    const reasons = contextTag(1, 'primitive');
    if (inner.nextTag === reasons) inner.bitString(name, reasons);
    inner.optional(name, contextTag(2), readNames);
  };
  reader.sequence(name, (points) =>
    points.list(name, MAX_ITEMS, (each) => each.sequence(name, readPoint)),
  );
}

function readPolicies(reader: DerReader, name: string): void {
  const readQualifier = (inner: DerReader) => [inner.oid(name), inner.any(name)];
  const readQualifiers = (inner: DerReader) =>
    inner.list(name, MAX_ITEMS, (each) => each.sequence(name, readQualifier));
  const readPolicy = (inner: DerReader) => {
    const policy = inner.oid(name);
    inner.optional(name, TAG.sequence, readQualifiers);
    return policy;
  };
  const policies = reader.sequence(name, (inner) =>
    inner.list(name, MAX_ITEMS, (each) => each.sequence(name, readPolicy)),
  );
  if (policies.length === 0) throw reader.refuse(name, 'must not be empty');
  if (new Set(policies).size < policies.length)
    throw reader.refuse(name, 'must not repeat a policy');
}

/** A policy that is asked for is taken for one that nobody has: leaves of workloads carry none. */
function readPolicyConstraints(reader: DerReader, name: string, below: number): void {
  reader.sequence(name, (inner) => {
    const [explicit, inhibit] = [contextTag(0, 'primitive'), contextTag(1, 'primitive')].map(
      (tag) => (inner.nextTag === tag ? inner.smallInteger(name, tag) : undefined),
    );
    if (explicit === undefined && inhibit === undefined)
      throw inner.refuse(name, 'must not be empty');
    if (explicit !== undefined && explicit <= below)
      throw inner.refuse(name, 'must not require a certificate policy');
  });
}

function readPolicyMappings(reader: DerReader, name: string): void {
  const readPair = (inner: DerReader) => [inner.oid(name), inner.oid(name)];
  const pairs = reader.sequence(name, (inner) =>
    inner.list(name, MAX_ITEMS, (each) => each.sequence(name, readPair)),
  );
  if (pairs.length === 0) throw reader.refuse(name, 'must not be empty');
  if (pairs.flat().includes(OID.anyPolicy)) throw reader.refuse(name, 'must not map any policy');
}
