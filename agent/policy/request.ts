import { compareTexts, objectsOf, textOf, textsOf, withoutDefaults } from './resources/fields';
import type { JsonObject, Resource } from './resources/resource';

/**
 * A public key whose private half was never kept: where keys could not be had, tokens are refused and
 * requests without one pass, as with a RequestAuthentication whose tokens are all wrong.
 */
const NO_TOKEN_JWKS = JSON.stringify(
  {
    keys: [
      {
        kty: 'RSA',
        e: 'AQAB',
        n: 'uGYuDdUjCOTvQ6aPv8bUIHxwQr4atfWqtwXxN4SOalnUvlQwkJ86g1ZmsBWfbAFRUDHITDItvcvgR36CzPJ2P-5nI6ULC9har4aZvDKi3NqxR_8dogLHVbwh-7s5EDRYAtpC2Kqi-MXd8sN9irx5jIBxgs_xrHa5h0vqZdpw-R4oHDipK53vlgNXB3okgzsTEHQo8Gh_3cfrcv9eS9oG3C3uw3nAvqe9PgnhOw3K9m2m90XyM98sjqIX9v0XojjkS3mR4CypLvjw-uPRdhmq207LAEcOIV45iX5LkERqh7SpzllHqJWke7M7ErRKW5DkXZ_tX0dFGJKu8_BxCWxiEQ',
      },
    ],
  },
  null,
  2,
);

/** What is named as space-delimited everywhere. */
const SPACE_DELIMITED = ['permission', 'scope'];

/**
 * The JWT filter of a workload's RequestAuthentications: a token that is shown must be good for one of
 * the providers; none need be shown.
 *
 * @param policies  Those that select the workload.
 * @returns         `envoy.filters.http.jwt_authn`, or undefined where there is no rule.
 * @see Istio, RequestAuthentication; istio pilot/pkg/security/authn
 */
export function jwtFilter(policies: readonly Resource[]): JsonObject | undefined {
  const rules = policies
    .flatMap(({ spec }) => objectsOf(spec.jwtRules))
    // Sorted as bytes are, which the code units of issuers, being ASCII, are too.
    .sort((one, other) => compareTexts(String(one.issuer ?? ''), String(other.issuer ?? '')));
  if (rules.length === 0) return undefined;
  const names = rules.map((_, index) => `origins-${index}`);
  const providers = Object.fromEntries(
    rules.map((rule, index) => [names[index], providerOf(rule)]),
  );
  return {
    name: 'envoy.filters.http.jwt_authn',
    typedConfig: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication',
      providers,
      rules: [{ match: { prefix: '/' }, requires: requirementOf(names) }],
      bypassCorsPreflight: true,
    },
  };
}

function requirementOf(names: readonly string[]): JsonObject {
  const missing = names.map((providerName) => anyOf([{ providerName }, { allowMissing: {} }]));
  if (missing.length === 1) return missing[0]!;
  // Providers that look in one location would refuse each other's tokens if all had to agree.
  return anyOf([
    ...names.map((providerName) => ({ providerName })),
    { requiresAll: { requirements: missing } },
  ]);
}

const anyOf = (requirements: readonly JsonObject[]): JsonObject => ({
  requiresAny: { requirements },
});

function providerOf(rule: JsonObject): JsonObject {
  const delimited = new Set([...textsOf(rule.spaceDelimitedClaims), ...SPACE_DELIMITED]);
  return withoutDefaults({
    issuer: rule.issuer,
    audiences: rule.audiences,
    forward: rule.forwardOriginalToken,
    forwardPayloadHeader: rule.outputPayloadToHeader,
    payloadInMetadata: 'payload',
    normalizePayloadInMetadata: { spaceDelimitedClaims: [...delimited].sort() },
    claimToHeaders: objectsOf(rule.outputClaimToHeaders).map(({ header, claim }) =>
      withoutDefaults({ headerName: header, claimName: claim }),
    ),
    fromHeaders: objectsOf(rule.fromHeaders).map(({ name, prefix }) =>
      withoutDefaults({ name, valuePrefix: prefix }),
    ),
    fromParams: rule.fromParams,
    fromCookies: rule.fromCookies,
    localJwks: { inlineString: textOf(rule.jwks) ?? NO_TOKEN_JWKS },
  });
}
