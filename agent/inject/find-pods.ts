import { isMembers, type Members, type Path } from './changes';

/** A Kubernetes object of a manifest, by the name that people know it by. */
export interface ManifestObject {
  /** `Deployment shop/cart`. */
  readonly title: string;
  /** Within its document. */
  readonly path: Path;
  /** Of what has `metadata` and `spec` of a pod; undefined where the object makes no pods that we know of. */
  readonly pod: Path | undefined;
  /** What looks like the template of pods in an object of a kind that we do not know, whose controller may read it in its own way. */
  readonly unknownTemplate?: Path;
}

/** Why a document is no manifest. */
export interface NoObject {
  readonly path: Path;
  readonly rule: string;
}

/** Where each kind keeps its pod, by API group and kind. */
const POD_PATHS: Readonly<Record<string, Path>> = Object.assign(Object.create(null), {
  '/Pod': [],
  '/PodTemplate': ['template'],
  '/ReplicationController': ['spec', 'template'],
  'apps/DaemonSet': ['spec', 'template'],
  'apps/Deployment': ['spec', 'template'],
  'apps/ReplicaSet': ['spec', 'template'],
  'apps/StatefulSet': ['spec', 'template'],
  'batch/CronJob': ['spec', 'jobTemplate', 'spec', 'template'],
  'batch/Job': ['spec', 'template'],
} satisfies Record<string, Path>);

/** A list within a list is possible, and nobody writes one. */
const MAX_LISTS = 3;

/** Every object of a document in its order: one, those of a List, or none of an empty one. */
export function findObjects(value: unknown, path: Path = []): (ManifestObject | NoObject)[] {
  if (value === null || value === undefined) return [];
  if (!isMembers(value))
    return [{ path, rule: 'must be a mapping, as every Kubernetes object is' }];
  const { apiVersion, kind } = value;
  if (typeof kind !== 'string' || kind === '')
    return [{ path: [...path, 'kind'], rule: 'must say what it is: this is no Kubernetes object' }];
  if (typeof apiVersion !== 'string')
    return [{ path: [...path, 'apiVersion'], rule: 'must be text, e.g. apps/v1' }];
  if (kind === 'List' && apiVersion === 'v1') return findItems(value.items, [...path, 'items'], {});
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  const itemKind = kind.endsWith('List') ? kind.slice(0, -'List'.length) : '';
  // As the API server answers when it is asked for all: the items need not say again what they are.
  if (POD_PATHS[`${group}/${itemKind}`])
    return findItems(value.items, [...path, 'items'], { apiVersion, kind: itemKind });
  const below = POD_PATHS[`${group}/${kind}`];
  const object = { title: titleOf(kind, value.metadata), path, pod: below && [...path, ...below] };
  const looksLikePods =
    below === undefined && Array.isArray(valueAt(value, [...TEMPLATE, 'spec', 'containers']));
  return [looksLikePods ? { ...object, unknownTemplate: [...path, ...TEMPLATE] } : object];
}

const TEMPLATE: Path = ['spec', 'template'];

/** What is at a path, or undefined. */
export function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((at, part) => {
    if (typeof part === 'number') return Array.isArray(at) ? at[part] : undefined;
    return isMembers(at) && Object.hasOwn(at, part) ? at[part] : undefined;
  }, value);
}

/** @param common  What every item is where it says nothing else. */
function findItems(items: unknown, path: Path, common: Members): (ManifestObject | NoObject)[] {
  if (items === null || items === undefined) return [];
  if (!Array.isArray(items)) return [{ path, rule: 'must be a list' }];
  const lists = path.filter((part) => part === 'items').length;
  if (lists > MAX_LISTS)
    return [{ path, rule: `must not be a list in more than ${MAX_LISTS - 1} others` }];
  return items.flatMap((item, index) => {
    const found = findObjects(isMembers(item) ? { ...common, ...item } : item, [...path, index]);
    return item === null ? [{ path: [...path, index], rule: 'is empty' }] : found;
  });
}

function titleOf(kind: string, metadata: unknown): string {
  const { name, generateName, namespace }: Members = isMembers(metadata) ? metadata : {};
  const known = [name, generateName].find((each) => typeof each === 'string');
  const place = typeof namespace === 'string' ? `${namespace}/` : '';
  return `${kind}${known === undefined ? '' : ` ${place}${known}`}`.slice(0, 200);
}
