import { createHash } from 'node:crypto';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import {
  type Certificate,
  isCa,
  lacksKeyCertSign,
  parseCertificate,
  parseCertificates,
  parseRootBundle,
  uriNames,
} from '../identity/certificate';
import { isSelfSigned, type VerifiedChain, verifyChain } from '../identity/chain';
import type { CertificateEngine } from '../identity/engine';
import { type KeyPair, readPrivateKey } from '../identity/keys';
import { keyIdentifier } from '../identity/public-key';
import { SignatureChecker } from '../identity/signature-checker';
import type { TrustBundle } from '../identity/trust-bundle';
import { isValidAt } from '../identity/valid-now';
import { probeSpec, type SignerFacts } from './certificate-specs';
import { CA_FILES, type CaFiles, caFilePath } from './directory/ca-files';

/** A signer that passed every check, with all that a certificate of its needs: one value, replaced as one. */
export interface Issuer extends SignerFacts {
  readonly key: KeyPair;
  /** The signer's name, for people. */
  readonly subject: string;
  /** What follows the leaf in a reply: the signer and those above it, never a root. Empty where the signer is a root. */
  readonly chainDer: readonly Uint8Array[];
  readonly bundle: TrustBundle;
  /** The key of the root that it leads to: SHA-256 over the SubjectPublicKeyInfo, lower-case hex. */
  readonly rootKeySha256: string;
  /** When a path could become another: the one of now ends, or a certificate of the directory begins. Epoch milliseconds. */
  readonly changesAt: number;
  /** Equal versions sign alike: SHA-256 over the signer and its chain, hex. */
  readonly version: string;
}

/** Of which trust domains signer and roots may be. */
export interface IssuerDomains {
  readonly trustDomain: string;
  /** Other trust domains whose roots may stand in root-cert.pem. */
  readonly rootTrustDomains?: readonly string[] | undefined;
}

/**
 * Judges the files of a CA directory: the key belongs to the certificate, which may sign certificates, is of our trust domain where it
 * names one, and leads to a root in root-cert.pem, all valid now. The proof is a leaf: one is signed and its path verified as a peer
 * would, so path lengths, name constraints and purposes above count as well. It certifies the signer's own key and goes nowhere.
 *
 * Every block of root-cert.pem must be good: what this directory says is what a whole mesh trusts, so a damaged root is not passed over.
 *
 * @param now  Epoch milliseconds.
 * @throws     AgentError ERR_CA_STATE with `field` (the file, or the certificate in the path) and `rule`.
 */
export async function acceptIssuer(
  files: CaFiles,
  domains: IssuerDomains,
  engine: CertificateEngine,
  now: number,
): Promise<Issuer> {
  const { trustDomain, rootTrustDomains = [] } = domains;
  let signer: Certificate | undefined;
  try {
    const key = readPrivateKey(files.keyPem.reveal(), CA_FILES.key);
    signer = readSigner(files.certPem);
    assertSigner(signer, key, trustDomain);
    const above =
      files.chainPem.length === 0 ? [] : parseCertificates(files.chainPem, CA_FILES.chain);
    const { bundle, skipped } = parseRootBundle(
      files.rootPem,
      CA_FILES.root,
      new Set([trustDomain, ...rootTrustDomains]),
    );
    if (skipped.length > 0)
      throw refused(CA_FILES.root, `must hold good CA certificates only: ${skipped[0]}`);
    const keyId = signer.subjectKeyId ?? keyIdentifier(key.spkiDer);
    const probeDer = await engine.createCertificate(
      probeSpec(signer, keyId, trustDomain, now),
      key,
    );
    const roots = bundle.rootsDer.map((der) => parseCertificate(der));
    const chain = longestPath(parseCertificate(probeDer), [signer, ...above], roots, now);
    const begins = [signer, ...above, ...roots]
      .map(({ notBeforeAt }) => notBeforeAt)
      .filter((at) => at > now);
    const changesAt = begins.reduce((first, at) => Math.min(first, at), chain.notAfterAt);
    return {
      ...describeChain(chain, signer, above, bundle),
      changesAt,
      key,
      subject: signer.subject,
      subjectDer: signer.subjectDer,
      keyId,
      bundle,
    };
  } catch (caught) {
    throw stateError(files.dir, caught, signer && wrongClockHint(files.dir, signer, now));
  } finally {
    files.keyPem.reveal().fill(0);
  }
}

/** Of what is valid at that very moment, as peers see it; what begins within the tolerance of clocks counts only where nothing else leads on. */
function longestPath(
  leaf: Certificate,
  pool: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
): VerifiedChain {
  const rules = { keyCertSignRequired: true };
  const valid = (all: readonly Certificate[]) => all.filter((each) => isValidAt(each, now));
  try {
    return verifyChain(leaf, valid(pool), valid(roots), now, rules);
  } catch {
    return verifyChain(leaf, pool, roots, now, rules);
  }
}

