import { BinaryReader } from '@bufbuild/protobuf/wire';
import { withDeadline } from '../../agent/base/clock';
import type { Deps } from '../../agent/base/deps';
import { AgentError, invalid } from '../../agent/base/errors';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { JwtAuthority, VerifiedJwt } from '../../agent/identity/jwt-svid';
import { formatJwks, type JwtKey } from '../../agent/identity/spiffe-bundle';
import { formatSpiffeId, parseSpiffeId } from '../../agent/identity/spiffe-id';
import { LIMITS } from '../grpc/limits';
import {
  JWTBundlesResponse,
  JWTSVIDRequest,
  JWTSVIDResponse,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
} from '../proto/generated/workload';
import { type AnswerState, denied, unavailable } from './answer-state';
import {
  ownTrustDomain,
  pendingAtStart,
  trustDomainId,
  validSvid,
  withoutSvid,
  type X509Sources,
} from './x509-answers';

/** Where tokens come from, and how they are judged. */
export interface JwtSources {
  /** The authority of this moment, opened by the first call; undefined where the CA issues no tokens. */
  open(): Promise<JwtAuthority> | undefined;
  /** How long tokens live, milliseconds; none outlives the certificate. */
  readonly ttlMs: number;
  /** @throws AgentError ERR_TOKEN. */
  verify(
    token: string,
    audience: string,
    keysOf: (trustDomain: string) => readonly JwtKey[] | undefined,
  ): Promise<VerifiedJwt>;
}

/** An answer, or why there is none. */
export type Answer = AnswerState & { readonly kind: 'answer' | 'refusal' };

/** An authority that reads its keys from a disk which does not answer. */
const OPEN_MS = 10_000;
/** Between two looks for keys because of tokens of unknown ones. */
const REST_MS = 1_000;
/** Claims are nested as deep as their issuer likes; each level is a turn of recursion here. */
const MAX_DEPTH = 16;

/** Opens the authority, within bounds. Resolves with undefined where the CA issues no tokens. */
export async function openAuthority(
  jwt: JwtSources,
  deps: Deps,
): Promise<JwtAuthority | undefined> {
  const opening = jwt.open();
  return (
    opening &&
    withDeadline(deps.clock, OPEN_MS, 'open the keys of JWT-SVIDs', undefined, () => opening)
  );
}

/**
 * A token for the workload, for the audience that it names.
 *
 * @throws AgentError ERR_PARSE for a request that is malformed; ERR_CA_STATE | ERR_TIMEOUT where the authority cannot be opened.
 * @see SPIFFE Workload API, section 6.2.1.
 */
export async function jwtSvidAnswer(
  request: Buffer,
  sources: X509Sources,
  jwt: JwtSources,
  deps: Deps,
): Promise<Answer> {
  const { audience, spiffeId } = decode(request, JWTSVIDRequest);
  const wanted = [...new Set(audience)];
  if (wanted.length === 0 || wanted.includes(''))
    throw invalid('ERR_PARSE', 'audience', 'must not be empty');
  if (audience.length > LIMITS.audiences)
    throw invalid('ERR_PARSE', 'audience', `must not be more than ${LIMITS.audiences} values`);
  if (wanted.some((each) => Buffer.byteLength(each) > LIMITS.audienceBytes)) {
    throw invalid(
      'ERR_PARSE',
      'audience',
      `must not hold a value of more than ${LIMITS.audienceBytes} bytes`,
    );
  }
  if (spiffeId !== '') assertSpiffeId(spiffeId);
  const authority = await openAuthority(jwt, deps);
  if (authority === undefined) return unimplemented();
  const now = deps.clock.now();
  const svid = validSvid(sources.state.value, now);
  if (svid?.id === undefined) return withoutSvid(sources.state.value);
  if (spiffeId !== '' && spiffeId !== formatSpiffeId(svid.id))
    return denied('the workload has another identity than the one asked for');
  const expiresAt = Math.min(now + jwt.ttlMs, svid.notAfterAt);
  const token = authority.sign({ id: svid.id, audience: wanted, issuedAt: now, expiresAt });
  const one = { spiffeId: formatSpiffeId(svid.id), svid: token, hint: sources.hint };
  return answer(JWTSVIDResponse.encode({ svids: [one] }));
}

