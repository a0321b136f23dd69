import type { Watched } from '../../agent/base/watched';
import type { CertState } from '../../agent/identity/cert-state';
import type { CrlSet } from '../../agent/identity/crl';
import type { FederatedBundles } from '../../agent/identity/spiffe-bundle';
import { formatSpiffeId, type SpiffeId } from '../../agent/identity/spiffe-id';
import type { Svid } from '../../agent/identity/svid';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { field, type Pieces } from '../grpc/pieces';
import { X509BundlesResponse, X509SVIDResponse } from '../proto/generated/workload';
import { type AnswerState, denied, unavailable } from './answer-state';

/** The numbers of the field `crl`. */
const SVID_CRL = 2;
const BUNDLES_CRL = 1;

/** Where the answers come from. */
export interface X509Sources {
  readonly state: Watched<CertState>;
  /** The identity that is served; undefined where only a mounted certificate says. */
  readonly id: SpiffeId | undefined;
  readonly crl: Watched<CrlSet | undefined> | undefined;
  readonly federated: Watched<FederatedBundles> | undefined;
  /** What the identity is for, in the operator's words; empty for none. */
  readonly hint: string;
}

/**
 * The workload's certificate, key and bundles as FetchX509SVID answers. An expired certificate is no identity, as for SDS.
 *
 * @param now  Epoch milliseconds.
 * @see SPIFFE Workload API, section 5.2.1.
 */
export function x509SvidAnswer(sources: X509Sources, now: number): AnswerState {
  const { state, crl, hint } = sources;
  const svid = validSvid(state.value, now);
  if (svid === undefined) return pendingAtStart(state.value) ?? withoutSvid(state.value);
  if (svid.id === undefined) return denied('the mounted certificate has no SPIFFE ID');
  if (isWithoutLists(crl)) return unavailable('no revocation list yet');
  const one = {
    spiffeId: formatSpiffeId(svid.id),
    x509Svid: Buffer.concat(svid.chainDer),
    x509SvidKey: privateKeyDer(svid),
    bundle: bundleDer(state.value.bundle ?? svid.bundle),
    hint,
  };
  const federatedBundles = foreignBundles(sources.federated, svid.id.trustDomain);
  const rest = X509SVIDResponse.encode({ svids: [one], crl: [], federatedBundles }).finish();
  one.x509SvidKey.fill(0);
  return { kind: 'answer', message: [rest, ...listFields(SVID_CRL, crl)] };
}

/** The roots of our trust domain and of those that it is federated with. @see SPIFFE Workload API, section 5.2.2. */
export function x509BundlesAnswer(sources: X509Sources): AnswerState {
  const { state, crl } = sources;
  const { bundle } = state.value;
  const trustDomain = ownTrustDomain(sources);
  if (bundle === undefined)
    return pendingAtStart(state.value) ?? unavailable('no trust bundle yet');
  if (trustDomain === undefined) return pendingAtStart(state.value) ?? withoutSvid(state.value);
  if (isWithoutLists(crl)) return unavailable('no revocation list yet');
  const bundles = foreignBundles(sources.federated, trustDomain);
  bundles.set(trustDomainId(trustDomain), bundleDer(bundle));
  const rest = X509BundlesResponse.encode({ crl: [], bundles }).finish();
  return { kind: 'answer', message: [rest, ...listFields(BUNDLES_CRL, crl)] };
}

/** No attempt has ended yet: whoever waits is told at once when it has. */
export function pendingAtStart(state: CertState): AnswerState | undefined {
  return state.kind === 'starting' ? { kind: 'pending' } : undefined;
}

/**
 * Where no certificate is valid. One that was not had yet is no denial: PERMISSION_DENIED makes clients take out of use what they have,
 * which may be a good certificate of the agent before its restart.
 */
export function withoutSvid(state: CertState): AnswerState & { readonly kind: 'refusal' } {
  const hadOne =
    heldSvid(state) !== undefined || (state.kind === 'unavailable' && state.expired !== undefined);
  return hadOne ? denied('no identity is valid now') : unavailable('no certificate yet');
}

/** `spiffe://example.org`: how bundles are keyed. */
export function trustDomainId(trustDomain: string): string {
  return `spiffe://${trustDomain}`;
}

/** The trust domain that is served, as far as it is known. */
export function ownTrustDomain({
  id,
  state,
}: Pick<X509Sources, 'id' | 'state'>): string | undefined {
  return (id ?? heldSvid(state.value)?.id)?.trustDomain;
}

/** The certificate of a state where it has not expired; the keeper may not have told of that yet. */
export function validSvid(state: CertState, now: number): Svid | undefined {
  const svid = heldSvid(state);
  return svid && now < svid.notAfterAt ? svid : undefined;
}

function heldSvid(state: CertState): Svid | undefined {
  return state.kind === 'current' || state.kind === 'overdue' ? state.svid : undefined;
}

/** Revocation is looked at and nothing is known: bundles without lists would let in whom they name. */
function isWithoutLists(crl: X509Sources['crl']): boolean {
  return crl !== undefined && crl.value === undefined;
}

/** PKCS#8 whatever `--key-format` says: the standard knows no other form. */
function privateKeyDer({ key }: Svid): Buffer {
  return key.privateKey.reveal().export({ type: 'pkcs8', format: 'der' });
}

function bundleDer(bundle: TrustBundle): Buffer {
  return Buffer.concat(bundle.rootsDer);
}

function listFields(number: number, crl: X509Sources['crl']): Pieces {
  return (crl?.value?.lists ?? []).flatMap(({ der }) => field(number, [der]));
}

/** In the order of their names. One without roots is left out: what is not in an answer is not believed any more. */
function foreignBundles(federated: X509Sources['federated'], own: string): Map<string, Buffer> {
  const bundles = [...(federated?.value ?? [])]
    .filter(([name]) => name !== own)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return new Map(
    bundles.flatMap(([name, bundle]) =>
      bundle?.roots ? [[trustDomainId(name), bundleDer(bundle.roots)] as const] : [],
    ),
  );
}
