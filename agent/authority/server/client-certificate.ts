import { createHash } from 'node:crypto';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import type { Watched } from '../../base/watched';
import { type Certificate, parseCertificate, uriNames } from '../../identity/certificate';
import { standingObstacle, type VerifiedChain, verifyChainAside } from '../../identity/chain';
import { checkLeaf } from '../../identity/leaf';
import { SignatureChecker } from '../../identity/signature-checker';
import type { TrustBundle } from '../../identity/trust-bundle';
import {
  type Authenticator,
  type Caller,
  ownIdentity,
  refuseCredential,
  type TrustDomains,
} from './authenticator';
import type { RenewalAfterExpiry } from './renewal-after-expiry';
import { Verdicts } from './verdicts';
import { VerificationLine } from './verification-line';

export interface ClientCertificateOptions extends TrustDomains {
  readonly trust: Watched<TrustBundle>;
  /** Whether a certificate of ours was revoked; the serial is lower-case hex. */
  isRevoked(serial: string): boolean;
  /** Undefined where a certificate proves nothing once it has ended. */
  readonly afterExpiry?: RenewalAfterExpiry | undefined;
}

/** A client shows a leaf and a few intermediates; what is beyond is not looked at. */
const MAX_CERTIFICATES = 8;

/**
 * What one judgement may cost, in signatures of P-256. A client's chain needs one for each certificate, by the keys of its issuers: three
 * levels of P-521 fit. What goes beyond is search among roots of one name without key identifiers.
 */
const BUDGET = 64;
/** How long a chain that proves nothing is remembered: as long as the connections that show it again and again. */
const NO_MS = 10_000;

/** What a chain proves under one bundle: signatures do not change, so until it ends only time and revocation are looked at again. */
interface Proof {
  readonly chain: VerifiedChain;
  readonly caller: Caller;
}

/**
 * Who shows a certificate that the authority's roots of this moment vouch for: a leaf with one URI SAN, neither a CA nor expired nor revoked.
 *
 * TLS is told to ask for a certificate and to take any. It is validated here, at every call, so that a connection that was opened before a
 * root went or a certificate was revoked is worth no more than a new one. A certificate that proves nothing is passed over where a token
 * came along: an agent whose certificate ran out brings both.
 *
 * Strangers show what they like, so a chain is verified once, with the keys of our own roots first, one after the other in a thread of the
 * pool, within a budget; what it was found to be is remembered, refusals too.
 */
export function createClientCertificateAuthenticator(
  options: ClientCertificateOptions,
  deps: Deps,
): Authenticator {
  // Where the path has ended, another may still hold.
  const yesUntilAt = ({ chain }: Proof, now: number) =>
    now < chain.notAfterAt
      ? chain.notAfterAt
      : (options.afterExpiry?.untilAt(chain.path[0]!) ?? chain.notAfterAt);
  const verdicts = new Verdicts<Proof>({ yesUntilAt, noMs: NO_MS }, deps.clock);
  const line = new VerificationLine();
  const digestOf = remembering((shown: readonly Uint8Array[]) =>
    digest(shown.slice(0, MAX_CERTIFICATES)),
  );
  const rootsOf = remembering((bundle: TrustBundle) =>
    bundle.rootsDer.map((der) => parseCertificate(der)),
  );
  const prove = (shown: readonly Uint8Array[]): Promise<Proof> => {
    const bundle = options.trust.value;
    return verdicts.of(`${bundle.version} ${digestOf(shown)}`, () =>
      line.run(() => verify(shown, rootsOf(bundle), options, deps.clock.now())),
    );
  };
  return {
    name: 'client-certificate',
    async authenticate({ certificatesDer, bearer, keySha256 }) {
      if (certificatesDer.length === 0) return undefined;
      try {
        const { chain, caller } = await prove(certificatesDer);
        const now = deps.clock.now();
        const [leaf] = chain.path as [Certificate];
        const { afterExpiry } = options;
        // Whoever has a token beside it needs no certificate that has ended.
        if (bearer !== undefined || !afterExpiry || !mayBeRenewed(leaf, options, now)) {
          assertStanding([...chain.path, chain.root], options, now);
          return caller;
        }
        assertStanding([...chain.path.slice(1), chain.root], options, now);
        assertNotRevoked([leaf], options);
        return { ...caller, redeem: () => afterExpiry.redeem(leaf, caller.id, keySha256) };
      } catch (caught) {
        if (bearer === undefined) throw caught;
        deps.log.debug('client certificate ignored, the call has a token', { cause: caught });
        return undefined;
      }
    },
  };
}