/**
 * What a token says, where it is good.
 *
 * @throws AgentError ERR_PARSE | ERR_TOKEN for a request or a token that is not; ERR_CA_STATE | ERR_TIMEOUT as above.
 * @see SPIFFE Workload API, section 6.2.3.
 */
export async function validationAnswer(
  request: Buffer,
  sources: X509Sources,
  jwt: JwtSources,
  deps: Deps,
): Promise<Answer> {
  const { audience, svid } = decode(request, ValidateJWTSVIDRequest);
  if (audience === '') throw invalid('ERR_PARSE', 'audience', 'must not be empty');
  if (svid === '') throw invalid('ERR_PARSE', 'svid', 'must not be empty');
  const authority = await openAuthority(jwt, deps);
  const own = ownTrustDomain(sources);
  const keysOf = (trustDomain: string) =>
    trustDomain === own
      ? authority?.keys.value
      : sources.federated?.value.get(trustDomain)?.jwtKeys;
  const verify = () => jwt.verify(svid, audience, keysOf);
  const { id, claims } = await verify().catch(async (caught) => {
    const unknownKey = AgentError.from(caught).field === 'token key';
    if (authority === undefined || !unknownKey || !isRested(authority, deps.clock.now()))
      throw caught;
    // Another process may have made a key a moment ago.
    await authority.refresh();
    return verify();
  });
  if (isDeeper(claims, MAX_DEPTH))
    throw invalid(
      'ERR_TOKEN',
      'token claims',
      `must not be nested deeper than ${MAX_DEPTH} levels`,
    );
  return answer(ValidateJWTSVIDResponse.encode({ spiffeId: formatSpiffeId(id), claims }));
}

const refreshedAt = new WeakMap<JwtAuthority, number>();

/** Whether its keys may be looked for again: anybody can make tokens of unknown keys. */
function isRested(authority: JwtAuthority, now: number): boolean {
  if (Math.abs(now - (refreshedAt.get(authority) ?? Number.NEGATIVE_INFINITY)) < REST_MS)
    return false;
  refreshedAt.set(authority, now);
  return true;
}

/** Keys of our trust domain and of those that it is federated with. @see SPIFFE Workload API, section 6.2.2. */
export function jwtBundlesAnswer(sources: X509Sources, own: readonly JwtKey[]): AnswerState {
  const trustDomain = ownTrustDomain(sources);
  if (trustDomain === undefined)
    return pendingAtStart(sources.state.value) ?? withoutSvid(sources.state.value);
  const foreign = [...(sources.federated?.value ?? [])].filter(
    ([name, bundle]) => name !== trustDomain && bundle !== undefined,
  );
  const bundles = new Map(
    foreign
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, bundle]) => [trustDomainId(name), formatJwks(bundle?.jwtKeys ?? [])] as const),
  );
  bundles.set(trustDomainId(trustDomain), formatJwks(own));
  return answer(JWTBundlesResponse.encode({ bundles }));
}

/** Whatever else is wrong with the authority is for the log. */
export function jwtUnavailable(): AnswerState & { readonly kind: 'refusal' } {
  return unavailable('JWT-SVID keys unavailable; see the log of the agent');
}

function unimplemented(): Answer {
  return {
    kind: 'refusal',
    code: GrpcStatus.UNIMPLEMENTED,
    details: 'JWT-SVIDs are issued by the built-in authority only (--ca builtin)',
  };
}

function assertSpiffeId(text: string): void {
  try {
    parseSpiffeId(text);
  } catch (cause) {
    throw invalid('ERR_PARSE', 'spiffe_id', 'must be a SPIFFE ID', { cause });
  }
}

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((each) => isDeeper(each, levels - 1));
}

function decode<T>(bytes: Buffer, codec: { decode(input: BinaryReader): T }): T {
  const reader = new BinaryReader(bytes);
  let message: T;
  try {
    message = codec.decode(reader);
  } catch (cause) {
    throw invalid('ERR_PARSE', 'request', 'must be a well-formed protobuf message', { cause });
  }
  if (reader.pos !== reader.len)
    throw invalid('ERR_PARSE', 'request', 'must not contain a stray end of group');
  return message;
}

function answer(writer: { finish(): Uint8Array }): Answer & { readonly kind: 'answer' } {
  return { kind: 'answer', message: [writer.finish()] };
}
