import type { Watched } from '../agent/base/watched';
import type { CertState } from '../agent/identity/cert-state';
import { certificatesPem } from '../agent/identity/certificate';
import type { CrlSet } from '../agent/identity/crl';
import { type KeyFormat, privateKeyPem } from '../agent/identity/keys';
import type { Svid } from '../agent/identity/svid';
import type { TrustBundle } from '../agent/identity/trust-bundle';
import { BUNDLE_NAME, IDENTITY_NAME } from './resource-name';
import { certificateResource, rootsResource, type SecretResource } from './secret-resource';

/** What `default` and `ROOTCA` are at one moment; undefined while there is none. */
export interface IdentitySecrets {
  readonly bundle: SecretResource | undefined;
  readonly leaf: SecretResource | undefined;
}

/**
 * Makes secrets of states. An unchanged certificate or bundle stays the same resource, so it is encoded once and nothing is pushed again.
 *
 * An expired certificate is offered to nobody: new subscriptions wait for the next one. It is not taken away from those who have it
 * either, since SDS knows no removal (Envoy ignores one) and a proxy does better with an expired certificate that some peers may still
 * accept than with none.
 *
 * @param crl  Where revocation is looked at: the lists that go with the roots. There is no bundle before there are any, since it would let in
 *             whom they name.
 */
export function createIdentitySecrets(
  keyFormat: KeyFormat,
  crl?: Watched<CrlSet | undefined>,
): (state: CertState, at: number) => IdentitySecrets {
  let lastSvid: Svid | undefined;
  let lastLeaf: SecretResource | undefined;
  let lastPrint = '';
  let lastRoots: SecretResource | undefined;

  const leafOf = (svid: Svid, at: number): SecretResource => {
    if (svid !== lastSvid || !lastLeaf) {
      const made = leafResource(svid, keyFormat, at);
      if (made.version !== lastLeaf?.version) lastLeaf = made;
      lastSvid = svid;
    }
    return lastLeaf;
  };
  const rootsOf = (bundle: TrustBundle, at: number): SecretResource | undefined => {
    const lists = crl?.value;
    if (crl && !lists) return undefined;
    const print = `${bundle.version} ${lists?.version}`;
    if (print !== lastPrint || !lastRoots) {
      lastRoots = rootsResource(BUNDLE_NAME, certificatesPem(bundle.rootsDer), lists?.pem, at);
      lastPrint = print;
    }
    return lastRoots;
  };
  return (state, at) => {
    const bundle = state.bundle && rootsOf(state.bundle, at);
    switch (state.kind) {
      case 'starting':
      case 'unavailable':
        return { bundle, leaf: undefined };
      case 'current':
      case 'overdue':
        return { bundle, leaf: leafOf(state.svid, at) };
    }
  };
}

function leafResource(svid: Svid, keyFormat: KeyFormat, at: number): SecretResource {
  const chainPem = certificatesPem(svid.chainDer);
  return certificateResource(IDENTITY_NAME, { chainPem, keyPem: privateKeyPem(svid.key, keyFormat), serial: svid.serial }, at);
}
