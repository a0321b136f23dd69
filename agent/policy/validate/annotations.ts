import { actionOf } from '../authz/rbac';
import type { Check } from './check';

const DRY_RUN = 'istio.io/dry-run';
/** What Go's ParseBool takes. */
const BOOLEANS = /^([1tT0fF]|true|TRUE|True|false|FALSE|False)$/;

/** Annotations that istiod keeps for itself. */
const INTERNAL = [
  'internal.istio.io/webhook-always-reject',
  'internal.istio.io/parents',
  'internal.istio.io/parent-namespace',
];

/** @see istio pkg/config/validation validateMetadata */
export function checkAnnotations(check: Check): void {
  const { kind, annotations, spec } = check.resource;
  const path = (name: string) => ['metadata', 'annotations', name];
  for (const name of INTERNAL)
    if (Object.hasOwn(annotations, name)) check.refuse(path(name), 'is for istiod alone');
  if (!Object.hasOwn(annotations, DRY_RUN)) return;
  const hasDryRun = kind === 'AuthorizationPolicy' && ['ALLOW', 'DENY'].includes(actionOf(spec));
  if (!hasDryRun)
    check.refuse(path(DRY_RUN), 'is only for an AuthorizationPolicy of action ALLOW or DENY');
  else if (!BOOLEANS.test(annotations[DRY_RUN]!))
    check.refuse(path(DRY_RUN), 'must be "true" or "false"');
}
