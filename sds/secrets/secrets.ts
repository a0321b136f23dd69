import type { Watched } from '../../agent/base/watched';
import type { CertState } from '../../agent/identity/cert-state';
import { certificatesPem } from '../../agent/identity/certificate';
import type { CrlSet } from '../../agent/identity/crl';
import { type KeyFormat, privateKeyPem } from '../../agent/identity/keys';
import { formatSpiffeId } from '../../agent/identity/spiffe-id';
import type { Svid } from '../../agent/identity/svid';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { BUNDLE_NAME, IDENTITY_NAME } from './resource-name';
import { certificateResource, rootsResource, type SecretResource } from './secret-resource';

/** What `default` and `ROOTCA` are at one moment; undefined while there is none. */
export interface IdentitySecrets {
  readonly bundle: SecretResource | undefined;
  readonly leaf: LeafSecret | undefined;
}

/** A certificate with its key, under the names that it has. Equal leaves are one object. */
export interface LeafSecret {
  /** Lower-case hex. */
  readonly serial: string;
  /** The certificate's SPIFFE ID, which is a name of it too; undefined where it has none. */
  readonly id: string | undefined;
  /** The resource under `default` or its SPIFFE ID. */
  under(name: string): SecretResource;
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
  let lastLeaf: LeafSecret | undefined;
  let lastPrint = '';
  let lastRoots: SecretResource | undefined;

  const leafOf = (svid: Svid, at: number): LeafSecret => {
    if (svid !== lastSvid || !lastLeaf) {
      const made = leafSecret(svid, keyFormat, at);
      if (made.under(IDENTITY_NAME).version !== lastLeaf?.under(IDENTITY_NAME).version)
        lastLeaf = made;
      lastSvid = svid;
    }
    return lastLeaf;
  };
  const rootsOf = (bundle: TrustBundle, at: number): SecretResource | undefined => {
    const lists = crl?.value;
    if (crl && !lists) return undefined;
    const print = `${bundle.version} ${lists?.version}`;
    if (print !== lastPrint || !lastRoots) {
      lastRoots = rootsResource(BUNDLE_NAME, certificatesPem(bundle.rootsDer), lists, at);
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

function leafSecret(svid: Svid, keyFormat: KeyFormat, at: number): LeafSecret {
  const chainPem = certificatesPem(svid.chainDer);
  const { serial } = svid;
  const make = (name: string) =>
    certificateResource(name, { chainPem, keyPem: privateKeyPem(svid.key, keyFormat), serial }, at);
  const first = make(IDENTITY_NAME);
  let byId: SecretResource | undefined;
  return {
    serial,
    id: svid.id && formatSpiffeId(svid.id),
    under: (name) => {
      if (name === IDENTITY_NAME) return first;
      byId ??= make(name);
      return byId;
    },
  };
}
