import { TAG } from '../base/der';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { readPemSteps } from '../base/pem';
import { inTurns } from '../base/steps';
import { type Certificate, isCa, parseCertificate } from './certificate';
import { SKEW_TOLERANCE_MS, verifyChainAside } from './chain';
import {
  type Crl,
  type CrlSet,
  couldBeCrlOf,
  crlSetSteps,
  MAX_CRL_FILE_BYTES,
  readCrlSteps,
  rememberSignature,
} from './crl';
import { SignatureChecker } from './signature-checker';
import type { TrustBundle } from './trust-bundle';

/** Lists and certificates of one place. */
const MAX_BLOCKS = 64;
/**
 * What one place of lists may cost, in signatures of P-256: 150 ms in threads of the pool. A list of 8 MiB counts as 200, a certificate beside
 * it as its key is dear.
 */
const BUDGET = 2_048;

/** Whose lists count. */
export interface CrlSigners {
  readonly bundle: TrustBundle;
  /** The certificates that are served above our leaf: its issuers, DER. */
  readonly chainDer: readonly Uint8Array[];
}

/** What a file of lists comes to. */
export interface AcceptedCrls {
  readonly set: CrlSet;
  /** Lists that do not count, each with its rule. */
  readonly skipped: readonly string[];
  /** Those of them that have an extension which no list may have here: somebody has to act. */
  readonly unusable: readonly string[];
}

/**
 * Validates a file of lists: PEM with certificates of their signers beside them, or one list as DER. A list counts where its signer is a root
 * of the bundle, or verifies to one and is served with our leaf or stands in the file. Others are passed over with their reason, each for
 * itself: while roots are being replaced there are lists of signers that not every agent knows yet.
 *
 * Where it comes from is not trusted, so it stops nobody: it is read some milliseconds at a time, signatures are verified in threads of the
 * pool, those by roots first, all of them within one budget.
 *
 * @param now    Epoch milliseconds; what was made later, or has had its day, does not count.
 * @param inUse  What passed before: a list is not replaced by an older one of the same signer, since replicas of a CA make theirs at
 *               different times, and who can replay an old list could take a revocation back. Nor by one of the same signer that is refused.
 * @throws     AgentError ERR_PARSE with field and rule where none counts.
 */
export async function acceptCrls(
  bytes: Uint8Array,
  field: string,
  signers: CrlSigners,
  now: number,
  inUse?: CrlSet,
): Promise<AcceptedCrls> {
  const { listsDer, certificatesDer } = await readBlocks(bytes, field);
  const issuers = new Issuers(signers, certificatesDer, field, now);
  const outcomes: CrlOutcome[] = [];
  for (const der of listsDer) outcomes.push(await acceptCrl(der, field, issuers, now, inUse));
  const refused = outcomes.flatMap(({ refusal }) => refusal ?? []);
  if (refused.length === outcomes.length)
    throw refused[0] ?? invalid('ERR_PARSE', field, 'must hold a certificate revocation list');
  const lists = new Set(outcomes.flatMap(({ list }) => list ?? []));
  const messages = (of: readonly CrlOutcome[]) =>
    of.flatMap(({ refusal }) => refusal?.message ?? []);
  return {
    set: await inTurns(crlSetSteps([...lists])),
    skipped: messages(outcomes),
    unusable: messages(outcomes.filter(({ isUnusable }) => isUnusable)),
  };
}

/** Those who may have signed a list. */
class Issuers {
  readonly #roots: readonly Certificate[];
  readonly #pool: readonly Certificate[];
  readonly #checker = new SignatureChecker(BUDGET);

  /** @throws AgentError ERR_PARSE for a certificate of the file that is malformed. */
  constructor(
    { bundle, chainDer }: CrlSigners,
    beside: readonly Uint8Array[],
    field: string,
    private readonly now: number,
  ) {
    this.#roots = bundle.rootsDer.map((der) => parseCertificate(der));
    this.#pool = [...chainDer, ...beside].map((der) => parseCertificate(der, field)).filter(isCa);
  }

