/**
 * The groups that the API server gives to a service account of a namespace. A name alone makes none: an OpenID provider, a webhook or a client
 * certificate may give any name.
 *
 * @see https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
 */
export function serviceAccountGroups(namespace: string): readonly string[] {
  return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`];
}
