import { jsonPatch } from '../inject/changes';
import { type Finding, fieldName } from '../inject/findings';
import type { Injection } from '../inject/inject-pod';
import { INJECT_MARK } from '../inject/names';
import type { AdmissionRequest, Verdict } from './admission-review';

/** What becomes of a pod; see `injectPod`. */
export type InjectPod = (pod: unknown) => Injection;

/** Static pods are shown to the API server by the node that runs them: a change of what it shows is none of the pod. */
const MIRROR = 'kubernetes.io/config.mirror';

/**
 * Decides one request. Whoever asked for an identity and cannot have it is told so while they look: a pod that starts without would be found
 * out by its peers. What is not a pod that is made is a configuration of somebody's mistake, and told as well.
 */
export function admit(request: AdmissionRequest, inject: InjectPod): Verdict {
  const { kind, operation, subResource, namespace, object } = request;
  if (kind !== 'v1/Pod') return wrong('request.kind', `must be v1/Pod, not ${kind}`);
  if (operation !== 'CREATE') return wrong('request.operation', `must be CREATE, not ${operation}`);
  if (subResource !== '') return wrong('request.subResource', `must be empty, not ${subResource}`);
  if (namespace === '') return wrong('request.namespace', 'must not be empty');
  if (typeof object !== 'object' || object === null || Array.isArray(object))
    return wrong('request.object', 'must be an object');
  const [metadata, spec] = [membersOf(object, 'metadata'), membersOf(object, 'spec')];
  const [annotations, labels] = [membersOf(metadata, 'annotations'), membersOf(metadata, 'labels')];
  // No API server keeps as many; a pod that has them is to keep others waiting.
  const crowded = crowdedAmong([
    ['', object, MAX_FIELDS],
    ['.metadata', metadata, MAX_FIELDS],
    ['.spec', spec, MAX_FIELDS],
    ['.metadata.labels', labels, MAX_MARKS],
    ['.metadata.annotations', annotations, MAX_MARKS],
  ]);
  if (crowded) return crowded;
  if (MIRROR in annotations) return UNCHANGED;
  const injection = inject(object);
  switch (injection.kind) {
    case 'left-alone':
      return UNCHANGED;
    case 'injected':
      return {
        kind: 'allowed',
        patch: jsonPatch(injection.changes),
        warnings: injection.notes.map((note) => `keyturn: ${sentence(note)}`),
      };
    case 'refused': {
      const why = injection.problems.slice(0, MAX_PROBLEMS).map(sentence).join('; ');
      return {
        kind: 'denied',
        status: 422,
        message: `the agent cannot be injected: ${why}; label the pod ${INJECT_MARK}=false to run it without`,
      };
    }
  }
}

const UNCHANGED: Verdict = { kind: 'allowed', patch: [], warnings: [] };
/** A pod may have hundreds of containers with the same mistake. */
const MAX_PROBLEMS = 8;
const MAX_MARKS = 10_000;
/** Of what has fields of its own: Kubernetes knows some dozens, and each of them is copied. */
const MAX_FIELDS = 1_000;

function sentence({ path, rule, hint }: Finding): string {
  return `${fieldName(path)} ${rule}${hint === undefined ? '' : ` (${hint})`}`;
}

/** As far as they are there; whatever else is wrong with them is for `inject` to say. */
function membersOf(value: object, name: string): object {
  const found = (value as Readonly<Record<string, unknown>>)[name];
  return typeof found === 'object' && found !== null ? found : {};
}

function crowdedAmong(
  each: readonly (readonly [field: string, members: object, most: number])[],
): Verdict | undefined {
  const [field, , most] =
    each.find(([, members, atMost]) => Object.keys(members).length > atMost) ?? [];
  return field === undefined
    ? undefined
    : wrong(`request.object${field}`, `must not be more than ${most}`);
}

function wrong(field: string, rule: string): Verdict {
  return { kind: 'denied', status: 400, message: `${field}: ${rule.slice(0, 200)}` };
}