  /** @throws AgentError ERR_PARSE when the budget is used up. */
  async haveSigned(crl: Crl): Promise<boolean> {
    for (const root of this.#roots) if (await this.#hasSigned(root, crl)) return true;
    for (const each of this.#pool)
      if (
        couldBeCrlOf(crl, each) &&
        (await this.#verifies(each)) &&
        (await this.#hasSigned(each, crl))
      )
        return true;
    return false;
  }

  async #hasSigned(issuer: Certificate, crl: Crl): Promise<boolean> {
    if (!couldBeCrlOf(crl, issuer)) return false;
    await this.#checker.checkAside(crl, issuer);
    const answer = this.#checker.isSignedBy(crl, issuer);
    rememberSignature(crl, issuer, answer);
    return answer;
  }

  async #verifies(certificate: Certificate): Promise<boolean> {
    try {
      await verifyChainAside(certificate, this.#pool, this.#roots, this.now, {
        checker: this.#checker,
      });
      return true;
    } catch {
      return false;
    }
  }
}

interface CrlOutcome {
  readonly list: Crl | undefined;
  readonly refusal?: AgentError;
  readonly isUnusable?: boolean;
}

/** The list, or one of the same signer that is in use: where that is newer, or this one is refused. */
async function acceptCrl(
  der: Uint8Array,
  field: string,
  issuers: Issuers,
  now: number,
  inUse: CrlSet | undefined,
): Promise<CrlOutcome> {
  let crl: Awaited<ReturnType<typeof readCrl>>;
  try {
    crl = await readCrl(der, field);
  } catch (caught) {
    return { list: undefined, refusal: AgentError.from(caught), isUnusable: true };
  }
  const { refusal, ...list } = crl;
  const known = inUse?.lists.find((each) => isSameIssuer(each, list));
  const refuse = (rule: string) => ({
    list: known,
    refusal: invalid(
      'ERR_PARSE',
      `${field}: list of ${list.issuer || 'an issuer without a name'}`,
      rule,
    ),
  });
  try {
    if (!(await issuers.haveSigned(list)))
      return refuse('must be signed by a CA of the trust bundle or of the served chain');
  } catch (caught) {
    const { rule, message } = AgentError.from(caught);
    return refuse(rule ?? message);
  }
  if (refusal) return { ...refuse(refusal.rule ?? refusal.message), isUnusable: true };
  if (list.thisUpdateAt > now + SKEW_TOLERANCE_MS)
    return refuse(`must not be of the future: its thisUpdate is ${iso(list.thisUpdateAt)}`);
  if (list.nextUpdateAt <= now)
    return refuse(`must not be out of date: its next update was due at ${iso(list.nextUpdateAt)}`);
  return { list: known && known.thisUpdateAt > list.thisUpdateAt ? known : list };
}

const readCrl = (der: Uint8Array, field: string) => inTurns(readCrlSteps(der, field));

async function readBlocks(
  bytes: Uint8Array,
  field: string,
): Promise<{ listsDer: Uint8Array[]; certificatesDer: Uint8Array[] }> {
  if (bytes[0] === TAG.sequence) return { listsDer: [bytes], certificatesDer: [] };
  const blocks = await inTurns(
    readPemSteps(bytes, field, { maxBytes: MAX_CRL_FILE_BYTES, maxBlocks: MAX_BLOCKS }),
  );
  const foreign = blocks.find(({ label }) => label !== 'X509 CRL' && label !== 'CERTIFICATE');
  if (foreign) {
    for (const { der } of blocks) der.fill(0);
    throw invalid(
      'ERR_PARSE',
      field,
      `must hold X509 CRL and CERTIFICATE only, not ${foreign.label}`,
    );
  }
  const labelled = (wanted: string) =>
    blocks.filter(({ label }) => label === wanted).map(({ der }) => der);
  return { listsDer: labelled('X509 CRL'), certificatesDer: labelled('CERTIFICATE') };
}

function isSameIssuer(one: Crl, other: Crl): boolean {
  const keyId = (crl: Crl) => crl.authorityKeyId ?? new Uint8Array(0);
  return (
    Buffer.compare(one.issuerDer, other.issuerDer) === 0 &&
    Buffer.compare(keyId(one), keyId(other)) === 0
  );
}
