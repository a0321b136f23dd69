import { iso } from '../base/iso';
import type { Certificate } from './certificate';
import { keyIdsAgree } from './chain';
import { type Crl, isCrlOf } from './crl';
import { isListed } from './crl-entries';
import { PURPOSE } from './extensions';
import { comparableName } from './name';
import { extensionObstacle, unreadableForProxy } from './proxy-extensions';
import { SignatureChecker } from './signature-checker';

/** What a proxy is to be sent, in its order: a leaf with its chain, or none where only trust is known; roots; lists where revocation counts. */
export interface ProxySet {
  readonly chain: readonly Certificate[];
  readonly roots: readonly Certificate[];
  readonly lists: readonly Crl[] | undefined;
}

/** Why Envoy would refuse every peer with a set. */
export interface ProxyObstacle {
  /**
   * `names`: more CA names than a handshake carries. `path`: our own leaf does not verify as Envoy walks. `lists`: no usable list for our
   * leaf. `revoked`: a list names our leaf.
   */
  readonly kind: 'names' | 'path' | 'lists' | 'revoked';
  readonly field: string;
  readonly rule: string;
}

/** TLS carries 65,535 bytes of a CertificateRequest: the names of all roots, two bytes of length for each, and in TLS 1.3 some 100 bytes more. */
export const MAX_NAMES_BYTES = 65_400;
/** Envoy's bound on a path, leaf and root aside. */
const MAX_DEPTH = 100;

/**
 * Whether an Envoy that is sent this set would take the handshake of a peer that shows our own leaf, as client and as server; undefined where
 * it would. Envoy verifies with BoringSSL, which differs from OpenSSL and from RFC 5280's search: at each step it takes the first certificate
 * of the issuer's name and key identifier, from the roots before the chain, and never goes back. Dates, keys, signatures and
 * policies are checked afterwards. So a dead root before its living self refuses everybody. `test/contract/envoy-verdict.test.ts` holds this to a real Envoy.
 *
 * @param now  Epoch milliseconds.
 * @see BoringSSL crypto/x509/x509_vfy.cc, X509_verify_cert; Envoy source/common/tls/cert_validator/default_validator.cc.
 */
export function proxyObstacle(
  { chain, roots, lists }: ProxySet,
  now: number,
): ProxyObstacle | undefined {
  const names = namesObstacle(roots);
  if (names !== undefined) return names;
  const [leaf, ...others] = chain;
  if (leaf === undefined) return undefined;
  const found = walk(leaf, others, roots);
  const { path } = found;
  return (
    pathObstacle(found, now) ?? (lists === undefined ? undefined : listsObstacle(lists, path, now))
  );
}

/** How many of these roots, in their order, one handshake can name. */
export function rootsThatFit(roots: readonly Certificate[]): number {
  const seen = new Set<string>();
  let bytes = 0;
  for (const [index, { subjectDer }] of roots.entries()) {
    const name = Buffer.from(subjectDer).toString('latin1');
    if (!seen.has(name)) bytes += subjectDer.length + 2;
    seen.add(name);
    if (bytes > MAX_NAMES_BYTES) return index;
  }
  return roots.length;
}

function namesObstacle(roots: readonly Certificate[]): ProxyObstacle | undefined {
  const fit = rootsThatFit(roots);
  if (fit === roots.length) return undefined;
  const rule = `must not hold ${roots.length} roots: no TLS handshake carries more than ${MAX_NAMES_BYTES} bytes of their names; ${fit} work`;
  return { kind: 'names', field: 'trust bundle', rule };
}

interface Walk {
  readonly path: readonly Certificate[];
  /** How many of its end come from the roots. */
  readonly trusted: number;
  /** What would be the next of it, but for what is wrong with it. */
  readonly passedOver: Certificate | undefined;
}

function walk(
  leaf: Certificate,
  others: readonly Certificate[],
  roots: readonly Certificate[],
): Walk {
  const path = [leaf];
  const rest = [...others];
  const last = () => path.at(-1)!;
  const find = (pool: readonly Certificate[]) =>
    pool.find((each) => mayIssue(each, last()) && unreadableForProxy(each) === undefined);
  while (path.length <= MAX_DEPTH && !isOwnIssuer(last()) && !find(roots)) {
    const next = find(rest);
    if (!next) break;
    rest.splice(rest.indexOf(next), 1);
    path.push(next);
  }
  const untrusted = path.length;
  while (path.length <= MAX_DEPTH && !isOwnIssuer(last())) {
    const root = find(roots);
    if (!root || path.includes(root)) break;
    path.push(root);
  }
  return {
    path,
    trusted: path.length - untrusted,
    passedOver: [...roots, ...rest].find((each) => mayIssue(each, last())),
  };
}