function describeChain(
  chain: VerifiedChain,
  signer: Certificate,
  above: readonly Certificate[],
  bundle: TrustBundle,
) {
  const chainDer = servedChain(chain, [signer, ...above], bundle).map(({ der }) => der);
  const hash = createHash('sha256').update(signer.der);
  for (const der of chainDer) hash.update(der);
  const validity = [...chain.path.slice(1), chain.root];
  return {
    chainDer,
    notBeforeAt: Math.max(...validity.map(({ notBeforeAt }) => notBeforeAt)),
    notAfterAt: Math.min(...validity.map(({ notAfterAt }) => notAfterAt)),
    rootKeySha256: createHash('sha256').update(chain.root.publicKey.spkiDer).digest('hex'),
    version: hash.digest('hex'),
  };
}

/**
 * The verified path above the leaf, and behind it what else of cert-chain.pem it hangs on: a signer that is cross-signed by a root which
 * some peers do not know otherwise. Strangers stay out, such as the last signer while the files are being replaced one by one.
 */
function servedChain(
  chain: VerifiedChain,
  pool: readonly Certificate[],
  bundle: TrustBundle,
): Certificate[] {
  const checker = new SignatureChecker();
  // Signed by its own key, not just of one name: roots of one trust domain share their name, and so does one that another cross-signed.
  const isRoot = (each: Certificate) =>
    inBundle(bundle, each) || checker.isSurelySignedBy(each, each);
  const served = new Map(chain.path.map((each) => [each.sha256, each]));
  // The map grows while it is walked: issuers of issuers follow.
  for (const member of served.values()) {
    for (const each of pool) {
      const issues =
        Buffer.compare(each.subjectDer, member.issuerDer) === 0 &&
        isCa(each) &&
        checker.isSurelySignedBy(member, each);
      if (issues && !isRoot(each)) served.set(each.sha256, each);
    }
  }
  return [...served.values()].slice(1).filter((each) => !inBundle(bundle, each));
}

function inBundle(bundle: TrustBundle, certificate: Certificate): boolean {
  return bundle.rootsDer.some((root) => Buffer.compare(root, certificate.der) === 0);
}

function readSigner(certPem: Uint8Array): Certificate {
  const [signer, ...more] = parseCertificates(certPem, CA_FILES.cert);
  if (more.length > 0)
    throw refused(
      CA_FILES.cert,
      `must hold one certificate; those above it belong in ${CA_FILES.chain}`,
    );
  return signer!;
}

function assertSigner(signer: Certificate, key: KeyPair, trustDomain: string): void {
  if (Buffer.compare(signer.publicKey.spkiDer, key.spkiDer) !== 0)
    throw refused(CA_FILES.key, `must be the key of ${CA_FILES.cert}`);
  if (signer.basicConstraints?.ca !== true)
    throw refused(CA_FILES.cert, 'must be a CA certificate (basicConstraints CA:TRUE)');
  if (lacksKeyCertSign(signer) || !isCa(signer))
    throw refused(CA_FILES.cert, 'must have the key usage keyCertSign');
  for (const uri of uriNames(signer)) {
    const named = /^spiffe:\/\/([^/]*)/i.exec(uri)?.[1];
    if (named !== undefined && named !== trustDomain) {
      throw refused(
        CA_FILES.cert,
        `must be of trust domain ${trustDomain}, not ${named}`,
        'set --trust-domain to that of the CA, or plug in another',
      );
    }
  }
}

function refused(field: string, rule: string, hint?: string): AgentError {
  return invalid('ERR_CA_STATE', field, rule, hint === undefined ? {} : { hint });
}

/** A self-signed CA outside its time was most often made, or is looked at, while a clock was wrong. */
function wrongClockHint(dir: string, signer: Certificate, now: number): string | undefined {
  const [begins, ended] = [now < signer.notBeforeAt, now > signer.notAfterAt];
  if ((!begins && !ended) || !isSelfSigned(signer)) return undefined;
  const [shown, made] = [now, signer.notBeforeAt].map((at) => iso(at));
  const anew = `move ${dir} away, start again, which creates another CA, and replace every copy of its root`;
  if (ended)
    return `it was created when the clock showed ${made}; if that was wrong, or it has expired, ${anew}`;
  return `it was created when the clock showed ${made}, and now it shows ${shown}: set the clock; if it was wrong then, ${anew}`;
}

function stateError(dir: string, caught: unknown, hint: string | undefined): AgentError {
  const error = AgentError.from(caught);
  if (error.code === 'ERR_BUG') return error;
  const rule =
    error.rule === undefined || error.message.includes(error.rule) ? '' : `, and it ${error.rule}`;
  return new AgentError('ERR_CA_STATE', `open CA directory ${dir}: ${error.message}${rule}`, {
    cause: error,
    ...(error.field !== undefined && { field: error.field }),
    ...(error.rule !== undefined && { rule: error.rule }),
    hint:
      error.hint ??
      hint ??
      `inspect the files with: openssl x509 -noout -text -in ${caFilePath(dir, 'cert')}`,
  });
}
