import type { Clock } from '../../agent/base/clock';
import { AgentError, type AgentErrorOptions, type ErrorCode } from '../../agent/base/errors';
import { WatchedSource } from '../../agent/base/watched';
import { directEngine } from '../../agent/identity/direct-engine';
import type { CertificateEngine } from '../../agent/identity/engine';
import { generateKeyPair, type KeyPair } from '../../agent/identity/keys';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import type { CaClient, IssuedChain, SignRequest } from '../../ca-client/ca-client';
import { issueLeaf, type LeafOptions, makeTestCa, TEST_NOW, type TestCa } from './certs';

/** What a scripted CA does with one request. */
export type Behaviour = (
  request: SignRequest,
  signal: AbortSignal,
  attempt: number,
) => IssuedChain | Promise<IssuedChain>;

/** A `CaClient` in the same process whose every answer is decided by the test. Issues for a day unless told otherwise. */
export class ScriptedCa implements CaClient {
  readonly trust: WatchedSource<TrustBundle | undefined>;
  /** When each request came, epoch milliseconds. */
  readonly attempts: number[] = [];
  /** Leaves that were given out, in order, and who signed them. */
  issued = 0;
  inFlight = 0;
  mostInFlight = 0;
  credentialExpires: number | undefined;
  closed = false;
  readonly #listeners = new Set<(what: 'signer' | 'credential') => void>();
  #behaviour: Behaviour;

  constructor(
    public signer: TestCa,
    private readonly clock: Clock,
    public lifeMs = 86_400_000,
    readonly name = 'scripted',
  ) {
    this.trust = new WatchedSource<TrustBundle | undefined>(signer.bundle);
    this.#behaviour = (request) => this.issue(request);
  }

  /** A right answer, but for `wrong`. */
  issue(request: SignRequest, wrong: Partial<LeafOptions> = {}): IssuedChain {
    const now = this.clock.now();
    this.issued += 1;
    const leaf = issueLeaf(this.signer, {
      key: { spkiDer: spkiOfRequest(request) },
      notBeforeAt: now - 120_000,
      notAfterAt: now + this.lifeMs,
      ...wrong,
    });
    return { certificatesDer: [leaf, ...this.signer.intermediatesDer] };
  }

  /** From now on. */
  behave(behaviour: Behaviour): void {
    this.#behaviour = behaviour;
  }

  work(): void {
    this.behave((request) => this.issue(request));
  }

  failWith(code: ErrorCode, options: AgentErrorOptions = { retry: 'soon' }): void {
    this.behave(() => {
      throw new AgentError(code, `sign: scripted ${code}`, options);
    });
  }

  /** Never answers; with `deaf` it does not even heed its signal. */
  hang(deaf = false): void {
    this.behave(
      (_, signal) =>
        new Promise((_resolve, reject) => {
          if (!deaf)
            signal.addEventListener('abort', () =>
              reject(new AgentError('ERR_ABORTED', 'sign: aborted')),
            );
        }),
    );
  }

  tell(what: 'signer' | 'credential'): void {
    for (const listener of [...this.#listeners]) listener(what);
  }

  attemptsBetween(fromAt: number, toAt: number): number {
    return this.attempts.filter((at) => at >= fromAt && at < toAt).length;
  }

  async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    this.attempts.push(this.clock.now());
    this.inFlight += 1;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    // Whoever asked has gone once its signal fired, whatever the behaviour does.
    const gone = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true }),
    );
    const answer = (async () => this.#behaviour(request, signal, this.attempts.length))();
    void Promise.race([answer.catch(() => undefined), gone]).then(() => (this.inFlight -= 1));
    return answer;
  }

  onChange(listener: (what: 'signer' | 'credential') => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  problem(): undefined {
    return undefined;
  }

  credentialExpiresAt(): number | undefined {
    return this.credentialExpires;
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** Keys for `instantEngine`, made once a process. */
let keys: Promise<readonly KeyPair[]> | undefined;
let next = 0;

/**
 * An engine that hands out ready keys in turn and whose CSR is the bare public key, so that virtual time never overtakes a thread pool.
 * Scripted CAs understand its CSRs; nobody else does.
 */
export async function instantEngine(): Promise<CertificateEngine> {
  keys ??= Promise.all(Array.from({ length: 8 }, () => generateKeyPair('ecdsa-p256')));
  const ready = await keys;
  return {
    ...directEngine,
    generateKeyPair: async () => ready[next++ % ready.length]!,
    createCsr: async (key) => key.spkiDer,
  };
}

function spkiOfRequest(request: SignRequest): Uint8Array {
  return request.csrDer;
}

let roots: Promise<readonly [TestCa, TestCa]> | undefined;

/** Long ago: a clock that is set back by a year still finds the roots valid. */
const ROOTS_SINCE = TEST_NOW - 5 * 365 * 86_400_000;

/** Two roots, made once a process: `old` and `new`. */
export function testRoots(): Promise<readonly [TestCa, TestCa]> {
  roots ??= Promise.all([
    makeTestCa({ name: 'old root', notBeforeAt: ROOTS_SINCE }),
    makeTestCa({ name: 'new root', notBeforeAt: ROOTS_SINCE }),
  ]);
  return roots;
}
