import { AgentError } from '../../agent/base/errors';
import { parseCertificate } from '../../agent/identity/certificate';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { leadsTo, type ServerVerifier } from './server-verifier';

const HINT =
  'the trust bundle (--trust-bundle, by default what --ca-root names) must hold the root of the authority, see /bundle.pem of ca serve';

/**
 * A one-time token goes to a server only whose own certificate leads to the trust bundle: `ca serve` has it from the authority that signs for
 * workloads. By another bundle the certificate that the token buys would be refused here.
 */
export function bundleJudge(bundle: TrustBundle, now: () => number): ServerVerifier {
  const roots = bundle.rootsDer.map((der) => parseCertificate(der, 'root'));
  const what = 'does not lead to the trust bundle, and the one-time token was not sent';
  return leadsTo(roots, bundle.version, now, { what, hint: HINT });
}

/** @throws AgentError ERR_CA_UNAVAILABLE (retry soon) where it is not known: no certificate could be accepted. */
export function requireBundle(ca: string, bundle: TrustBundle | undefined): TrustBundle {
  if (bundle) return bundle;
  throw new AgentError(
    'ERR_CA_UNAVAILABLE',
    `sign: no trust bundle of ${ca} yet; the one-time token was not sent`,
    {
      retry: 'soon',
      hint: HINT,
    },
  );
}
