import type { IssuedLeaf } from '../authority/authority';
import { type ServerNames, serverSpec } from '../authority/certificate-specs';
import type { Issuer } from '../authority/issuer';
import { assertMatchesSpec } from '../authority/verify-issued';
import type { Deps } from '../base/deps';
import { iso } from '../base/iso';
import { type Watched, WatchedSource } from '../base/watched';
import type { CertificateEngine } from '../identity/engine';
import type { TrustBundle } from '../identity/trust-bundle';

/** Signs for the webhook's own server, by whatever signer it was last given. */
export class WebhookAuthority {
  readonly #trust: WatchedSource<TrustBundle>;
  readonly #listeners = new Set<{ readonly call: () => void }>();
  #issuer: Issuer;

  constructor(
    issuer: Issuer,
    private readonly engine: CertificateEngine,
    private readonly deps: Pick<Deps, 'clock' | 'log'>,
  ) {
    this.#issuer = issuer;
    this.#trust = new WatchedSource(issuer.bundle);
  }

  get trust(): Watched<TrustBundle> {
    return this.#trust;
  }

  get issuer(): Issuer {
    return this.#issuer;
  }

  /** Signs by another from now on; those who listen are told where it is not the same. */
  use(issuer: Issuer): void {
    const previous = this.#issuer;
    this.#issuer = issuer;
    if (issuer.bundle.version !== previous.bundle.version) this.#trust.set(issuer.bundle);
    if (issuer.version === previous.version) return;
    this.deps.log.info('webhook root changed', {
      notAfter: iso(issuer.notAfterAt),
    });
    for (const listener of [...this.#listeners]) listener.call();
  }

  onSignerChange(listener: () => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  async issueServer(
    spkiDer: Uint8Array,
    names: ServerNames,
    ttlSeconds: number,
  ): Promise<IssuedLeaf> {
    const issuer = this.#issuer;
    const spec = serverSpec(spkiDer, names, ttlSeconds, issuer, this.deps.clock.now());
    const leaf = await this.engine.createCertificate(spec, issuer.key);
    assertMatchesSpec(leaf, spec);
    const notAfter = iso(spec.notAfterAt);
    this.deps.log.info('serving certificate issued', {
      names: [...names.dns, ...names.ip],
      notAfter,
    });
    return {
      certificatesDer: [leaf, ...issuer.chainDer],
      serial: Buffer.from(spec.serial).toString('hex'),
      notBeforeAt: spec.notBeforeAt,
      notAfterAt: spec.notAfterAt,
      issuerKeyId: Buffer.from(issuer.keyId).toString('hex'),
      rootKeySha256: issuer.rootKeySha256,
    };
  }
}
