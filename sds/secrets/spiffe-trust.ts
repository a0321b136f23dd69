import type { Watched } from '../../agent/base/watched';
import { certificatesPem } from '../../agent/identity/certificate';
import type { CrlSet } from '../../agent/identity/crl';
import type { FederatedBundles } from '../../agent/identity/spiffe-bundle';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { type Lookup, type SecretResource, spiffeTrustResource } from './secret-resource';

/** Whom the workload believes at one moment. */
export interface Believed {
  /** Ours; undefined while only a mounted certificate could say. */
  readonly trustDomain: string | undefined;
  readonly bundle: TrustBundle | undefined;
}

/** What peers are judged by under SPIFFE's names: `spiffe://TRUST-DOMAIN`, and `ALL`. */
export interface SpiffeTrust {
  /** @param wanted  One of the trust domains that are believed; undefined for all of them. */
  lookup(
    name: string,
    wanted: string | undefined,
    believed: Believed,
    at: number,
  ): ReturnType<Lookup>;
}

/** A trust domain that nobody is of (RFC 2606 section 2). */
const NOBODY = 'nobody.invalid';

/**
 * Validation contexts with Envoy's SPIFFE validator, which judges a peer by the bundle of the trust domain in its own certificate: a root of
 * one trust domain proves nothing about another. Made when first asked for.
 *
 * A trust domain whose bundle has become empty is left out of `ALL`; under its own name goes a context that lets nobody in, since Envoy
 * would go on with the one before if it were told nothing.
 *
 * @param crl  Where revocation is looked at: our lists, which Envoy's validator takes from among the roots.
 */
export function createSpiffeTrust(
  crl: Watched<CrlSet | undefined> | undefined,
  federated: Watched<FederatedBundles> | undefined,
): SpiffeTrust {
  const made = new Map<string, { readonly print: string; readonly resource: SecretResource }>();
  return {
    lookup: (name, wanted, { trustDomain, bundle }, at) => {
      const foreign = federated?.value ?? NONE;
      if (
        wanted !== undefined &&
        trustDomain !== undefined &&
        wanted !== trustDomain &&
        !foreign.has(wanted)
      )
        return 'unknown';
      if (trustDomain === undefined || bundle === undefined || (crl && !crl.value))
        return 'waiting';
      if (wanted !== undefined && wanted !== trustDomain && foreign.get(wanted) === undefined)
        return 'waiting';
      const all: readonly Domain[] = [
        { name: trustDomain, roots: bundle, lists: crl?.value },
        ...[...foreign]
          .filter(([each]) => each !== trustDomain)
          .map(([each, found]) => ({ name: each, roots: found?.roots, lists: undefined })),
      ];
      const usable = all.filter(
        (each) => each.roots !== undefined && (wanted === undefined || each.name === wanted),
      );
      const listed =
        usable.length > 0 ? usable : [{ name: NOBODY, roots: bundle, lists: undefined }];
      const print = listed
        .map((each) => `${each.name} ${each.roots?.version} ${each.lists?.version}`)
        .join();
      const known = made.get(name);
      if (known?.print === print) return known.resource;
      const domains = listed.map(({ roots, ...rest }) => ({
        ...rest,
        rootsPem: certificatesPem(roots?.rootsDer ?? []),
      }));
      const resource = spiffeTrustResource(name, domains, at);
      made.set(name, { print, resource });
      return resource;
    },
  };
}

interface Domain {
  readonly name: string;
  readonly roots: TrustBundle | undefined;
  readonly lists: CrlSet | undefined;
}

const NONE: FederatedBundles = new Map();
