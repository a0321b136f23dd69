import type { SignRequest } from '../ca-client';
import type { LintBackend, LintFacts } from '../lint-rule';
import type { IstioCaOptions } from './options';

/** Whose rules may have refused a request. istiod may have others sign, who are stricter: that does not show from outside. */
const BACKENDS: Readonly<Record<IstioCaOptions['name'], readonly LintBackend[]>> = {
  istiod: ['istiod', 'istiod-ra'],
  'istio-csr': ['istio-csr'],
};

/**
 * Which rules of the CA a refused request breaks, by the local linter: the CA itself says little. Loaded only now, for it is seldom needed.
 *
 * @returns For a hint; undefined where no rule is known to be broken.
 */
export async function brokenRules(ca: IstioCaOptions['name'], request: SignRequest, facts: LintFacts): Promise<string | undefined> {
  const { lintCsr } = await import('../csr-lint');
  for (const backend of BACKENDS[ca]) {
    const errors = lintCsr(request.csrDer, backend, { ...facts, ttlSeconds: request.ttlSeconds }).filter(
      ({ severity }) => severity === 'error',
    );
    if (errors.length > 0) return errors.map(({ rule, detail, source }) => `${source} has the rule ${rule}: ${detail}`).join('; ');
  }
  return undefined;
}
