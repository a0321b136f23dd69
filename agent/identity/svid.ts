import { formatDuration } from '../base/duration';
import { AgentError, type ErrorCode, errorText, invalid } from '../base/errors';
import { iso } from '../base/iso';
import {
  type Certificate,
  isCa,
  isSelfIssued,
  parseCertificate,
  parseCertificates,
  parseRootBundle,
  rootWarnings,
  usageWarnings,
} from './certificate';
import {
  isSelfSigned,
  namesAsIssuer,
  sameSubjectAndKey,
  standingObstacle,
  type VerifiedChain,
  verifyChain,
} from './chain';
import { splitCredentialBundle } from './credential-bundle';
import { type KeyPair, readPrivateKey } from './keys';
import { checkLeaf, checkNotCa, readIdentity } from './leaf';
import { SignatureChecker } from './signature-checker';
import type { SpiffeId } from './spiffe-id';
import type { TrustBundle } from './trust-bundle';

/**
 * A key, its certificate chain and the bundle that it verified against: one value, replaced as one. Only `acceptIssuedChain` and
 * `acceptMountedFiles` make it, so nothing downstream checks again that they belong together.
 */
export interface Svid {
  /** Undefined only for a mounted certificate that carries no SPIFFE ID. */
  readonly id: SpiffeId | undefined;
  readonly key: KeyPair;
  /** Leaf first, then intermediates; never a self-signed root. */
  readonly chainDer: readonly Uint8Array[];
  readonly bundle: TrustBundle;
  /** The leaf's serial number, lower-case hex, as `openssl x509 -serial` prints it but for case. */
  readonly serial: string;
  /** Epoch milliseconds: the leaf's notBefore, and the earliest notAfter of the chain and the root that it verified to. */
  readonly notBeforeAt: number;
  readonly notAfterAt: number;
  /** When the gate accepted it, epoch milliseconds. */
  readonly receivedAt: number;
  /** Which certificate authority gave it: the name of the `CaClient`, or `file`. */
  readonly source: string;
  /** What is unusual about it but accepted, for `status`, e.g. a leaf without KeyUsage. */
  readonly warnings: readonly string[];
}

/** What was asked for, by whom the answer is to be judged. */
export interface Expected {
  readonly id: SpiffeId;
  readonly key: KeyPair;
  /** The name of the `CaClient`. */
  readonly source: string;
  /** A longer life than this is accepted with a warning. */
  readonly maxTtlMs?: number;
}

/** More than istiod sends with the largest root bundle in sensible use; a thousand certificates are refused unread. */
const MAX_REPLY_CERTIFICATES = 256;
const MAX_REPLY_BYTES = 1024 * 1024;
/** Beyond this, verifiers with a limit on signature checks (Go's is 100) begin to fail where roots share a name. */
const MANY_ROOTS = 32;

/**
 * The gate: judges a CA's reply, and makes an `Svid` of it or nothing.
 *
 * The leaf is the one certificate in the reply that has our key; it must be for exactly our SPIFFE ID and fit to be one (`checkLeaf`), and
 * must verify to a root of `trust`, never to one that came with the reply (`verifyChain`). The order of the reply does not matter: what
 * the leaf hangs on is put in order behind it; roots, duplicates and expired intermediates are left out silently; certificates that are
 * damaged or have nothing to do with the leaf are left out with a warning.
 *
 * @param certificatesDer  As in `IssuedChain`; at most 256 and 1 MiB.
 * @param now              Epoch milliseconds. A notBefore up to a minute ahead passes, with a warning.
 * @throws                 AgentError ERR_CA_RESPONSE (retry slow) with `field` (`reply`, `leaf`, `chain`, a CA's name) and `rule`.
 * @see X509-SVID sections 2 to 5; RFC 5280 section 6.
 */
