import { iso } from '../../agent/base/iso';
import { ISTIO_AUDIENCE } from '../../agent/jwt/token-claims';
import type { LintFacts, LintRule } from './lint-rule';

const ISTIOD = 'istiod, TokenReview';
const ISTIO_CSR = 'istio-csr, TokenReview';
const KUBE = 'Kubernetes API';
const SERVE = 'keyturn ca serve';
const EVERYBODY = {
  istiod: ISTIOD,
  'istiod-ra': ISTIOD,
  'istio-csr': ISTIO_CSR,
  'kubernetes-csr': KUBE,
  builtin: SERVE,
};

/** What is wrong with a token, as far as it shows: signatures are the authority's to verify. */
export const TOKEN_RULES: readonly LintRule[] = [
  {
    rule: 'token-form',
    severity: 'error',
    // A join token of `ca serve` is no JWT.
    sources: {
      istiod: ISTIOD,
      'istiod-ra': ISTIOD,
      'istio-csr': ISTIO_CSR,
      'kubernetes-csr': KUBE,
    },
    broken: (_, { token }) =>
      token && token.claims === undefined ? 'the token is not a JWT' : undefined,
  },
  {
    rule: 'token-expired',
    severity: 'error',
    sources: EVERYBODY,
    broken: (_, { token, now }) => {
      const exp = token?.claims?.exp;
      return typeof exp === 'number' && now >= exp * 1_000
        ? `the token expired at ${instant(exp)}`
        : undefined;
    },
  },
  {
    rule: 'token-expiry',
    severity: 'error',
    sources: EVERYBODY,
    broken: (_, { token }) =>
      token?.claims && typeof token.claims.exp !== 'number'
        ? 'the token does not say when it expires'
        : undefined,
  },
  {
    rule: 'token-not-before',
    severity: 'error',
    sources: EVERYBODY,
    broken: (_, { token, now }) => {
      const nbf = token?.claims?.nbf;
      return typeof nbf === 'number' && now < nbf * 1_000
        ? `the token is not valid before ${instant(nbf)}`
        : undefined;
    },
  },
  {
    rule: 'token-audience',
    severity: 'error',
    sources: { istiod: ISTIOD, 'istiod-ra': ISTIOD, 'istio-csr': ISTIO_CSR, builtin: SERVE },
    broken: (_, { token }) => {
      if (!token?.claims) return undefined;
      const audiences = audiencesOf(token.claims);
      return audiences.includes(ISTIO_AUDIENCE)
        ? undefined
        : `the token is for ${audiences.join(', ') || 'no audience'}, not for ${ISTIO_AUDIENCE}`;
    },
  },
  {
    rule: 'token-audience',
    severity: 'error',
    sources: { 'kubernetes-csr': KUBE },
    broken: (_, { token }) => {
      const audiences = token?.claims ? audiencesOf(token.claims) : [];
      return audiences.length > 0 && audiences.every((each) => each === ISTIO_AUDIENCE)
        ? `the token is for ${ISTIO_AUDIENCE} alone, not for the Kubernetes API`
        : undefined;
    },
  },
  {
    rule: 'token-issuer',
    severity: 'error',
    sources: EVERYBODY,
    broken: (_, { token, issuer }) => {
      const iss = token?.claims?.iss;
      if (!token?.claims) return undefined;
      if (typeof iss !== 'string' || iss === '') return 'the token does not say who issued it';
      return issuer === undefined || iss === issuer
        ? undefined
        : `the token is issued by ${iss}, not by ${issuer}`;
    },
  },
  {
    rule: 'token-subject',
    severity: 'error',
    sources: EVERYBODY,
    broken: ({ names }, { token }, backend) => {
      const path = accountPath(token);
      const uri = names.find(({ kind }) => kind === 'uri')?.value;
      if (path === undefined || uri === undefined) return undefined;
      if (uri.replace(/^spiffe:\/\/[^/]*/, '') === path) return undefined;
      const end =
        backend === 'istiod'
          ? 'the certificate would be for the latter, and be refused here'
          : 'it is refused';
      return `the request is for ${uri}, the token for ${path.slice(1)}: ${end}`;
    },
  },
  {
    rule: 'token-trust-domain',
    severity: 'warning',
    sources: EVERYBODY,
    broken: ({ names }, { token, trustDomain, id }, backend) => {
      const asked = names
        .map(({ kind, value }) =>
          kind === 'uri' ? /^spiffe:\/\/([^/]*)/.exec(value)?.[1] : undefined,
        )
        .find(Boolean);
      // Where an identity is named, the request has been held against all of it.
      if (accountPath(token) === undefined || id !== undefined || trustDomain === undefined)
        return undefined;
      if (asked === undefined || asked === trustDomain) return undefined;
      const end =
        backend === 'istiod'
          ? 'the certificate would be of the latter, and be refused here'
          : 'it is refused';
      return `the request is of trust domain ${asked}, and a service account's is the authority's: where that is ${trustDomain}, ${end}`;
    },
  },
];

/** What the SPIFFE ID of a service account's token ends in. */
function accountPath(token: LintFacts['token']): string | undefined {
  const sub = token?.claims?.sub;
  const account =
    typeof sub === 'string' ? /^system:serviceaccount:([^:]+):([^:]+)$/.exec(sub) : undefined;
  return account ? `/ns/${account[1]}/sa/${account[2]}` : undefined;
}

function audiencesOf(claims: Readonly<Record<string, unknown>>): string[] {
  const all: unknown[] = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  return all.filter((each): each is string => typeof each === 'string');
}

const MAX_SECONDS = 8_640_000_000_000;
const instant = (seconds: number) =>
  Math.abs(seconds) <= MAX_SECONDS ? iso(seconds * 1_000) : String(seconds);
