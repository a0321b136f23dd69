import { createHash } from 'node:crypto';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { iso } from '../../agent/base/iso';
import { readSmallFile } from '../../agent/base/read-file';
import { JOIN_TOKEN_PREFIX } from '../../agent/identity/join-token';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { expiredTokenError, isExpired, readToken, type Token } from '../token';
import {
  type ClientCertificate,
  presentingObstacle,
  readClientCertificate,
} from './client-certificate';
import type { IstioCaSettings } from './options';
import { type Credentials, rankCredentials } from './rank-credentials';

const NEW_JOIN_TOKEN =
  'create another at the CA (keyturn vm bundle) and install it here (keyturn vm join)';
/** A clock that runs ahead of the CA's must not make us keep back a token that the CA would still take. */
const TOKEN_LEEWAY_MS = 60_000;
/** An API server that is restarted reviews tokens again by then. */
const OUTAGE_MS = 60_000;

/** Somebody may allow it meanwhile; until then each try is a refusal in the CA's log. */
const EXPIRED_AGAIN_MS = 10 * 60_000;

/**
 * What this agent proves its identity with, looked at anew for every call: the token, the provisioned certificate, its own. Remembers
 * what the CA refused, so that the next attempt goes another way where there is one, and says so where there is none.
 */
export class CredentialSelector {
  #token: Token | undefined;
  #provisioned: ClientCertificate | undefined;
  /** Attempts that another way might have made succeed, since one last did. */
  #failures = 0;
  /** The way that last worked. */
  #worked: Credentials['kind'] | undefined;
  #refused: { readonly print: string; readonly since: number } | undefined;
  /** The CA has refused our own certificate, and said so, since anything last worked. */
  #ownRefused = false;
  /** When it last refused the one that has ended, epoch milliseconds. */
  #expiredRefusedAt: number | undefined;
  /** The one-time token that got us an answer; spent once a certificate came of it. */
  #redeemed: string | undefined;
  #spent: string | undefined;
  #complaints = new Set<string>();

  constructor(
    private readonly settings: IstioCaSettings,
    private readonly deps: Deps,
  ) {}

