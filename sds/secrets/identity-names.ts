import type { Watched } from '../../agent/base/watched';
import type { CertState } from '../../agent/identity/cert-state';
import type { CrlSet } from '../../agent/identity/crl';
import type { KeyFormat } from '../../agent/identity/keys';
import type { FederatedBundles } from '../../agent/identity/spiffe-bundle';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../../agent/identity/spiffe-id';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { type FileName, IDENTITY_NAME, type ResourceName } from './resource-name';
import type { Lookup } from './secret-resource';
import { createIdentitySecrets, type IdentitySecrets, type LeafSecret } from './secrets';
import { type Believed, createSpiffeTrust, type SpiffeTrust } from './spiffe-trust';

export interface IdentityNamesOptions {
  readonly keyFormat: KeyFormat;
  /** Revocation lists that go with the bundle; undefined where revocation is not looked at. */
  readonly crl?: Watched<CrlSet | undefined> | undefined;
  /** The identity that is served; undefined where only the mounted certificate says. */
  readonly id?: SpiffeId | undefined;
  /** Bundles of the other trust domains that are to be believed. */
  readonly federated?: Watched<FederatedBundles> | undefined;
}

/** What the identity and those whom it believes are called over SDS, by Istio and by SPIRE, and what stands behind each name. */
export class IdentityNames {
  readonly #id: SpiffeId | undefined;
  readonly #secretsOf: (state: CertState, at: number) => IdentitySecrets;
  readonly #trust: SpiffeTrust;
  #secrets: IdentitySecrets = { bundle: undefined, leaf: undefined };
  #bundle: TrustBundle | undefined;

  constructor({ keyFormat, crl, id, federated }: IdentityNamesOptions) {
    this.#id = id;
    this.#secretsOf = createIdentitySecrets(keyFormat, crl);
    this.#trust = createSpiffeTrust(crl, federated);
  }

  /** The certificate in service. */
  get leaf(): LeafSecret | undefined {
    return this.#secrets.leaf;
  }

  /** Puts a state into service. */
  publish(state: CertState, at: number): void {
    this.#secrets = this.#secretsOf(state, at);
    this.#bundle = state.bundle;
  }

  /**
   * @param text  The name, which `name` is read from.
   * @param leaf  The certificate that whoever asks may have by now.
   */
  find(
    text: string,
    name: Exclude<ResourceName, FileName>,
    leaf: LeafSecret | undefined,
    at: number,
  ): ReturnType<Lookup> {
    switch (name.kind) {
      case 'identity':
        return leaf?.under(text) ?? 'waiting';
      case 'bundle':
        return this.#secrets.bundle ?? 'waiting';
      case 'spiffe-id': {
        const own = this.#ownId();
        if (own !== undefined && !own.includes(name.id)) return 'unknown';
        return leaf?.id === name.id ? leaf.under(text) : 'waiting';
      }
      case 'trust-domain':
        return this.#trust.lookup(text, name.trustDomain, this.#believed(), at);
      case 'all-bundles':
        return this.#trust.lookup(text, undefined, this.#believed(), at);
    }
  }

  /** The names that the certificate has at the moment. */
  ofLeaf(): readonly string[] {
    return [IDENTITY_NAME, ...(this.#ownId() ?? [])];
  }

  /** Our SPIFFE ID as a list of one, or an empty one where the certificate has none; undefined while only a certificate could say. */
  #ownId(): readonly string[] | undefined {
    if (this.#id) return [formatSpiffeId(this.#id)];
    const { leaf } = this.#secrets;
    return leaf && (leaf.id === undefined ? [] : [leaf.id]);
  }

  #believed(): Believed {
    const [id] = this.#ownId() ?? [];
    return {
      trustDomain: id === undefined ? undefined : parseSpiffeId(id).trustDomain,
      bundle: this.#bundle,
    };
  }
}
