import { hash } from 'node:crypto';
import { type Clock, withDeadline } from '../../base/clock';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import type { Secret } from '../../base/secret';
import { type Claims, readClaims } from '../../jwt/jwt-claims';
import type { KubeApi } from '../../kube/kube-api';
import { serviceAccountGroups } from '../../kube/service-account';
import {
  type Authenticator,
  type Caller,
  refuseCredential,
  serviceAccountIdentity,
  type TrustDomains,
} from './authenticator';
import { ClusterIssuer } from './cluster-issuer';
import { PATIENCE } from './limits';
import { ReviewBudget } from './review-budget';
import { assertClaims } from './token-claims';
import { Verdicts } from './verdicts';

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
/** A no, so that a token that is shown again and again costs nothing. */
const NO_MS = 10_000;

/** Of an answer, which repeats the token. */
const MAX_BYTES = 256 * 1_024;

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews';
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';

interface TokenReviewStatus {
  readonly authenticated?: boolean;
  readonly audiences?: readonly string[];
  readonly error?: string;
  readonly user?: ReviewedUser;
}

interface ReviewedUser {
  readonly username?: string;
  readonly uid?: string;
  readonly groups?: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

/**
 * Service account tokens, judged by the Kubernetes API (TokenReview). Where it cannot be asked, nobody is let in.
 *
 * Asked is only what may be one: three parts, the audience, an end that is ahead; the issuer, and a signature by one of its keys, where the
 * cluster publishes them to us. What is left is limited, by source address too. Calls with one token share one review.
 */
export function createTokenReviewAuthenticator(
  options: TokenReviewOptions,
  deps: Deps,
): Authenticator {
  const endOf = ({ exp }: Claims) => (typeof exp === 'number' ? exp * 1_000 : 0);
  const verdicts = new Verdicts<Reviewed>(
    { yesUntilAt: ({ claims }, now) => Math.min(now + YES_MS, endOf(claims)), noMs: NO_MS },
    deps.clock,
  );
  const issuer = new ClusterIssuer(options.api, deps);
  const budget = new ReviewBudget(deps);
  return {
    name: 'token-review',
    async authenticate({ bearer, address }, signal) {
      const claims = bearer && readClaims(bearer.reveal());
      if (bearer === undefined || claims === undefined) return undefined;
      assertClaims(claims, { issuers: undefined, audiences: options.audiences }, deps.clock.now());
      const { caller } = await verdicts.of(hash('sha256', bearer.reveal(), 'base64'), async () => {
        assertClaims(
          claims,
          { issuers: await issuer.issuers(), audiences: options.audiences },
          deps.clock.now(),
        );
        await issuer.assertSigned(bearer.reveal());
        return {
          claims,
          caller: await budget.spend(address, signal, () => review(bearer, claims, options, deps)),
        };
      });
      return caller;
    },
  };
}

interface Reviewed {
  readonly claims: Claims;
  readonly caller: Caller;
}

async function review(
  bearer: Secret<string>,
  claims: Claims,
  options: TokenReviewOptions,
  deps: Deps,
): Promise<Caller> {
  const status = await ask(bearer, options, deps.clock);
  if (status.authenticated !== true)
    throw refuseCredential(
      'token',
      `must be authenticated by the Kubernetes API: ${status.error ?? 'it is not'}`,
    );
  // A server that knows nothing of audiences answers without any: then the token is for the API itself.
  if (!(status.audiences ?? []).some((audience) => options.audiences.includes(audience))) {
    throw refuseCredential('token audience', `must be ${options.audiences.join(' or ')}`);
  }
  const { username, extra = {} } = status.user ?? {};
  const id = serviceAccountIdentity(username ?? '', options);
  assertServiceAccount(status.user ?? {}, claims);
  const [pod, podUid] = [extra[POD_NAME]?.[0], extra[POD_UID]?.[0]];
  const detail = { ...(pod !== undefined && { pod }), ...(podUid !== undefined && { podUid }) };
  return { id, method: 'token-review', detail };
}

/**
 * What makes a service account of a user beside its name: its groups, and its uid, which is the one that the token was made for.
 *
 * @see istio, security/pkg/k8s/tokenreview: `the token is not a service account`.
 */
function assertServiceAccount(
  { username = '', uid, groups = [] }: ReviewedUser,
  claims: Claims,
): void {
  const namespace = username.split(':')[2]!;
  for (const group of serviceAccountGroups(namespace)) {
    if (!groups.includes(group))
      throw refuseCredential(
        'token',
        `must be of a service account: its user is not in the group ${group}`,
      );
  }
  if (!uid) throw refuseCredential('token', 'must be of a service account: its user has no uid');
  const bound = (
    claims['kubernetes.io'] as
      | { readonly serviceaccount?: { readonly uid?: unknown } }
      | null
      | undefined
  )?.serviceaccount?.uid;
  if (bound !== undefined && bound !== uid) {
    throw refuseCredential(
      'token',
      'must be of the service account that the Kubernetes API names: their uids differ',
    );
  }
}

async function ask(
  bearer: Secret<string>,
  { api, audiences }: TokenReviewOptions,
  clock: Clock,
): Promise<TokenReviewStatus> {
  const body = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token: bearer.reveal(), audiences },
  };
  try {
    const answer = await withDeadline(
      clock,
      PATIENCE.reviewMs,
      'review a token',
      undefined,
      (signal) =>
        api.request<{ status?: TokenReviewStatus }>('POST', PATH, {
          body,
          signal,
          timeoutMs: PATIENCE.reviewMs,
          maxBytes: MAX_BYTES,
        }),
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
