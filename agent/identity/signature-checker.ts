import type { KeyObject } from 'node:crypto';
import { type AgentError, invalid } from '../base/errors';
import type { Certificate } from './certificate';
import { createKeyObject, type PublicKey } from './public-key';
import { isSignatureValid, isSignatureValidAside } from './signature';

/** In signatures of P-256, some 0.07 ms each. One path needs at most 7; the rest is for roots and intermediates that share a name. */
const BUDGET = 256;

/** A certificate, or a list of revoked ones: what was signed, and the signature. */
export type Signed = Pick<Certificate, 'tbsDer' | 'signatureAlgorithm' | 'signature'>;

/**
 * Verifies signatures within a budget, so that no set of certificates makes us work for long, and remembers their outcome. A signature
 * costs what its key and the size of what was signed make it cost: one of P-521 as much as twenty of P-256.
 */
export class SignatureChecker {
  #left: number;
  readonly #keys = new Map<Certificate, KeyObject | undefined>();
  readonly #answers = new Map<Signed, Map<Certificate, boolean>>();

  /** @param budget  In signatures of P-256. */
  constructor(private readonly budget = BUDGET) {
    this.#left = budget;
  }

  /** Whether `issuer`'s key made `signed`'s signature. @throws AgentError ERR_PARSE when the budget is used up. */
  isSignedBy(signed: Signed, issuer: Certificate): boolean {
    const known = this.#answersOf(signed).get(issuer);
    if (known !== undefined) return known;
    if (!this.#spend(signed, issuer)) throw this.#usedUp();
    const key = this.#keyOf(issuer);
    const { signatureAlgorithm, tbsDer, signature } = signed;
    return this.#remember(
      signed,
      issuer,
      key !== undefined && isSignatureValid(signatureAlgorithm, tbsDer, signature, key),
    );
  }

  /** As `isSignedBy`; false also where the budget is used up: for what is nice to have. */
  isSurelySignedBy(signed: Signed, issuer: Certificate): boolean {
    const known = this.#answersOf(signed).has(issuer) || this.#left >= weightOf(signed, issuer);
    return known && this.isSignedBy(signed, issuer);
  }

  /** Has a thread of the pool find the answer that `isSignedBy` gives from then on. @throws AgentError ERR_PARSE as there. */
  async checkAside(signed: Signed, issuer: Certificate): Promise<void> {
    if (this.#answersOf(signed).has(issuer)) return;
    if (!this.#spend(signed, issuer)) throw this.#usedUp();
    const { signatureAlgorithm, tbsDer, signature } = signed;
    // A key that OpenSSL refuses has signed nothing.
    const answer = await isSignatureValidAside(
      signatureAlgorithm,
      tbsDer,
      signature,
      issuer.publicKey,
      'issuer',
    ).catch(() => false);
    this.#remember(signed, issuer, answer);
  }

  #spend(signed: Signed, issuer: Certificate): boolean {
    const weight = weightOf(signed, issuer);
    if (weight > this.#left) return false;
    this.#left -= weight;
    return true;
  }

  #usedUp(): AgentError {
    return invalid(
      'ERR_PARSE',
      'chain',
      `must verify with the work of ${this.budget} P-256 signatures`,
    );
  }

  #answersOf(signed: Signed): Map<Certificate, boolean> {
    const known = this.#answers.get(signed);
    if (known !== undefined) return known;
    const answers = new Map<Certificate, boolean>();
    this.#answers.set(signed, answers);
    return answers;
  }

  #remember(signed: Signed, issuer: Certificate, answer: boolean): boolean {
    this.#answersOf(signed).set(issuer, answer);
    return answer;
  }

  #keyOf(issuer: Certificate): KeyObject | undefined {
    if (!this.#keys.has(issuer)) this.#keys.set(issuer, keyOrNothing(issuer));
    return this.#keys.get(issuer);
  }
}

function keyOrNothing(certificate: Certificate): KeyObject | undefined {
  try {
    return createKeyObject(certificate.publicKey);
  } catch {
    return undefined;
  }
}

/** Octets that take as long to hash as a signature of P-256 to verify. */
const OCTETS = 40 * 1_024;

function weightOf({ tbsDer }: Signed, { publicKey }: Certificate): number {
  return signatureWeight(publicKey) + Math.floor(tbsDer.length / OCTETS);
}

/**
 * What it costs to verify a signature of a key, in signatures of P-256: measured with OpenSSL 3, where P-384 takes 0.6 ms, P-521 1.4 ms
 * and RSA 8192 0.25 ms.
 */
export function signatureWeight({ kind, bits }: Pick<PublicKey, 'kind' | 'bits'>): number {
  if (kind === 'rsa') return Math.max(1, Math.ceil((bits / 4_096) ** 2));
  if (bits <= 256) return 1;
  return bits <= 384 ? 9 : 20;
}
