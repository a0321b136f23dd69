import type { SignRequest } from '../ca-client';
import type { LintBackend, LintFacts } from '../lint-rule';
import type { IstioCaOptions } from './options';

/** Whose rules may have refused a request. istiod may have others sign, who are stricter: that does not show from outside. */
const BACKENDS: Readonly<Record<IstioCaOptions['name'], readonly LintBackend[]>> = {
  istiod: ['istiod', 'istiod-ra'],
  'istio-csr': ['istio-csr'],
};

/**
 * Which rules of the CA a refused request breaks, by the local linter: the CA itself says little. Warnings follow the errors, for what is
 * taken by most may be refused by this one. Loaded only now, for it is seldom needed.
 *
 * @returns For a hint; undefined where no rule is known to be broken.
 */
export async function brokenRules(ca: IstioCaOptions['name'], request: SignRequest, facts: LintFacts): Promise<string | undefined> {
  const { lintCsr } = await import('../csr-lint');
  const found = BACKENDS[ca].map((backend) => lintCsr(request.csrDer, backend, { ...facts, ttlSeconds: request.ttlSeconds }));
  const errors = found.map((each) => each.filter(({ severity }) => severity === 'error')).find((each) => each.length > 0) ?? [];
  const warnings = found[0]!.filter(({ severity }) => severity === 'warning');
  const texts = [
    ...errors.map(({ rule, detail, source }) => `${source} has the rule ${rule}: ${detail}`),
    ...warnings.map(({ rule, detail, source }) => `${source} has a warning by the rule ${rule}: ${detail}`),
  ];
  return texts.length === 0 ? undefined : texts.join('; ');
}