  /**
   * @param roots  Those that a certificate of ours must verify to.
   * @throws       AgentError ERR_TOKEN: nothing to prove ourselves with, and why.
   */
  async choose(roots: readonly TrustBundle[]): Promise<Credentials> {
    const { tokenPath, provisioningDir, ownCertificate } = this.settings;
    const now = this.deps.clock.now();
    const token = await settled(readToken(tokenPath));
    const provisioned =
      provisioningDir === undefined
        ? undefined
        : await settled(readClientCertificate(provisioningDir));
    this.#token = token.value;
    this.#provisioned = provisioned?.value;
    if (token.value) this.#lookAtAudience(token.value);
    const usable = (certificate: ClientCertificate | undefined, what: string) =>
      this.#usable(certificate, what, roots, now);
    const print = token.value && printOf(token.value);
    const tokenRefused = print !== undefined && this.#refused?.print === print;
    const tokenOnce = token.value !== undefined && isJoinToken(token.value);
    const inService = ownCertificate?.();
    const hasEnded = inService !== undefined && now >= inService.notAfterAt;
    const own = hasEnded ? undefined : usable(inService, 'own certificate');
    const isDue =
      this.#expiredRefusedAt === undefined || now >= this.#expiredRefusedAt + EXPIRED_AGAIN_MS;
    const expired =
      hasEnded && isDue && this.#isRenewable(inService, roots) ? inService : undefined;
    if (tokenOnce && inService && this.#redeemed === print) this.#spent = print;
    // One that was good once, or was refused while we have what it is for, will never be good again.
    const isServed = own !== undefined || expired !== undefined || inService?.isRevoked === true;
    const spent = tokenOnce && (this.#spent === print || (tokenRefused && isServed));
    const ways = rankCredentials({
      token:
        token.value && !spent && !isExpired(token.value, now, TOKEN_LEEWAY_MS)
          ? token.value
          : undefined,
      tokenRefused,
      tokenOnce,
      ownRefused: this.#ownRefused,
      expired,
      expiredRefused: this.#expiredRefusedAt !== undefined,
      provisioned: usable(provisioned?.value, `provisioned certificate ${provisioningDir}`),
      own,
    });
    // What worked comes first: where the best way is always refused, each renewal would cost a failure.
    const known = ways.filter(({ kind }) => kind === this.#worked);
    const inOrder = [...known, ...ways.filter((each) => !known.includes(each))];
    const way = inOrder[this.#failures % inOrder.length];
    if (way) return way;
    if (inService?.isRevoked) throw revoked(tokenPath, spent);
    if (hasEnded && !isDue) throw endedCertificateError(inService);
    if (spent) throw spentTokenError(tokenPath);
    throw token.value
      ? expiredTokenError(tokenPath, token.value)
      : missing(tokenPath, token.error, provisioned?.error);
  }

  worked({ token, kind }: Credentials): void {
    if (this.#worked !== kind)
      this.deps.log.info('authenticated to CA', { ca: this.settings.name, by: kind });
    // What is good once is no way to go again.
    const isOnce = token !== undefined && isJoinToken(token);
    this.#worked = isOnce ? undefined : kind;
    if (isOnce) this.#redeemed = printOf(token);
    this.#failures = 0;
    this.#ownRefused = false;
    this.#expiredRefusedAt = undefined;
    // What a certificate achieved says nothing for the token.
    if (token) this.#refused = undefined;
  }

  /** The files are others: the best way is the first one again. */
  renewed(): void {
    this.#worked = undefined;
    this.#failures = 0;
    this.#ownRefused = false;
  }

  /** The server refused what was shown, and says so. */
  refusedCertificate({ kind }: Credentials): void {
    if (kind !== 'own certificate') return;
    this.#ownRefused = true;
    // Another order from now on.
    this.#worked = undefined;
  }

  /** The server is not the authority that issued our certificate, which has ended: it is not shown there. */
  isNotIssuer(): void {
    this.#expiredRefusedAt = this.deps.clock.now();
  }

  /** The call failed in a way that another credential might mend. */
  failed(): void {
    this.#failures += 1;
  }

  /**
   * The CA does not know us by these credentials.
   *
   * @param isBlameless  Nothing is wrong with them, as far as can be seen from here: the CA may be unable to have a token reviewed.
   * @returns            What a person can do about it. Loud, from the second time on with the same token, and after a minute where it may
   *                     be an outage: nobody else will be.
   */
  refused({ token, kind }: Credentials, isBlameless: boolean): string {
    const { tokenPath } = this.settings;
    if (kind === 'expired certificate') {
      this.#expiredRefusedAt = this.deps.clock.now();
      return EXPIRED_HINT;
    }
    if (!token) {
      const isJoined = this.#token !== undefined && isJoinToken(this.#token);
      return `the CA refuses the ${kind}${isJoined ? `; ${this.#joinTokenHint()}` : ''}`;
    }
    const print = printOf(token);
    if (this.#refused?.print !== print) {
      this.#refused = { print, since: this.deps.clock.now() };
      // The order of ways has changed: the next attempt takes its first.
      this.#worked = undefined;
      this.#failures = 0;
      if (isJoinToken(token)) return this.#joinTokenHint();
      const either = isBlameless ? ', or cannot have it reviewed now' : '';
      return `the CA refuses the token ${tokenPath}${this.#audienceFault(token) ?? ''}${either}; is it for this cluster and this service account?`;
    }
    const since = iso(this.#refused.since);
    const isEarly = isBlameless && this.deps.clock.now() < this.#refused.since + OUTAGE_MS;
    if (!isEarly)
      this.#complain(`same ${print}`, () =>
        this.deps.log.error('the CA refuses the token, and it was not replaced', {
          token: tokenPath,
          refusedSince: since,
        }),
      );
    if (isJoinToken(token)) return this.#joinTokenHint();
    return `the token ${tokenPath} has not changed since the CA first refused it at ${since}${this.#audienceFault(token) ?? ''}; replace it, a new one is used at once`;
  }

  /** Whether the token file holds another token by now. */
  async isTokenReplaced({ token }: Credentials): Promise<boolean> {
    const now = await settled(readToken(this.settings.tokenPath));
    return now.value !== undefined && now.value.value.reveal() !== token?.value.reveal();
  }

  /** When the last of what can be counted on dies, as of the last look; undefined where one never does, or there is nothing. */
  expiresAt(): number | undefined {
    const { name, ownCertificate } = this.settings;
    // istiod takes the certificate in service, which is renewed before its end anyway. istio-csr takes one only where somebody told it to,
    // and does not say so.
    const own = ownCertificate?.();
    if (name === 'istiod' && own && !own.isRevoked && this.deps.clock.now() < own.notAfterAt)
      return undefined;
    const ends = [
      this.#token && (this.#token.expiresAt ?? Number.POSITIVE_INFINITY),
      this.#provisioned?.notAfterAt,
    ];
    const lastAt = Math.max(...ends.filter((each) => each !== undefined));
    return Number.isFinite(lastAt) ? lastAt : undefined;
  }

  /** Looks at the files without a call, for `expiresAt`. */
  async look(): Promise<void> {
    const { tokenPath, provisioningDir } = this.settings;
    this.#token = (await settled(readToken(tokenPath))).value;
    this.#provisioned =
      provisioningDir === undefined
        ? undefined
        : (await settled(readClientCertificate(provisioningDir))).value;
  }

  /** Files whose change may make the next attempt succeed. */
  paths(): string[] {
    const { tokenPath, provisioningDir, rootSource } = this.settings;
    const provisioned =
      provisioningDir === undefined
        ? []
        : [`${provisioningDir}/key.pem`, `${provisioningDir}/cert-chain.pem`];
    return [tokenPath, ...provisioned, ...(rootSource.kind === 'file' ? [rootSource.path] : [])];
  }

  /** Equal prints are equal files. */
  async print(): Promise<string> {
    const hash = createHash('sha256');
    for (const path of this.paths()) {
      const bytes = await readSmallFile(path, { field: path, code: 'ERR_TOKEN' }).catch(
        () => undefined,
      );
      hash.update(bytes ? `${bytes.length}:` : '-').update(bytes ?? '');
    }
    return hash.digest('hex');
  }

  /** Whether a certificate that has ended is this CA's, and would be good but for its end. */
  #isRenewable(certificate: ClientCertificate, roots: readonly TrustBundle[]): boolean {
    const { name, plaintext } = this.settings;
    return (
      !plaintext &&
      certificate.source === name &&
      presentingObstacle(certificate, roots, certificate.notAfterAt - 1) === undefined
    );
  }

  #usable(
    certificate: ClientCertificate | undefined,
    what: string,
    roots: readonly TrustBundle[],
    now: number,
  ) {
    if (!certificate) return undefined;
    const obstacle = presentingObstacle(certificate, roots, now);
    if (obstacle === undefined) return certificate;
    this.#complain(`${what} ${obstacle}`, () =>
      this.deps.log.warn('client certificate not sent to the CA', { what, reason: obstacle }),
    );
    return undefined;
  }

  #lookAtAudience(token: Token): void {
    const fault = this.#audienceFault(token);
    if (fault === undefined) return;
    const { tokenPath, tokenAudiences } = this.settings;
    this.#complain(`audience ${token.audiences}`, () =>
      this.deps.log.warn('token is for another audience', {
        token: tokenPath,
        audiences: token.audiences,
        wanted: tokenAudiences,
      }),
    );
  }

  #audienceFault({ audiences }: Token): string | undefined {
    const { tokenAudiences } = this.settings;
    if (audiences.length === 0 || audiences.some((each) => tokenAudiences.includes(each)))
      return undefined;
    return `, which is for audience ${audiences.join(', ').slice(0, 200)} and not for ${tokenAudiences.join(', ')}`;
  }

