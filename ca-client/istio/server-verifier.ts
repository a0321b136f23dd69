import { AgentError } from '../../agent/base/errors';
import { type Certificate, parseCertificate } from '../../agent/identity/certificate';
import { verifyChain } from '../../agent/identity/chain';

/** Another condition on a server whose certificate is trusted for its name. */
export interface ServerVerifier {
  /** Equal versions judge alike. */
  readonly version: string;
  /** @param certificatesDer  What the server showed, leaf first. @throws AgentError where nothing may be sent to it. */
  assertServer(certificatesDer: readonly Uint8Array[]): void;
}

/** Takes servers whose certificate leads to one of `anchors`; of others it says `what` is wrong, and what to do. */
export function leadsTo(
  anchors: readonly Certificate[],
  version: string,
  now: () => number,
  { what, hint }: { readonly what: string; readonly hint: string },
): ServerVerifier {
  return {
    version,
    assertServer: (certificatesDer) => {
      try {
        const [leaf, ...above] = certificatesDer.map((der) => parseCertificate(der, 'server'));
        if (!leaf) throw new AgentError('ERR_CA_RESPONSE', 'it shows no certificate');
        verifyChain(leaf, above, anchors, now());
      } catch (cause) {
        const message = `the certificate of the server ${what}: ${AgentError.from(cause).message}`;
        throw new AgentError('ERR_CA_UNAVAILABLE', message, { retry: 'soon', cause, hint });
      }
    },
  };
}
