import { AgentError } from '../../agent/base/errors';
import { parseCertificate } from '../../agent/identity/certificate';
import { verifyChain } from '../../agent/identity/chain';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import type { ServerJudge } from './tls-credentials';

/**
 * A one-time token goes to a server only whose own certificate leads to the trust bundle: `ca serve` has it from the authority that signs for
 * workloads. By another bundle the certificate that the token buys would be refused here.
 */
export function bundleJudge(bundle: TrustBundle, now: () => number): ServerJudge {
  const roots = bundle.rootsDer.map((der) => parseCertificate(der, 'root'));
  return {
    version: bundle.version,
    assertServer: (certificatesDer) => {
      try {
        const [leaf, ...above] = certificatesDer.map((der) => parseCertificate(der, 'server'));
        if (!leaf) throw new AgentError('ERR_CA_RESPONSE', 'it shows no certificate');
        verifyChain(leaf, above, roots, now());
      } catch (cause) {
        throw new AgentError(
          'ERR_CA_UNAVAILABLE',
          `the certificate of the server does not lead to the trust bundle (${AgentError.from(cause).message}); the one-time token was not shown`,
          { retry: 'soon', cause, hint: TRUST_HINT },
        );
      }
    },
  };
}

/** @throws AgentError ERR_CA_UNAVAILABLE (retry soon) where it is not known: no certificate could be accepted. */
export function requireBundle(ca: string, bundle: TrustBundle | undefined): TrustBundle {
  if (bundle) return bundle;
  throw new AgentError('ERR_CA_UNAVAILABLE', `sign: the trust bundle of ${ca} is not known yet; the one-time token was not shown`, {
    retry: 'soon',
    hint: TRUST_HINT,
  });
}

const TRUST_HINT =
  'the trust bundle (--trust-bundle, by default what --ca-root names) must hold the root of the authority, see /bundle.pem of ca serve';
