import type { SignRequest } from '../ca-client';
import type { LintBackend, LintFacts } from '../lint/lint-rule';
import type { IstioCaOptions } from './options';

/** Who refused a request, and what for. */
export interface Refuser {
  /** As in `--ca`. */
  readonly name: IstioCaOptions['name'];
  /** It is an authority of `keyturn ca serve`, which is asked as istiod is. */
  readonly isKeyturn: boolean;
  /** It says that it does not know the caller. */
  readonly isUnauthenticated: boolean;
}

/** Whose rules may have refused a request. istiod may have others sign, who are stricter: that does not show from outside. */
const BACKENDS: Readonly<Record<IstioCaOptions['name'], readonly LintBackend[]>> = {
  istiod: ['istiod', 'istiod-ra'],
  'istio-csr': ['istio-csr'],
};

/** What the local linter has against a request. */
export interface BrokenRules {
  /** For a hint; undefined where no rule is known to be broken. */
  readonly text: string | undefined;
  /** One that the CA refuses it by, whoever signs for it. */
  readonly isError: boolean;
}

/** A token may be a second younger than our clock: time mends it, and soon. */
const PASSING = 'token-not-before';

/**
 * Which rules of the CA a refused request breaks, by the local linter: the CA itself says little. Warnings follow the errors, for what is
 * taken by most may be refused by this one. Loaded only now, for it is seldom needed.
 */
export async function brokenRules(
  by: Refuser,
  request: SignRequest,
  facts: LintFacts,
): Promise<BrokenRules> {
  const { lintCsr } = await import('../lint/csr-lint');
  const backends: readonly LintBackend[] = by.isKeyturn ? ['builtin'] : BACKENDS[by.name];
  // Only istio-csr looks at a request before it knows whose it is, and says UNAUTHENTICATED for both.
  const isOfRequest = !by.isUnauthenticated || by.name === 'istio-csr';
  const found = backends
    .map((backend) =>
      lintCsr(request.csrDer, backend, { ...facts, ttlSeconds: request.ttlSeconds }),
    )
    .map((each) => each.filter(({ rule }) => isOfRequest || rule.startsWith('token-')));
  const errorsOf = found.map((each) => each.filter(({ severity }) => severity === 'error'));
  const errors = errorsOf.find((each) => each.length > 0) ?? [];
  const warnings = found[0]!.filter(({ severity }) => severity === 'warning');
  const texts = [
    ...errors.map(({ rule, detail, source }) => `${source} has the rule ${rule}: ${detail}`),
    ...warnings.map(
      ({ rule, detail, source }) => `${source} has a warning by the rule ${rule}: ${detail}`,
    ),
  ];
  return {
    text: texts.length === 0 ? undefined : texts.join('; '),
    isError: errorsOf.every((each) => each.some(({ rule }) => rule !== PASSING)),
  };
}
