import type { Deps } from '../../../agent/base/deps';
import { AgentError } from '../../../agent/base/errors';
import type { Watched } from '../../../agent/base/watched';
import { type Certificate, parseCertificate, uriNames } from '../../../agent/identity/certificate';
import { standingObstacle, type VerifiedChain, verifyChain } from '../../../agent/identity/chain';
import { checkLeaf } from '../../../agent/identity/leaf';
import type { TrustBundle } from '../../../agent/identity/trust-bundle';
import { type Authenticator, type Caller, ownIdentity, refuseCredential, type TrustDomains } from './authenticator';

export interface ClientCertificateOptions extends TrustDomains {
  readonly trust: Watched<TrustBundle>;
  /** Whether a certificate of ours was revoked; the serial is lower-case hex. */
  isRevoked(serial: string): boolean;
}

/** A client shows a leaf and a few intermediates; what is beyond is not looked at. */
const MAX_CERTIFICATES = 8;

/** A path that verified under one bundle: signatures do not change, so until it ends only time and revocation are looked at again. */
interface Proof {
  readonly bundleVersion: string;
  readonly chain: VerifiedChain;
  readonly caller: Caller;
}

/**
 * Who shows a certificate that the authority's roots of this moment vouch for: a leaf with one URI SAN, neither a CA nor expired nor revoked.
 *
 * TLS is told to ask for a certificate and to take any. It is judged here, at every call, so that a connection that was opened before a
 * root went or a certificate was revoked is worth no more than a new one. A certificate that proves nothing is passed over where a token
 * came along: an agent whose certificate ran out brings both.
 */
export function createClientCertificateAuthenticator(options: ClientCertificateOptions, deps: Deps): Authenticator {
  // Keyed by what TLS keeps for the connection, so it is forgotten with it.
  const proofs = new WeakMap<readonly Uint8Array[], Proof>();
  const prove = (shown: readonly Uint8Array[], now: number): Proof => {
    const bundle = options.trust.value;
    const known = proofs.get(shown);
    // Where that path has ended, another may still hold.
    if (known?.bundleVersion === bundle.version && now < known.chain.notAfterAt) return known;
    const proof = { bundleVersion: bundle.version, ...judge(shown, bundle, options, now) };
    proofs.set(shown, proof);
    return proof;
  };
  return {
    name: 'client-certificate',
    async authenticate({ certificatesDer, bearer }) {
      if (certificatesDer.length === 0) return undefined;
      try {
        const now = deps.clock.now();
        const { chain, caller } = prove(certificatesDer, now);
        assertStanding(chain, options, now);
        return caller;
      } catch (caught) {
        if (bearer === undefined) throw caught;
        deps.log.debug('client certificate passed over, a token came along', { cause: caught });
        return undefined;
      }
    },
  };
}

function judge(shown: readonly Uint8Array[], bundle: TrustBundle, options: ClientCertificateOptions, now: number) {
  try {
    const [leaf, ...pool] = shown.slice(0, MAX_CERTIFICATES).map((der) => parseCertificate(der, 'client certificate')) as [
      Certificate,
      ...Certificate[],
    ];
    const roots = bundle.rootsDer.map((der) => parseCertificate(der));
    const chain = verifyChain(leaf, pool, roots, now);
    const caller: Caller = { id: identityOf(leaf, options), method: 'client-certificate', detail: { serial: leaf.serial } };
    return { chain, caller };
  } catch (caught) {
    const error = AgentError.from(caught);
    if (error.code === 'ERR_BUG' || error.code === 'ERR_TOKEN') throw error;
    throw refuseCredential(`client certificate ${error.field ?? ''}`.trim(), error.rule ?? error.message, error);
  }
}

function identityOf(leaf: Certificate, options: ClientCertificateOptions) {
  const uris = uriNames(leaf);
  if (uris.length !== 1) throw refuseCredential('client certificate', `must have exactly one URI SAN, not ${uris.length}`);
  const shown = ownIdentity(uris[0]!, options);
  // Judged under the name that it shows: an alias is another text for the same workload.
  const trustDomain = uris[0]!.slice('spiffe://'.length, uris[0]!.indexOf('/', 'spiffe://'.length));
  checkLeaf(leaf, { ...shown, trustDomain });
  return shown;
}

function assertStanding({ path, root }: VerifiedChain, { isRevoked }: ClientCertificateOptions, now: number): void {
  for (const each of [...path, root]) {
    const obstacle = standingObstacle(each, now);
    if (obstacle !== undefined) throw refuseCredential('client certificate', obstacle);
  }
  const revoked = path.find(({ serial }) => isRevoked(serial));
  if (revoked !== undefined) throw refuseCredential('client certificate', `must not be revoked: ${revoked.serial} was`);
}
