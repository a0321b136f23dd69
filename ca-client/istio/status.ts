import { AgentError, type Retry, systemCode } from '../../agent/base/errors';
import { GrpcStatus, grpcStatusName } from '../../agent/http2/grpc-status';
import type { Metadata } from '../grpc/grpc-js';
import { COMPRESSED } from '../grpc/unary-call';
import { RetryInfo } from '../proto/generated/google/rpc/error_details';
import { Status } from '../proto/generated/google/rpc/status';
import type { CallFailure } from './channel';
import { SERVER } from './wire/service';

/** What a status means for us. */
type Meaning = 'transient' | 'unauthenticated' | 'refused';

/** By code; what is not here is transient: the CA, or something on the way to it, could not do its work. */
const MEANINGS: ReadonlyMap<number, Meaning> = new Map([
  [GrpcStatus.UNAUTHENTICATED, 'unauthenticated'],
  [GrpcStatus.INVALID_ARGUMENT, 'refused'],
  [GrpcStatus.PERMISSION_DENIED, 'refused'],
  [GrpcStatus.UNIMPLEMENTED, 'refused'],
  [GrpcStatus.NOT_FOUND, 'refused'],
  [GrpcStatus.ALREADY_EXISTS, 'refused'],
  [GrpcStatus.FAILED_PRECONDITION, 'refused'],
  [GrpcStatus.OUT_OF_RANGE, 'refused'],
]);

/** Foreign text is cut before it is kept, shown or logged. */
const MAX_WORDS = 300;
const RETRY_INFO = 'type.googleapis.com/google.rpc.RetryInfo';
/** Longer hints than this are nobody's; the keeper bounds them further. */
const MAX_PUSHBACK_MS = 86_400_000;

export interface RefusalContext {
  /** The CA as in `--ca`, and where it is. */
  readonly ca: string;
  readonly address: string;
  /** What must not be shown, should the server send it back. */
  readonly token: string | undefined;
  /** What a person can do about it, where more is known than the status says. */
  readonly hint: string | undefined;
  /** Nothing is wrong with what was sent, as far as can be seen from here. */
  readonly isBlameless: boolean;
}

/** Whether trying again with another credential could help. */
export function isUnauthenticated(failure: CallFailure): boolean {
  return MEANINGS.get(failure.code) === 'unauthenticated';
}

/** Whether the refusal is `keyturn ca serve`'s own. */
export function isKeyturn({ trailers, headers }: CallFailure): boolean {
  return [trailers, headers].some((each) => each && text(each, 'server') === SERVER);
}

/**
 * Whether the credential may be at fault although the status does not say so: some servers hang up over a certificate, others have a status
 * of their own for it. Where nobody was reached, or where it is the server that we do not believe, credentials were not even shown; and who
 * counts our calls knows us.
 */
export function mayHideRefusal(failure: CallFailure): boolean {
  const { code, tlsFault } = failure;
  if (MEANINGS.has(code) || code === GrpcStatus.RESOURCE_EXHAUSTED) return false;
  if (tlsFault?.stage === 'handshake')
    return isCertificateRefused(failure) || systemCode(tlsFault.error) === 'ECONNRESET';
  return failure.wasConnected;
}

/** Whether the server said so by an alert of TLS: of 1.3 after the handshake, of 1.2 in it. */
export function isCertificateRefused({ tlsFault }: CallFailure): boolean {
  return (
    tlsFault !== undefined &&
    (tlsFault.stage === 'after handshake' ||
      systemCode(tlsFault.error)?.includes('_ALERT_') === true)
  );
}

/** Whether the request may be at fault: istio-csr hides what it dislikes about a CSR behind UNAUTHENTICATED and INTERNAL. */
export function mayBlameRequest(failure: CallFailure): boolean {
  return MEANINGS.has(failure.code) || failure.code === GrpcStatus.INTERNAL;
}

/**
 * A failed call as the keeper understands it: transient ones are repeated soon, a credential or request that was refused slowly, but never
 * given up. UNAUTHENTICATED for what is blameless may be an outage: istio-csr and istiod say it too while they cannot have a token reviewed. The server's wish for a later attempt is passed on.
 */
