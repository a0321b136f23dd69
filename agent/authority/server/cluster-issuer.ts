import { waitAtMost } from '../../base/clock';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import { type KeySet, parseKeySet, TOKEN_ALGORITHMS } from '../../jwt/key-set';
import type { KubeApi } from '../../kube/kube-api';

/** An API server names keys that it will sign with before it does so. */
const FRESH_MS = 5 * 60_000;
/** Between two questions that come to nothing, or are for a key that is not published. */
const COOLDOWN_MS = 30_000;
/** A slow API server is heard to its end; callers wait for the first five seconds only, and have their token reviewed. */
const CALLER_MS = 5_000;
const MAX_BYTES = 256 * 1_024;
const DISCOVERY = '/.well-known/openid-configuration';
const KEYS = '/openid/v1/jwks';

/**
 * The issuer of a cluster's service account tokens and its keys, as the API server publishes them (KEP-1393). Where they can be read,
 * strangers' tokens are told from the cluster's own here, without a question to the API server.
 *
 * @see https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
 */
export class ClusterIssuer {
  /** Every one that was published since the start: after a change, tokens of the one before are good until they end. */
  readonly #issuers = new Set<string>();
  #keys: KeySet | undefined;
  #readAt = Number.NEGATIVE_INFINITY;
  #askedAt = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;
  #complaint = '';

  constructor(
    private readonly api: Pick<KubeApi, 'request'>,
    private readonly deps: Deps,
  ) {}

  /** Values of `iss`; undefined while they are not known. */
  async issuers(): Promise<readonly string[] | undefined> {
    await this.#refresh(FRESH_MS);
    return this.#issuers.size === 0 ? undefined : [...this.#issuers];
  }

  /** @throws AgentError ERR_TOKEN where none of the keys made the signature. Nothing where they are not known. */
  async assertSigned(token: string): Promise<void> {
    const keys = this.#keys;
    if (keys === undefined) return;
    try {
      await keys.verify(token);
    } catch (caught) {
      if (AgentError.from(caught).field !== 'token key') throw caught;
      await this.#refresh(0);
      // Where the newest keys cannot be read, the API server itself may still know better.
      if (this.#keys !== keys) await this.#keys?.verify(token);
      else if (this.#readAt === this.#askedAt) throw caught;
    }
  }

  async #refresh(olderThanMs: number): Promise<void> {
    const now = this.deps.clock.now();
    if (now - this.#readAt < olderThanMs) return;
    if (now - this.#askedAt >= COOLDOWN_MS) this.#asking ??= this.#read(now);
    const waitMs = this.#askedAt + CALLER_MS - now;
    if (this.#asking && waitMs > 0) await waitAtMost(this.deps.clock, waitMs, this.#asking);
  }

  async #read(now: number): Promise<void> {
    this.#askedAt = now;
    const options = { maxBytes: MAX_BYTES };
    try {
      const [{ issuer }, keys] = await Promise.all([
        this.api.request<{ readonly issuer?: unknown }>('GET', DISCOVERY, options),
        this.api.request<unknown>('GET', KEYS, options),
      ]);
      this.#keys = await parseKeySet(JSON.stringify(keys), 'keys of the cluster', TOKEN_ALGORITHMS);
      if (typeof issuer === 'string' && issuer !== '') this.#issuers.add(issuer);
      this.#readAt = now;
      this.#tell('cluster token issuer and keys fetched', { issuer, kids: this.#keys.kids });
    } catch (cause) {
      this.#tell('cluster token keys unavailable, reviewing each token by the Kubernetes API', {
        cause,
      });
    } finally {
      this.#asking = undefined;
    }
  }

  #tell(event: string, facts: Readonly<Record<string, unknown>>): void {
    if (event !== this.#complaint) this.deps.log.info(event, facts);
    this.#complaint = event;
  }
}