export function acceptIssuedChain(
  expected: Expected,
  certificatesDer: readonly Uint8Array[],
  trust: TrustBundle,
  now: number,
): Svid {
  return translated('ERR_CA_RESPONSE', `accept certificate from ${expected.source}`, () => {
    const { certificates, damaged } = readReply(certificatesDer);
    const leaf = findLeaf(certificates, expected.key, damaged);
    const leafWarnings = checkLeaf(leaf, expected.id);
    const others = certificates.filter((each) => each !== leaf);
    const checker = new SignatureChecker();
    const roots = readRoots(trust);
    const verified = verifyChain(leaf, others, roots, now, { checker });
    const chain = servedChain(verified, others, roots, now, checker);
    const warnings = [
      ...leafWarnings,
      ...timeWarnings(leaf, verified, expected.maxTtlMs, now),
      ...strangerWarnings(others, chain, now),
      ...usageWarnings(chain.slice(1)),
      ...damaged.map((error) => `the reply holds a damaged certificate: ${error.message}`),
      ...bundleWarnings(trust),
    ];
    const { id, key, source } = expected;
    return {
      ...times(leaf, verified.notAfterAt, now),
      id,
      key,
      source,
      chainDer: chain.map(({ der }) => der),
      bundle: trust,
      warnings,
    };
  });
}

const times = (leaf: Certificate, notAfterAt: number, receivedAt: number) => ({
  serial: leaf.serial,
  notBeforeAt: leaf.notBeforeAt,
  notAfterAt,
  receivedAt,
});

function readReply(certificatesDer: readonly Uint8Array[]): {
  certificates: Certificate[];
  damaged: AgentError[];
} {
  if (certificatesDer.length === 0) throw refuse('reply', 'must hold at least one certificate');
  if (certificatesDer.length > MAX_REPLY_CERTIFICATES)
    throw refuse('reply', `must not hold more than ${MAX_REPLY_CERTIFICATES} certificates`);
  const bytes = certificatesDer.reduce((sum, der) => sum + der.length, 0);
  if (bytes > MAX_REPLY_BYTES)
    throw refuse('reply', `must not be longer than ${MAX_REPLY_BYTES} bytes`);
  const certificates = new Map<string, Certificate>();
  const damaged: AgentError[] = [];
  certificatesDer.forEach((der, index) => {
    try {
      const certificate = parseCertificate(
        der,
        index === 0 ? 'leaf' : `reply certificate ${index + 1}`,
      );
      certificates.set(certificate.sha256, certificate);
    } catch (error) {
      damaged.push(AgentError.from(error));
    }
  });
  return { certificates: [...certificates.values()], damaged };
}

function findLeaf(
  certificates: readonly Certificate[],
  key: KeyPair,
  damaged: readonly AgentError[],
): Certificate {
  const ours = certificates.filter(
    ({ publicKey }) => Buffer.compare(publicKey.spkiDer, key.spkiDer) === 0,
  );
  if (ours.length > 1) throw refuse('reply', 'must hold only one certificate for our key');
  if (ours[0]) return ours[0];
  if (damaged[0]) throw damaged[0];
  throw refuse('leaf', 'must be for the key of the request');
}

function readRoots(trust: TrustBundle): Certificate[] {
  return trust.rootsDer.map((der) => parseCertificate(der, 'root'));
}

/**
 * What goes to peers: the verified path, and behind it what else of the reply its members hang on, such as an intermediate that is
 * cross-signed by a root which only some peers trust yet. Never a root.
 */
function servedChain(
  verified: VerifiedChain,
  others: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
  checker: SignatureChecker,
): Certificate[] {
  const chain = [...verified.path];
  // A root of ours by name and key is one whatever became of its signature: a damaged copy is of use to nobody. Unless it names another
  // key as its issuer's: then it is cross-signed by a root of the same name, which only some peers may know.
  const isRoot = (each: Certificate) =>
    isSelfIssued(each) &&
    ((!namesAnotherKey(each) && roots.some((root) => sameSubjectAndKey(root, each))) ||
      isSelfSigned(each, checker));
  // The list grows while it is walked: issuers of issuers follow.
  for (const member of chain) {
    for (const each of others) {
      const related =
        namesAsIssuer(member, each) && isCa(each) && standingObstacle(each, now) === undefined;
      if (
        related &&
        !chain.includes(each) &&
        !isRoot(each) &&
        checker.isSurelySignedBy(member, each)
      )
        chain.push(each);
    }
  }
  return chain;
}

