import { conditionOf, type KubeCsr } from '../../ca-client/kubernetes/csr-object';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import {
  ACKNOWLEDGED,
  checkIssued,
  checkUnchanged,
  isAcknowledged,
  type Violation,
} from './issued-check';

/** The oldest stay; each of them needs a signer that signs what was not approved. */
const MAX_OPEN = 1_000;

/** To be typed as it is: the requester chose the name. */
function hintFor(request: string): string {
  const word = /^[\w.-]+$/.test(request) ? request : `'${request.replace(/'/g, `'\\''`)}'`;
  return `see what signed it, then run keyturn approver acknowledge --reason TEXT -- ${word}`;
}

/**
 * Violations that no operator has acknowledged. An object that is deleted takes nothing back: its requester may delete it. What was found of
 * an object that exists is found again after a restart.
 */
export class Violations {
  /** By uid of the request. */
  readonly #open = new Map<string, Violation & { readonly request: string }>();
  /** Requests whose certificate has been compared: it is written once. */
  readonly #checked = new Set<string>();
  /** What was reported of a request, so that it is reported once. */
  readonly #reported = new Map<string, string>();

  constructor(
    private readonly trustDomain: string,
    private readonly deps: Deps,
  ) {}

  /** Why somebody has to act, naming requests; undefined where nothing is open. */
  problem(): AgentError | undefined {
    const [first, ...others] = this.#open.values();
    if (!first) return undefined;
    const more =
      others.length === 0
        ? ''
        : `, and ${others.length} more: ${others
            .slice(0, 5)
            .map(({ request }) => request)
            .join(', ')}`;
    return new AgentError('ERR_CA_RESPONSE', `request ${first.request}: ${first.detail}${more}`, {
      retry: 'never',
      hint: hintFor(first.request),
    });
  }

  get size(): number {
    return this.#open.size;
  }

  /** Looks at one state of a request. */
  async look(csr: KubeCsr): Promise<void> {
    const { uid } = csr.metadata;
    if (isAcknowledged(csr)) return this.#acknowledged(csr);
    const changed = checkUnchanged(csr);
    if (changed) this.#report(csr, changed);
    if (!csr.status?.certificate || this.#checked.has(uid)) return;
    this.#checked.add(uid);
    const violation = await checkIssued(csr, this.trustDomain, this.deps.clock.now());
    if (violation) this.#report(csr, violation);
  }

  /** What is gone is not kept in mind, but for what is open. */
  forget(uid: string): void {
    this.#checked.delete(uid);
    this.#reported.delete(uid);
  }

  keepOnly(uids: ReadonlySet<string>): void {
    for (const uid of [...this.#checked, ...this.#reported.keys()])
      if (!uids.has(uid)) this.forget(uid);
  }

  #report(csr: KubeCsr, violation: Violation): void {
    const { name, uid } = csr.metadata;
    if (this.#reported.get(uid) === violation.detail) return;
    this.#reported.set(uid, violation.detail);
    if (this.#open.size < MAX_OPEN || this.#open.has(uid))
      this.#open.set(uid, { ...violation, request: name });
    this.deps.metrics.record('approver_violations_total', { kind: violation.kind });
    this.deps.log.error(
      violation.kind === 'metadata'
        ? 'approved request changed before issuance'
        : 'certificate violates policy',
      {
        request: name,
        requester: csr.spec.username,
        signer: csr.spec.signerName,
        violation: violation.kind,
        detail: violation.detail,
        hint: hintFor(name),
      },
    );
  }

  #acknowledged(csr: KubeCsr): void {
    const { name, uid } = csr.metadata;
    // What comes after it is new, even where it reads the same.
    this.#reported.delete(uid);
    if (!this.#open.delete(uid)) return;
    this.deps.log.info('violation acknowledged', {
      request: name,
      reason: conditionOf(csr, ACKNOWLEDGED)?.message,
    });
  }
}
