import { sign } from 'node:crypto';
import { assertClockIsSet } from '../../base/clock-floor';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import { watchFiles } from '../../base/file-watch';
import { iso } from '../../base/iso';
import { reconcileLoop } from '../../base/reconcile-loop';
import { type Watched, WatchedSource } from '../../base/watched';
import type { JwtAuthority, JwtSvidClaims } from '../../identity/jwt-svid';
import type { KeyAlgorithm, KeyPair } from '../../identity/keys';
import type { JwtKey } from '../../identity/spiffe-bundle';
import { formatSpiffeId } from '../../identity/spiffe-id';
import {
  type JwtSigningKey,
  jwtKeysDir,
  makeJwtKey,
  readJwtKeys,
  removeJwtKeys,
} from './jwt-key-files';
import { planKeys } from './jwt-key-plan';

export interface JwtAuthorityOptions {
  /** The CA directory; the keys lie below. */
  readonly caDir: string;
  /** Of keys that are made; those that are there may be of another. */
  readonly algorithm: KeyAlgorithm;
}

/**
 * Opens the keys of JWT-SVIDs of a CA directory, or makes the first. They are keys of their own: what signs certificates signs no token.
 *
 * @throws AgentError ERR_CA_STATE: damaged, open to others, or the directory cannot be written.
 */
export async function openJwtAuthority(
  options: JwtAuthorityOptions,
  deps: Deps,
): Promise<JwtAuthority> {
  const authority = new DirectoryJwtAuthority(options, deps);
  await authority.look();
  authority.follow();
  return authority;
}

class DirectoryJwtAuthority implements JwtAuthority {
  readonly #dir: string;
  readonly #keys = new WatchedSource<readonly JwtKey[]>([]);
  readonly #stop = new AbortController();
  #following: Promise<void> = Promise.resolve();
  #looking: Promise<number> | undefined;
  #signing: JwtSigningKey | undefined;

  constructor(
    private readonly options: JwtAuthorityOptions,
    private readonly deps: Deps,
  ) {
    this.#dir = jwtKeysDir(options.caDir);
  }

  get keys(): Watched<readonly JwtKey[]> {
    return this.#keys;
  }

  sign({ id, audience, issuedAt, expiresAt }: JwtSvidClaims): string {
    // `look` ends with a key or throws.
    const { pair, jwk } = this.#signing!;
    const claims = {
      sub: formatSpiffeId(id),
      aud: audience,
      iat: seconds(issuedAt),
      exp: seconds(expiresAt),
    };
    const { alg, hash } = algorithmOf(pair);
    const input = `${part({ alg, kid: jwk.kid, typ: 'JWT' })}.${part(claims)}`;
    const key = { key: pair.privateKey.reveal(), dsaEncoding: 'ieee-p1363' } as const;
    return `${input}.${sign(hash, Buffer.from(input), key).toString('base64url')}`;
  }

  async refresh(): Promise<void> {
    await this.look().catch((cause) => this.#refused(cause));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#looking?.catch(() => undefined);
  }

  /** Reads the keys and does what is due; resolves with when to look again. Calls that come meanwhile share the look. */
  look(): Promise<number> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  follow(): void {
    const looked = {
      watch: (wake: () => void) => watchFiles([this.#dir], wake, this.deps),
      look: () => this.look(),
      refused: (caught: unknown) => this.#refused(caught),
    };
    this.#following = reconcileLoop(looked, this.deps, this.#stop.signal).catch((cause) =>
      this.deps.log.error('JWT-SVID key watch failed', { cause }),
    );
  }

  async #lookOnce(): Promise<number> {
    const { clock, log } = this.deps;
    for (let round = 0; ; round += 1) {
      const plan = planKeys(await readJwtKeys(this.#dir), clock.now());
      if (plan.signing) this.#use(plan.signing, plan.published);
      if (plan.due === undefined) {
        if (plan.gone.length > 0) await removeJwtKeys(this.#dir, plan.gone, clock.now());
        return plan.nextAt;
      }
      // Lost to another process at most once for each number.
      if (round > 3)
        throw new AgentError(
          'ERR_CA_STATE',
          `make a key for JWT-SVIDs in ${this.#dir}: the file disappears`,
        );
      assertClockIsSet('make a key for JWT-SVIDs', clock.now());
      await makeJwtKey(this.#dir, plan.due, this.options.algorithm);
      log.info('JWT-SVID key created', {
        number: plan.due.number,
        signsFrom: iso(plan.due.activeAt),
      });
    }
  }

  #use(signing: JwtSigningKey, published: readonly JwtSigningKey[]): void {
    if (signing.jwk.kid !== this.#signing?.jwk.kid)
      this.deps.log.info('JWT-SVID key activated', { kid: signing.jwk.kid });
    this.#signing = signing;
    const keys = published.map(({ jwk }) => jwk);
    if (keys.map(({ kid }) => kid).join() !== this.#keys.value.map(({ kid }) => kid).join())
      this.#keys.set(keys);
  }

  #refused(cause: unknown): void {
    if (!this.#stop.signal.aborted)
      this.deps.log.error('JWT-SVID keys invalid, keeping the previous ones', { cause });
  }
}

function algorithmOf({ algorithm }: KeyPair): { readonly alg: string; readonly hash: string } {
  if (algorithm === 'ecdsa-p256') return { alg: 'ES256', hash: 'sha256' };
  return algorithm === 'ecdsa-p384'
    ? { alg: 'ES384', hash: 'sha384' }
    : { alg: 'RS256', hash: 'sha256' };
}

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function seconds(at: number): number {
  return Math.floor(at / 1_000);
}
