import type { CsrReading } from './csr-reading';

/** Who is to sign. `istiod-ra` is istiod that has a Kubernetes signer sign; `builtin` is our own authority, in process or as `ca serve`. */
export const LINT_BACKENDS = [
  'istiod',
  'istiod-ra',
  'istio-csr',
  'kubernetes-csr',
  'builtin',
] as const;
export type LintBackend = (typeof LINT_BACKENDS)[number];

/** What is sent beside the request, as far as it is known. What is undefined is not judged. */
export interface LintFacts {
  readonly now: number;
  /** The life to ask for. */
  readonly ttlSeconds?: number | undefined;
  /** What the token says of itself; undefined claims where it is no JWT. */
  readonly token?: { readonly claims: Readonly<Record<string, unknown>> | undefined } | undefined;
  /** The blocks of the file that holds the request, by their labels; undefined where it is in no file. */
  readonly pemLabels?: readonly string[] | undefined;
  /** The issuer that the authority believes, e.g. of `ca serve --oidc-issuer`. */
  readonly issuer?: string | undefined;
  readonly clusterId?: string | undefined;
  /** Of `kubernetes-csr`. */
  readonly signerName?: string | undefined;
  /** The trust domain that the agent is set up for, be it by default: that of the authority, as far as anybody knows. */
  readonly trustDomain?: string | undefined;
  /** The SPIFFE ID that the request is to be for; undefined where nobody says. */
  readonly id?: string | undefined;
}

/** `error`: the authority refuses it, or the agent would have to refuse what comes back. `warning`: it is answered otherwise than asked. */
export interface LintFinding {
  /** e.g. `csr-common-name`. */
  readonly rule: string;
  readonly severity: 'error' | 'warning';
  /** What is there and what follows, lower case, no full stop. */
  readonly detail: string;
  /** Who holds the rule, e.g. `istio-csr`. */
  readonly source: string;
}

/** One rule: whose it is, by backend, and what breaks it. */
export interface LintRule {
  readonly rule: string;
  readonly severity: LintFinding['severity'];
  readonly sources: Readonly<Partial<Record<LintBackend, string>>>;
  /** The detail, or undefined where the rule is kept. */
  readonly broken: (csr: CsrReading, facts: LintFacts, backend: LintBackend) => string | undefined;
}
