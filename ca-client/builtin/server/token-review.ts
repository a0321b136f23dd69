import { createHash } from 'node:crypto';
import { type Clock, withDeadline } from '../../../agent/base/clock';
import type { Deps } from '../../../agent/base/deps';
import { AgentError } from '../../../agent/base/errors';
import type { Secret } from '../../../agent/base/secret';
import type { KubeApi } from '../../kubernetes/kube-api';
import { type Authenticator, type Caller, refuseCredential, serviceAccountIdentity, type TrustDomains } from './authenticator';
import { readClaims } from './jwt-claims';

export interface TokenReviewOptions extends TrustDomains {
  readonly api: Pick<KubeApi, 'request'>;
  /** At least one of them must be among the token's. */
  readonly audiences: readonly string[];
}

/**
 * How long a yes is believed: as long as the Kubernetes API server believes its own (`--authentication-token-webhook-cache` and the token
 * cache in front of every authenticator: 10 s for success), so a deleted pod's token lives 20 s at most instead of 10. A renewing agent asks once in hours,
 * but a fleet that starts together, and each agent's retries, do not multiply.
 */
const YES_MS = 10_000;
/** A no is remembered only for what one client sends again at once: an account that was just made is to be let in. */
const NO_MS = 1_000;
const REVIEW_MS = 5_000;
/** Tokens that are remembered. */
const MAX_REMEMBERED = 4_096;

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews';
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';

interface TokenReviewStatus {
  readonly authenticated?: boolean;
  readonly audiences?: readonly string[];
  readonly error?: string;
  readonly user?: { readonly username?: string; readonly extra?: Readonly<Record<string, readonly string[]>> };
}

interface Remembered {
  readonly answer: Promise<Caller>;
  /** Undefined while it is being asked. */
  untilAt: number | undefined;
}

/**
 * Service account tokens, judged by the Kubernetes API (TokenReview). Where it cannot be asked, nobody is let in.
 *
 * Only what looks like a JWT is sent there. Calls with one token share one review.
 */
export function createTokenReviewAuthenticator(options: TokenReviewOptions, deps: Deps): Authenticator {
  const remembered = new Map<string, Remembered>();
  return {
    name: 'token-review',
    async authenticate({ bearer }) {
      const claims = bearer && readClaims(bearer.reveal());
      if (bearer === undefined || claims === undefined) return undefined;
      const key = createHash('sha256').update(bearer.reveal()).digest('base64');
      const now = deps.clock.now();
      const known = remembered.get(key);
      if (known !== undefined && (known.untilAt === undefined || now < known.untilAt)) return known.answer;
      remembered.delete(key);
      forgetSome(remembered, now);
      const entry: Remembered = { answer: review(bearer, options, deps), untilAt: undefined };
      remembered.set(key, entry);
      const expiresAt = typeof claims.exp === 'number' ? claims.exp * 1_000 : Number.POSITIVE_INFINITY;
      entry.answer.then(
        () => {
          entry.untilAt = Math.min(deps.clock.now() + YES_MS, expiresAt);
        },
        (error) => {
          // What could not be judged is asked again at once.
          if (AgentError.from(error).code === 'ERR_TOKEN') entry.untilAt = deps.clock.now() + NO_MS;
          else remembered.delete(key);
        },
      );
      return entry.answer;
    },
  };
}

/** Keeps the memory bounded: what is over goes, and beyond the limit the oldest. */
function forgetSome(remembered: Map<string, Remembered>, now: number): void {
  if (remembered.size < MAX_REMEMBERED) return;
  for (const [key, { untilAt }] of remembered) if (untilAt !== undefined && now >= untilAt) remembered.delete(key);
  for (const key of remembered.keys()) {
    if (remembered.size < MAX_REMEMBERED) return;
    remembered.delete(key);
  }
}

async function review(bearer: Secret<string>, options: TokenReviewOptions, deps: Deps): Promise<Caller> {
  const status = await ask(bearer, options, deps.clock);
  if (status.authenticated !== true)
    throw refuseCredential('token', `must be authenticated by the Kubernetes API: ${status.error ?? 'it is not'}`);
  // A server that knows nothing of audiences answers without any: then the token is for the API itself.
  if (!(status.audiences ?? []).some((audience) => options.audiences.includes(audience))) {
    throw refuseCredential('token audience', `must be ${options.audiences.join(' or ')}`);
  }
  const { username, extra = {} } = status.user ?? {};
  const id = serviceAccountIdentity(username ?? '', options);
  const [pod, podUid] = [extra[POD_NAME]?.[0], extra[POD_UID]?.[0]];
  const detail = { ...(pod !== undefined && { pod }), ...(podUid !== undefined && { podUid }) };
  return { id, method: 'token-review', detail };
}

async function ask(bearer: Secret<string>, { api, audiences }: TokenReviewOptions, clock: Clock): Promise<TokenReviewStatus> {
  const body = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token: bearer.reveal(), audiences },
  };
  try {
    const answer = await withDeadline(clock, REVIEW_MS, 'review a token', undefined, (signal) =>
      api.request<{ status?: TokenReviewStatus }>('POST', PATH, { body, signal, timeoutMs: REVIEW_MS }),
    );
    return answer.status ?? {};
  } catch (caught) {
    const cause = AgentError.from(caught);
    // Never the token's fault: not even our own credentials being refused may look as if the caller's were.
    throw new AgentError('ERR_CA_UNAVAILABLE', `review a token: ${cause.message}`, {
      retry: 'soon',
      cause,
      hint: 'the service account of the CA needs create on tokenreviews (ClusterRole system:auth-delegator)',
    });
  }
}