  #joinTokenHint(): string {
    const { tokenPath, ownCertificate } = this.settings;
    const revoked = ownCertificate?.()?.isRevoked ? 'our certificate is revoked; ' : '';
    return `${revoked}the join token ${tokenPath} was used before with another key, or is too old; ${NEW_JOIN_TOKEN}`;
  }

  /** Each thing is said once. */
  #complain(what: string, tell: () => void): void {
    if (this.#complaints.has(what)) return;
    if (this.#complaints.size > 100) this.#complaints.clear();
    this.#complaints.add(what);
    tell();
  }
}

function missing(
  tokenPath: string,
  tokenError: AgentError | undefined,
  certificateError: AgentError | undefined,
): AgentError {
  const causes = [tokenError, certificateError].flatMap((each) => (each ? [each.message] : []));
  return new AgentError('ERR_TOKEN', `sign: no credential for the CA: ${causes.join('; ')}`, {
    retry: 'soon',
    hint: `mount a service account token for audience istio-ca at ${tokenPath}, or take a join token of keyturn ca serve there (keyturn vm join); it is used as soon as it is there`,
    cause: tokenError ?? certificateError,
  });
}

function spentTokenError(tokenPath: string): AgentError {
  return new AgentError(
    'ERR_TOKEN',
    `sign: the one-time token ${tokenPath} was used before, and our own certificate is no longer valid`,
    {
      retry: 'slow',
      hint: NEW_JOIN_TOKEN,
    },
  );
}

const EXPIRED_HINT =
  'the certificate expired too long ago for the CA (ca serve --renew-after-expiry); install a new join token (keyturn vm join)';

function endedCertificateError({ notAfterAt }: ClientCertificate): AgentError {
  const when = iso(notAfterAt);
  return new AgentError(
    'ERR_TOKEN',
    `sign: our certificate ended at ${when}, and this CA does not take it`,
    {
      retry: 'slow',
      hint: EXPIRED_HINT,
    },
  );
}

/** Good for one key: see `keyturn ca token create`. */
export function isJoinToken({ value }: Token): boolean {
  return value.reveal().startsWith(JOIN_TOKEN_PREFIX);
}

function revoked(tokenPath: string, spent: boolean): AgentError {
  const token = spent
    ? `the one-time token ${tokenPath} was used before`
    : `the token ${tokenPath} is missing or expired`;
  return new AgentError('ERR_TOKEN', `sign: our certificate is revoked, and ${token}`, {
    retry: 'slow',
    hint: NEW_JOIN_TOKEN,
  });
}

function printOf(token: Token): string {
  return createHash('sha256').update(token.value.reveal()).digest('hex');
}

async function settled<T>(promise: Promise<T>): Promise<{ value?: T; error?: AgentError }> {
  try {
    return { value: await promise };
  } catch (caught) {
    return { error: AgentError.from(caught) };
  }
}
