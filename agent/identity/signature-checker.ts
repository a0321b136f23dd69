import type { KeyObject } from 'node:crypto';
import { type AgentError, invalid } from '../base/errors';
import type { Certificate } from './certificate';
import { createKeyObject, type PublicKey } from './public-key';
import { isSignatureValid, isSignatureValidAside } from './signature';

/** In signatures of P-256, some 0.07 ms each. One path needs at most 7; the rest is for roots and intermediates that share a name. */
const BUDGET = 256;

/**
 * Verifies signatures within a budget, so that no set of certificates makes us work for long, and remembers their outcome. A signature
 * costs what its key makes it cost: one of P-521 as much as twenty of P-256.
 */
export class SignatureChecker {
  #left: number;
  readonly #keys = new Map<Certificate, KeyObject | undefined>();
  readonly #answers = new Map<Certificate, Map<Certificate, boolean>>();

  /** @param budget  In signatures of P-256. */
  constructor(private readonly budget = BUDGET) {
    this.#left = budget;
  }

  /** Whether `issuer`'s key made `certificate`'s signature. @throws AgentError ERR_PARSE when the budget is used up. */
  isSignedBy(certificate: Certificate, issuer: Certificate): boolean {
    const known = this.#answersOf(certificate).get(issuer);
    if (known !== undefined) return known;
    if (!this.#spend(issuer)) throw this.#usedUp();
    const key = this.#keyOf(issuer);
    const { signatureAlgorithm, tbsDer, signature } = certificate;
    return this.#remember(certificate, issuer, key !== undefined && isSignatureValid(signatureAlgorithm, tbsDer, signature, key));
  }

  /** As `isSignedBy`; false also where the budget is used up: for what is nice to have. */
  isSurelySignedBy(certificate: Certificate, issuer: Certificate): boolean {
    const known = this.#answersOf(certificate).has(issuer) || this.#left >= signatureWeight(issuer.publicKey);
    return known && this.isSignedBy(certificate, issuer);
  }

  /** Has a thread of the pool find the answer that `isSignedBy` gives from then on. @throws AgentError ERR_PARSE as there. */
  async checkAside(certificate: Certificate, issuer: Certificate): Promise<void> {
    if (this.#answersOf(certificate).has(issuer)) return;
    if (!this.#spend(issuer)) throw this.#usedUp();
    const { signatureAlgorithm, tbsDer, signature } = certificate;
    // A key that OpenSSL refuses has signed nothing.
    const answer = await isSignatureValidAside(signatureAlgorithm, tbsDer, signature, issuer.publicKey, 'issuer').catch(() => false);
    this.#remember(certificate, issuer, answer);
  }

  #spend(issuer: Certificate): boolean {
    const weight = signatureWeight(issuer.publicKey);
    if (weight > this.#left) return false;
    this.#left -= weight;
    return true;
  }

  #usedUp(): AgentError {
    return invalid('ERR_PARSE', 'chain', `must verify with the work of ${this.budget} P-256 signatures`);
  }

  #answersOf(certificate: Certificate): Map<Certificate, boolean> {
    const known = this.#answers.get(certificate);
    if (known !== undefined) return known;
    const answers = new Map<Certificate, boolean>();
    this.#answers.set(certificate, answers);
    return answers;
  }

  #remember(certificate: Certificate, issuer: Certificate, answer: boolean): boolean {
    this.#answersOf(certificate).set(issuer, answer);
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

/**
 * What it costs to verify a signature of a key, in signatures of P-256: measured with OpenSSL 3, where P-384 takes 0.6 ms, P-521 1.4 ms
 * and RSA 8192 0.25 ms.
 */
export function signatureWeight({ kind, bits }: Pick<PublicKey, 'kind' | 'bits'>): number {
  if (kind === 'rsa') return Math.max(1, Math.ceil((bits / 4_096) ** 2));
  if (bits <= 256) return 1;
  return bits <= 384 ? 9 : 20;
}