/** By objects that live for as long as a connection or a bundle, and are forgotten with them. */
function remembering<K extends object, V>(make: (key: K) => V): (key: K) => V {
  const made = new WeakMap<K, V>();
  return (key) => {
    const value = made.get(key) ?? make(key);
    made.set(key, value);
    return value;
  };
}

function digest(shown: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  // DER says where each ends.
  for (const der of shown) hash.update(der);
  return hash.digest('base64');
}

async function verify(
  shown: readonly Uint8Array[],
  roots: readonly Certificate[],
  options: ClientCertificateOptions,
  now: number,
): Promise<Proof> {
  try {
    const [leaf, ...pool] = shown
      .slice(0, MAX_CERTIFICATES)
      .map((der) => parseCertificate(der, 'client certificate')) as [Certificate, ...Certificate[]];
    // What costs nothing comes first.
    const caller: Caller = {
      id: identityOf(leaf, options),
      method: 'client-certificate',
      detail: { serial: leaf.serial },
    };
    const rules = { checker: new SignatureChecker(BUDGET), keyCertSignRequired: true };
    // One that has ended is judged as in its last moment.
    const at = mayBeRenewed(leaf, options, now) ? leaf.notAfterAt - 1 : now;
    return { chain: await verifyChainAside(leaf, pool, roots, at, rules), caller };
  } catch (caught) {
    const error = AgentError.from(caught);
    if (error.code === 'ERR_BUG' || error.code === 'ERR_TOKEN') throw error;
    throw refuseCredential(
      `client certificate ${error.field ?? ''}`.trim(),
      error.rule ?? error.message,
      error,
    );
  }
}

function identityOf(leaf: Certificate, options: ClientCertificateOptions) {
  const uris = uriNames(leaf);
  if (uris.length !== 1)
    throw refuseCredential(
      'client certificate',
      `must have exactly one URI SAN, not ${uris.length}`,
    );
  const shown = ownIdentity(uris[0]!, options);
  // Judged under the name that it shows: an alias is another text for the same workload.
  const trustDomain = uris[0]!.slice('spiffe://'.length, uris[0]!.indexOf('/', 'spiffe://'.length));
  checkLeaf(leaf, { ...shown, trustDomain });
  return shown;
}

function mayBeRenewed(
  leaf: Certificate,
  { afterExpiry }: ClientCertificateOptions,
  now: number,
): boolean {
  return afterExpiry !== undefined && now >= leaf.notAfterAt && now < afterExpiry.untilAt(leaf);
}

function assertStanding(
  certificates: readonly Certificate[],
  options: ClientCertificateOptions,
  now: number,
): void {
  for (const each of certificates) {
    const obstacle = standingObstacle(each, now);
    if (obstacle !== undefined) throw refuseCredential('client certificate', obstacle);
  }
  assertNotRevoked(certificates, options);
}

function assertNotRevoked(
  certificates: readonly Certificate[],
  { isRevoked }: ClientCertificateOptions,
): void {
  const revoked = certificates.find(({ serial }) => isRevoked(serial));
  if (revoked !== undefined)
    throw refuseCredential('client certificate', `must not be revoked: ${revoked.serial} was`);
}
