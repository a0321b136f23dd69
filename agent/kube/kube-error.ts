import { AgentError, type AgentErrorOptions, type ErrorCode } from '../base/errors';

/** What the Kubernetes API says beside an HTTP status, as far as we read it (meta/v1 `Status`). */
export interface KubeStatus {
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly retryAfterSeconds?: number };
}

/** The Kubernetes API answered no. `status` is the HTTP status: 409 is a conflict, 410 a watch that began too long ago. */
export class KubeError extends AgentError {
  constructor(
    code: ErrorCode,
    message: string,
    readonly status: number,
    /** e.g. `Conflict`, `AlreadyExists`, `Expired`; empty where it gave none. */
    readonly reason: string,
    options: AgentErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** Whether it is the answer of the API with this HTTP status. */
export function isKubeStatus(caught: unknown, status: number): caught is KubeError {
  return caught instanceof KubeError && caught.status === status;
}

/** An answer of the Kubernetes API that is larger than what was asked for may be. */
export class KubeTooLarge extends AgentError {
  constructor(what: string, bytes: number) {
    super('ERR_CA_RESPONSE', `${what}: the answer is larger than ${bytes / 1024 / 1024} MiB`, {
      retry: 'slow',
    });
  }
}

export function isTooLarge(caught: unknown): caught is KubeTooLarge {
  return caught instanceof KubeTooLarge;
}

const MAX_MESSAGE = 500;
/** A server may ask for patience, not for giving up. */
const MAX_RETRY_AFTER_MS = 300_000;

/**
 * Makes an error of an answer that is not 2xx.
 *
 * 401 is ERR_TOKEN (retry slow; unsure for what is blameless, since an API server that is about to start or to stop says it too); 429 and 5xx are ERR_CA_UNAVAILABLE (retry soon, not before its Retry-After); 409 and 410 are
 * ERR_CA_REJECTED to be tried again soon, from a new look at the object; all else is ERR_CA_REJECTED (retry slow).
 *
 * @param what        e.g. `POST /apis/certificates.k8s.io/v1/certificatesigningrequests`.
 * @param retryAfter  The header, seconds.
 * @param more        `isBlameless`: nothing is wrong with the token that was sent, as far as can be seen from here.
 */
export function kubeError(
  what: string,
  httpStatus: number,
  status: KubeStatus,
  retryAfter: string | undefined,
  {
    hint,
    isBlameless = false,
  }: { readonly hint?: string | undefined; readonly isBlameless?: boolean } = {},
): KubeError {
  const reason = typeof status.reason === 'string' ? status.reason : '';
  const said = typeof status.message === 'string' ? status.message.slice(0, MAX_MESSAGE) : reason;
  const seconds = Number(retryAfter ?? status.details?.retryAfterSeconds);
  const retryAfterMs = seconds > 0 ? Math.min(seconds * 1_000, MAX_RETRY_AFTER_MS) : undefined;
  const transient = httpStatus === 429 || httpStatus >= 500;
  const code =
    httpStatus === 401 ? 'ERR_TOKEN' : transient ? 'ERR_CA_UNAVAILABLE' : 'ERR_CA_REJECTED';
  return new KubeError(
    code,
    `${what}: ${httpStatus}${said ? ` ${said}` : ''}`,
    httpStatus,
    reason,
    {
      retry:
        httpStatus === 401 && isBlameless
          ? 'unsure'
          : transient || httpStatus === 409 || httpStatus === 410
            ? 'soon'
            : 'slow',
      ...(retryAfterMs !== undefined && { retryAfterMs }),
      ...(hint !== undefined && { hint }),
    },
  );
}
