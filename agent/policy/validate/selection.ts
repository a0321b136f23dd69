import { isObject, objectOf, objectsOf, textOf } from '../resources/fields';
import type { FieldPath, JsonObject } from '../resources/resource';
import type { Check } from './check';

const TARGETS = [
  '/Service',
  'networking.istio.io/ServiceEntry',
  'gateway.networking.k8s.io/Gateway',
  'gateway.networking.k8s.io/GatewayClass',
];

/** Which workloads a policy is for: a selector, or targets, which are for gateways. */
export function checkSelection(check: Check): void {
  const { spec } = check.resource;
  const ways = [
    'selector' in spec,
    'targetRef' in spec,
    objectsOf(spec.targetRefs).length > 0,
  ].filter(Boolean);
  if (ways.length > 1)
    check.refuse(['spec'], 'must have only one of selector, targetRef and targetRefs');
  check.labels(objectOf(spec.selector).matchLabels, ['spec', 'selector', 'matchLabels']);
  if (isObject(spec.targetRef)) checkTarget(check, spec.targetRef, ['spec', 'targetRef']);
  for (const { item, at } of check.each(spec.targetRefs, ['spec', 'targetRefs']))
    checkTarget(check, item, at);
}

function checkTarget(check: Check, target: JsonObject, at: FieldPath): void {
  check.needed(target.name, [...at, 'name']);
  if (textOf(target.namespace))
    check.refuse([...at, 'namespace'], 'must be absent: a target is of the same namespace');
  const kind = `${textOf(target.group) ?? ''}/${textOf(target.kind) ?? ''}`;
  if (!TARGETS.includes(kind.replace(/^core\//, '/')))
    check.refuse([...at, 'kind'], `must be one of ${TARGETS.join(', ')}, not ${kind}`);
}
