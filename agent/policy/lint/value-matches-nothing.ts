import type { RuleField } from './fields';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see Istio, AuthorizationPolicy Source and Operation; values are compared with case and as a whole */
export const valueMatchesNothing: Lint = {
  name: 'value-matches-nothing',
  summary: 'A value has a form that no identity, method or path has.',
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const rule of set.rulesOf('ALLOW', 'DENY', 'AUDIT', 'CUSTOM'))
      for (const field of rule.fields)
        for (const [index, value] of field.values.entries()) {
          const found = problemOf(field, value);
          if (found) yield { resource: rule.policy, path: [...field.path, index], ...found };
        }
  },
};

function problemOf({ attribute }: RuleField, value: string) {
  switch (attribute) {
    case 'source.principal':
      return principalProblem(value);
    case 'request.method':
      return value === value.toUpperCase() ? undefined : methodProblem(value);
    case 'request.path':
      return pathProblem(value);
    default:
      return undefined;
  }
}

function principalProblem(value: string) {
  if (value.startsWith('spiffe://'))
    return {
      message: 'matches no peer: principals are written without spiffe://',
      hint: `write ${value.slice('spiffe://'.length)}`,
    };
  if (value.slice(1, -1).includes('*'))
    return {
      message: 'matches no peer: * stands for anything only at the start or the end',
      hint: 'write serviceAccounts or namespaces for parts of an identity',
    };
  if (value.includes('*') || /^[^/]+\/ns\/[^/]+\/sa\/[^/]+$/.test(value)) return undefined;
  return {
    message: 'matches no peer of the mesh: an identity is TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT',
    hint: 'write the whole identity, or * at its start or end',
  };
}

function methodProblem(value: string) {
  return {
    message: `${value} is no method: they are compared with case`,
    hint: `write ${value.toUpperCase()}`,
  };
}

function pathProblem(value: string) {
  if (/[?#]/.test(value))
    return {
      message: 'matches no path: the query is not part of it',
      hint: `write ${value.replace(/[?#].*/, '') || '/'}`,
    };
  if (value.startsWith('/') || value.startsWith('*')) return undefined;
  // A template says less: its operators may stand first.
  if (value.startsWith('{')) return undefined;
  return { message: 'matches no path: they begin with /', hint: `write /${value}` };
}