function namesAnotherKey({ authorityKeyId, subjectKeyId }: Certificate): boolean {
  return (
    authorityKeyId !== undefined &&
    subjectKeyId !== undefined &&
    Buffer.compare(authorityKeyId, subjectKeyId) !== 0
  );
}

function strangerWarnings(
  others: readonly Certificate[],
  chain: readonly Certificate[],
  now: number,
): string[] {
  return others
    .filter((each) => !chain.includes(each) && !isSelfIssued(each) && each.notAfterAt > now)
    .map(
      ({ subject, sha256 }) =>
        `the reply holds a certificate outside the chain of the leaf: ${subject || sha256}`,
    );
}

function timeWarnings(
  leaf: Certificate,
  verified: VerifiedChain,
  maxTtlMs: number | undefined,
  now: number,
): string[] {
  const ttlMs = leaf.notAfterAt - leaf.notBeforeAt;
  return [
    ...beginWarnings(leaf, now),
    ...(maxTtlMs !== undefined && ttlMs > maxTtlMs
      ? [`the leaf lives for ${formatDuration(ttlMs)}, longer than ${formatDuration(maxTtlMs)}`]
      : []),
    ...endWarnings(leaf, verified.notAfterAt),
  ];
}

function beginWarnings(leaf: Certificate, now: number): string[] {
  return leaf.notBeforeAt > now
    ? [`${NOT_BEGUN} ${iso(leaf.notBeforeAt)}: the clock here is behind the CA's`]
    : [];
}

function endWarnings(leaf: Certificate, notAfterAt: number): string[] {
  return notAfterAt < leaf.notAfterAt ? [`${OUTLIVES}, which ends at ${iso(notAfterAt)}`] : [];
}

/** Beginnings of the warnings that rest on the moment and on the path that was found. */
const NOT_BEGUN = 'the leaf is not valid before';
const OUTLIVES = 'the leaf outlives what signed it';
const NO_PATH = 'the certificate does not verify to root-cert';
const isPathWarning = (warning: string) =>
  [NOT_BEGUN, OUTLIVES, NO_PATH].some((each) => warning.startsWith(each));

function bundleWarnings(trust: TrustBundle): string[] {
  const count = trust.rootsDer.length;
  const many =
    count > MANY_ROOTS
      ? [
          `the trust bundle holds ${count} roots: with more than ${MANY_ROOTS} some verifiers give up`,
        ]
      : [];
  return [...many, ...rootWarnings(trust)];
}

/** What others mount, as PEM. Where one file holds both key and certificates, `keyPem` and `certChainPem` are the same bytes. */
export interface MountedFiles {
  readonly certChainPem: Uint8Array;
  readonly keyPem: Uint8Array;
  readonly rootCertPem: Uint8Array;
}

/**
 * Judges mounted certificate files, as upstream does and a little more: the key belongs to the first certificate, which is valid now and
 * not a CA. It need not verify to root-cert: files may be for another's trust; then it is accepted with a warning.
 *
 * @param expectedId  The identity that the certificate must carry, where one is set. Else its one SPIFFE ID is read, if it has one.
 * @param rootTrustDomains  Other trust domains than that of the identity whose roots may be in root-cert.
 * @throws            AgentError ERR_FILE_SOURCE (retry slow) with `field` (`cert-chain`, `key`, `root-cert`) and `rule`.
 */