function mayIssue(issuer: Certificate, certificate: Certificate): boolean {
  const { authoritySerial } = certificate;
  if (authoritySerial !== undefined && authoritySerial !== issuer.serial) return false;
  if (
    !isSameName(certificate.issuerDer, issuer.subjectDer) ||
    keyIdsAgree(certificate, issuer) === false
  )
    return false;
  return issuer.keyUsage?.usages.includes('keyCertSign') ?? true;
}

function isSameName(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0 || comparableName(one) === comparableName(other);
}

function isOwnIssuer(certificate: Certificate): boolean {
  return mayIssue(certificate, certificate);
}

function pathObstacle({ path, trusted, passedOver }: Walk, now: number): ProxyObstacle | undefined {
  const refuse = (field: string, rule: string) => ({ kind: 'path', field, rule }) as const;
  const end = path.at(-1)!;
  if (trusted === 0) {
    const unreadable = passedOver && unreadableForProxy(passedOver);
    if (unreadable !== undefined) return refuse(nameOf(passedOver!), unreadable);
    return refuse(
      'chain',
      `must lead to a root that is served: none of them issued ${nameOf(end)}`,
    );
  }
  const checker = new SignatureChecker();
  for (const [index, each] of path.entries()) {
    const field = index === 0 ? 'leaf' : nameOf(each);
    if (now < each.notBeforeAt)
      return refuse(field, `must be valid now: it begins at ${iso(each.notBeforeAt)}`);
    if (now >= each.notAfterAt)
      return refuse(field, `must not be expired: it ended at ${iso(each.notAfterAt)}`);
    if (index > 0 && each.basicConstraints?.ca !== true) return refuse(field, 'must be a CA');
    const below = path.slice(1, index).filter((between) => !isSelfNamed(between)).length;
    const limit = each.basicConstraints?.pathLength;
    if (index > 1 && !isSelfNamed(each) && limit !== undefined && below > limit) {
      return refuse(field, `must not have more than ${limit} intermediates below it`);
    }
    if (index < path.length - trusted && isForOtherPurposes(each)) {
      return refuse(field, 'must name serverAuth and clientAuth where it has extended key usages');
    }
    const rule = extensionObstacle(each, index, each === end);
    if (rule !== undefined) return refuse(field, rule);
    const issuer = path[index + 1];
    if (issuer && !checker.isSignedBy(each, issuer))
      return refuse(
        field,
        `must be signed by the first certificate that is named ${nameOf(issuer)}`,
      );
  }
  return undefined;
}

const isSelfNamed = ({ subjectDer, issuerDer }: Certificate) => isSameName(subjectDer, issuerDer);

/** Envoy knows no `any`. */
function isForOtherPurposes({ extendedKeyUsage }: Certificate): boolean {
  if (extendedKeyUsage === undefined) return false;
  return (
    !extendedKeyUsage.includes(PURPOSE.serverAuth) || !extendedKeyUsage.includes(PURPOSE.clientAuth)
  );
}

/** Only the leaf's issuer needs a list (`only_verify_leaf_cert_crl`). Of several the newest counts, whether its signature holds or not. */
function listsObstacle(
  lists: readonly Crl[],
  path: readonly Certificate[],
  now: number,
): ProxyObstacle | undefined {
  const [leaf, issuer] = path as [Certificate, Certificate];
  const whose = `the issuer of our certificate, ${nameOf(issuer)},`;
  const refuse = (rule: string) => ({ kind: 'lists', field: 'revocation lists', rule }) as const;
  const named = lists.filter((each) => isListNamed(each, issuer));
  const current = named.filter((each) => each.thisUpdateAt <= now && now < each.nextUpdateAt);
  const [newest] = current.sort((a, b) => b.thisUpdateAt - a.thisUpdateAt);
  if (!newest) {
    const of = named.length === 0 ? 'hold a list of' : 'hold a list that is valid now of';
    return refuse(`must ${of} ${whose} or Envoy refuses every peer`);
  }
  if (!isCrlOf(newest, issuer))
    return refuse(`must hold a list that is signed by ${whose} or Envoy refuses every peer`);
  if (!isListed(newest.revoked, leaf.serial)) return undefined;
  return {
    kind: 'revoked',
    field: 'leaf',
    rule: `must not be revoked: the list of ${nameOf(issuer)} names ${leaf.serial}`,
  };
}

function isListNamed(
  { issuerDer, authorityKeyId, authoritySerial }: Crl,
  { subjectDer, subjectKeyId, serial }: Certificate,
): boolean {
  if (authoritySerial !== undefined && authoritySerial !== serial) return false;
  if (!isSameName(issuerDer, subjectDer)) return false;
  return !authorityKeyId || !subjectKeyId || Buffer.compare(authorityKeyId, subjectKeyId) === 0;
}

const nameOf = ({ subject, sha256 }: Certificate) =>
  subject === '' ? sha256.slice(0, 16) : `"${subject.slice(0, 200)}"`;