export function refusal(failure: CallFailure, context: RefusalContext): AgentError {
  const { ca, address } = context;
  const rule = brokenByReply(failure);
  if (rule !== undefined) {
    return new AgentError('ERR_CA_RESPONSE', `sign at ${ca}: the reply of ${address} ${rule}`, {
      retry: 'slow',
      field: 'reply',
      rule,
    });
  }
  const meaning = MEANINGS.get(failure.code) ?? 'transient';
  const pushback = readPushback(failure);
  const retry = pushback === 'never' ? 'slow' : retryOf(meaning, context.isBlameless);
  const hint = context.hint ?? transportHint(failure);
  return new AgentError(
    meaning === 'transient' ? 'ERR_CA_UNAVAILABLE' : 'ERR_CA_REJECTED',
    `sign at ${ca}: ${address} ${words(failure, context.token)}`,
    {
      retry,
      ...(hint && { hint }),
      ...(typeof pushback === 'number' && { retryAfterMs: pushback }),
      cause: failure.tlsFault?.error,
    },
  );
}

function retryOf(meaning: Meaning, isBlameless: boolean): Retry {
  if (meaning === 'transient') return 'soon';
  return meaning === 'unauthenticated' && isBlameless ? 'unsure' : 'slow';
}

const ADDRESS_HINT = 'is the address of the CA (--ca-address) right, and does it listen there';

const TLS_HINTS = {
  handshake:
    "the CA's server must prove its name (--ca-server-name, by default the host of --ca-address) by the root in --ca-root; nothing was sent to it",
  'after handshake':
    'the CA refuses our client certificate; the next attempt goes without it where there is a token',
} as const;

function transportHint({ tlsFault, unreachable }: CallFailure): string | undefined {
  if (tlsFault)
    return (
      (tlsFault.error instanceof AgentError ? tlsFault.error.hint : undefined) ??
      TLS_HINTS[tlsFault.stage]
    );
  return unreachable === undefined ? undefined : ADDRESS_HINT;
}

function words(failure: CallFailure, token: string | undefined): string {
  const { tlsFault } = failure;
  if (tlsFault?.stage === 'handshake' && failure.code === GrpcStatus.UNAVAILABLE)
    return `TLS connection failed: ${clean(tlsFault.error.message, token)}`;
  if (failure.unreachable !== undefined)
    return `is unreachable: ${clean(failure.unreachable, token)}`;
  const name = grpcStatusName(failure.code) ?? `status ${failure.code}`;
  return `answered ${name}${failure.details === '' ? '' : `: ${clean(failure.details, token)}`}`;
}

function clean(text: string, token: string | undefined): string {
  const safe = token === undefined || token === '' ? text : text.replaceAll(token, '[redacted]');
  return safe.slice(0, MAX_WORDS);
}

/** gRPC's own words: a reply beyond the limit is refused before it is read, and nothing is unpacked. */
function brokenByReply({ code, details }: CallFailure): string | undefined {
  if (code === GrpcStatus.RESOURCE_EXHAUSTED && details.startsWith(OVERSIZED))
    return 'must not be longer than 1 MiB';
  return details === COMPRESSED ? 'must not be compressed' : undefined;
}

const OVERSIZED = 'Received message larger than max';

/**
 * What the server wishes: milliseconds, or `never` for one that wants no retry at all. From `grpc-retry-pushback-ms` (gRFC A6), else
 * RetryInfo in `grpc-status-details-bin`, else `retry-after` (RFC 9110 section 10.2.3) of a proxy that answered by HTTP.
 */
function readPushback({ trailers, headers }: CallFailure): number | 'never' | undefined {
  const pushback = text(trailers, 'grpc-retry-pushback-ms');
  if (pushback !== undefined)
    return /^\d{1,15}$/.test(pushback) ? bounded(Number(pushback)) : 'never';
  const info = retryInfoMs(trailers);
  if (info !== undefined) return bounded(info);
  const after = text(trailers, 'retry-after') ?? (headers && text(headers, 'retry-after'));
  return after !== undefined && /^\d{1,9}$/.test(after)
    ? bounded(Number(after) * 1_000)
    : undefined;
}

const bounded = (ms: number) => Math.min(Math.max(ms, 0), MAX_PUSHBACK_MS);

function text(metadata: Metadata, name: string): string | undefined {
  const [value] = metadata.get(name);
  return typeof value === 'string' ? value.trim() : undefined;
}

function retryInfoMs(trailers: Metadata): number | undefined {
  const [bytes] = trailers.get('grpc-status-details-bin');
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    const detail = Status.decode(bytes).details.find(({ typeUrl }) => typeUrl === RETRY_INFO);
    const delay = detail && RetryInfo.decode(detail.value).retryDelay;
    return delay && Number(delay.seconds) * 1_000 + delay.nanos / 1_000_000;
  } catch {
    // A detail that cannot be read is no wish.
    return undefined;
  }
}