export function acceptMountedFiles(
  files: MountedFiles,
  expectedId: SpiffeId | undefined,
  now: number,
  rootTrustDomains: readonly string[] = [],
): Svid {
  return translated('ERR_FILE_SOURCE', 'accept certificate files', () => {
    const { certChainPem, keyPem } =
      files.keyPem === files.certChainPem ? splitCredentialBundle(files.keyPem) : files;
    const [leaf, ...others] = parseCertificates(certChainPem, 'cert-chain') as [
      Certificate,
      ...Certificate[],
    ];
    const key = readPrivateKey(keyPem, 'key');
    if (Buffer.compare(key.spkiDer, leaf.publicKey.spkiDer) !== 0)
      throw refuse('key', 'must belong to the first certificate of cert-chain');
    checkNotCa(leaf);
    const obstacle = standingObstacle(leaf, now);
    if (obstacle !== undefined) throw refuse('leaf', obstacle);
    const id = readIdentity(leaf, expectedId);
    const domains = id && new Set([id.trustDomain, ...rootTrustDomains]);
    const { bundle, skipped } = parseRootBundle(files.rootCertPem, 'root-cert', domains);
    const seen = new Set([leaf.sha256]);
    const checker = new SignatureChecker();
    const rest = others.filter(
      (each) => !isSelfSigned(each, checker) && !seen.has(each.sha256) && seen.add(each.sha256),
    );
    const { notAfterAt, warnings } = mountedPath(leaf, rest, bundle, now);
    return {
      ...times(leaf, notAfterAt, now),
      id,
      key,
      source: 'file',
      chainDer: [leaf, ...rest].map(({ der }) => der),
      bundle,
      warnings: [
        ...(id === undefined ? ['the certificate does not have exactly one SPIFFE ID'] : []),
        ...warnings,
        ...usageWarnings(rest),
        ...skipped.map((reason) => `skipped: ${reason}`),
        ...bundleWarnings(bundle),
      ],
    };
  });
}

/**
 * Validates an SVID in service again, after a change of the bundle or of a date that its path rested on: another path may be the one that
 * ends last now.
 *
 * @returns The same certificate with `bundle` and the end that it has by it. A mounted one need not verify, as at `acceptMountedFiles`.
 * @throws  AgentError ERR_CA_RESPONSE (retry slow) where no path of an issued one holds any more.
 */
export function revalidateSvid(svid: Svid, bundle: TrustBundle, now: number): Svid {
  return translated('ERR_CA_RESPONSE', `validate certificate from ${svid.source} again`, () => {
    const [leaf, ...rest] = svid.chainDer.map((der) => parseCertificate(der)) as [
      Certificate,
      ...Certificate[],
    ];
    const { notAfterAt, warnings } =
      svid.source === 'file'
        ? mountedPath(leaf, rest, bundle, now)
        : issuedPath(leaf, rest, bundle, now);
    const lasting = svid.warnings.filter((each) => !isPathWarning(each));
    return { ...svid, bundle, notAfterAt, warnings: [...lasting, ...warnings] };
  });
}

function issuedPath(
  leaf: Certificate,
  rest: readonly Certificate[],
  bundle: TrustBundle,
  now: number,
) {
  const { notAfterAt } = verifyChain(leaf, rest, readRoots(bundle), now);
  return { notAfterAt, warnings: endWarnings(leaf, notAfterAt) };
}

/** The expiry of the path to root-cert, or where there is none of the leaf alone, and a warning. */
function mountedPath(
  leaf: Certificate,
  rest: readonly Certificate[],
  bundle: TrustBundle,
  now: number,
) {
  try {
    const { notAfterAt } = verifyChain(leaf, rest, readRoots(bundle), now);
    return {
      notAfterAt,
      warnings: [...beginWarnings(leaf, now), ...endWarnings(leaf, notAfterAt)],
    };
  } catch (error) {
    return { notAfterAt: leaf.notAfterAt, warnings: [`${NO_PATH}: ${errorText(error)}`] };
  }
}

const HINTS: Readonly<Record<string, string>> = {
  ERR_CA_RESPONSE:
    'compare the trust bundle (root-cert.pem), the issuing policy and the clock of the CA with those here',
  ERR_FILE_SOURCE:
    'replace the files together: key and cert-chain of one certificate, and the root that verifies peers',
};

/** Names the act and the code of what the readers and the chain refuse, which know neither. */
function translated<T>(code: ErrorCode, what: string, work: () => T): T {
  try {
    return work();
  } catch (caught) {
    const { message, field, rule } = AgentError.from(caught);
    const details = { ...(field !== undefined && { field }), ...(rule !== undefined && { rule }) };
    throw new AgentError(code, `${what}: ${message}`, {
      retry: 'slow',
      hint: HINTS[code]!,
      cause: caught,
      ...details,
    });
  }
}

function refuse(field: string, rule: string) {
  return invalid('ERR_PARSE', field, rule);
}
