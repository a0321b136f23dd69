import type { Mesh } from '../mesh';
import { formatPath, type Problem } from '../resources/problem';
import type { Resource } from '../resources/resource';
import { ResourceIndex } from '../select';
import type { PolicyWorkload } from '../workload';
import { allowEmptiedByDeny } from './allow-emptied-by-deny';
import { hostWithoutPort } from './host-without-port';
import { httpFieldsOnTcpPort } from './http-fields-on-tcp-port';
import { identityInPlainText } from './identity-in-plain-text';
import { IgnoredLints } from './ignored-lints';
import { jwtNotRequired } from './jwt-not-required';
import type { Lint, LintFinding } from './lint';
import { LintedSet } from './linted-set';
import { peerAuthenticationShadowed } from './peer-authentication-shadowed';
import { plainTextProbe } from './plain-text-probe';
import { portLevelMtlsWithoutPort } from './port-level-mtls-without-port';
import { requestPrincipalWithoutJwt } from './request-principal-without-jwt';
import { rootSelectorIgnored } from './root-selector-ignored';
import { selectorMatchesNothing } from './selector-matches-nothing';
import { severalProviders } from './several-providers';
import { spoofableRemoteIp } from './spoofable-remote-ip';
import { targetRefIgnored } from './target-ref-ignored';
import { tlsWithoutIstioAlpn } from './tls-without-istio-alpn';
import { unknownProvider } from './unknown-provider';
import { unknownTrustDomain } from './unknown-trust-domain';
import { unreachableRule } from './unreachable-rule';
import { valueMatchesNothing } from './value-matches-nothing';

/** Every lint, by name. */
export const LINTS: readonly Lint[] = [
  allowEmptiedByDeny,
  hostWithoutPort,
  httpFieldsOnTcpPort,
  identityInPlainText,
  jwtNotRequired,
  peerAuthenticationShadowed,
  plainTextProbe,
  portLevelMtlsWithoutPort,
  requestPrincipalWithoutJwt,
  rootSelectorIgnored,
  selectorMatchesNothing,
  severalProviders,
  spoofableRemoteIp,
  targetRefIgnored,
  tlsWithoutIstioAlpn,
  unknownProvider,
  unknownTrustDomain,
  unreachableRule,
  valueMatchesNothing,
];

/** What a lint has found, with where and in what. */
export interface Linted extends Problem {
  readonly lint: string;
  /** `AuthorizationPolicy shop/deny-admin`. */
  readonly resource: string;
}

/**
 * Looks for traps: policies that are valid and do not what they seem to. A resource turns lints off by
 * the annotation `keyturn.dev/policy-ignore: NAME,NAME`.
 *
 * @param workloads  Those that are known beyond the WorkloadEntries and Sidecars among the resources.
 * @returns          In the order of files and lines.
 */
export function lintPolicies(
  resources: readonly Resource[],
  mesh: Mesh,
  workloads: readonly PolicyWorkload[] = [],
): readonly Linted[] {
  const set = new LintedSet(new ResourceIndex(resources), mesh, workloads);
  const ignored = new IgnoredLints(LINTS.map(({ name }) => name));
  const found = LINTS.flatMap((lint) =>
    fewOfEach(lint.find(set))
      .filter(({ resource }) => !ignored.has(resource, lint.name))
      .map((each) => linted(lint.name, each)),
  );
  const misspelt = resources.flatMap((each) =>
    ignored.unknown(each).map((finding) => linted('unknown-lint', finding)),
  );
  return inOrder([...found, ...misspelt], resources);
}

/** More findings of one lint in one resource are the same finding again, and each line costs a search. */
const MAX_FINDINGS = 20;

function fewOfEach(findings: Iterable<LintFinding>): LintFinding[] {
  const count = new Map<Resource, number>();
  return [...findings].filter(({ resource }) => {
    const before = count.get(resource) ?? 0;
    count.set(resource, before + 1);
    return before < MAX_FINDINGS;
  });
}

function linted(lint: string, { resource, path, message, hint }: LintFinding): Linted {
  return {
    lint,
    resource: `${resource.kind} ${resource.namespace}/${resource.name}`,
    source: resource.at(path),
    path: formatPath(path),
    message,
    hint,
  };
}

function inOrder(found: readonly Linted[], resources: readonly Resource[]): readonly Linted[] {
  const files = new Map<string, number>();
  for (const { source } of resources)
    if (!files.has(source.file)) files.set(source.file, files.size);
  return [...found].sort(
    (one, other) =>
      files.get(one.source.file)! - files.get(other.source.file)! ||
      one.source.line - other.source.line ||
      (one.lint < other.lint ? -1 : 1),
  );
}
