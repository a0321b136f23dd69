import { type Services, servicesOf } from './authz/providers';
import { compareTexts, objectOf, objectsOf } from './resources/fields';
import type { Resource, ResourceKind } from './resources/resource';
import { matchLabels, type PolicyWorkload, selects } from './workload';

/** Resources by kind and namespace, the oldest first, then by name; read once for all workloads. */
export class ResourceIndex {
  readonly #byKind = new Map<ResourceKind, Map<string, Resource[]>>();
  /** Where authorizers are found. */
  readonly services: Services;

  constructor(resources: readonly Resource[]) {
    for (const each of [...resources].sort(oldestFirst)) {
      const kind = this.#byKind.get(each.kind) ?? new Map<string, Resource[]>();
      this.#byKind.set(each.kind, kind);
      const known = kind.get(each.namespace);
      if (known) known.push(each);
      else kind.set(each.namespace, [each]);
    }
    this.services = servicesOf(this.all('ServiceEntry'));
  }

  of(kind: ResourceKind, namespace: string): readonly Resource[] {
    return this.#byKind.get(kind)?.get(namespace) ?? [];
  }

  all(kind: ResourceKind): readonly Resource[] {
    return [...(this.#byKind.get(kind)?.values() ?? [])].flat();
  }

  /**
   * The policies of a kind that select the workload, of the namespaces in this order. Those that name a
   * target are for gateways.
   */
  selecting(
    kind: ResourceKind,
    { labels }: PolicyWorkload,
    namespaces: readonly string[],
  ): Resource[] {
    return [...new Set(namespaces)].flatMap((namespace) =>
      this.of(kind, namespace).filter(
        ({ spec }) => !hasTarget(spec) && selects(matchLabels(spec), labels),
      ),
    );
  }

  /** The Sidecar of a workload: with a selector before one without, the root namespace's last. */
  sidecar({ namespace, labels }: PolicyWorkload, rootNamespace: string): Resource | undefined {
    const own = this.of('Sidecar', namespace);
    return (
      own.find(({ spec }) => 'workloadSelector' in spec && selects(sidecarLabels(spec), labels)) ??
      own.find(({ spec }) => !('workloadSelector' in spec)) ??
      this.of('Sidecar', rootNamespace).find(({ spec }) => !('workloadSelector' in spec))
    );
  }
}

const sidecarLabels = (spec: Resource['spec']) => objectOf(objectOf(spec.workloadSelector).labels);

export function hasTarget(spec: Resource['spec']): boolean {
  return 'targetRef' in spec || objectsOf(spec.targetRefs).length > 0;
}

function oldestFirst(one: Resource, other: Resource): number {
  return (
    (one.createdAt ?? NEVER) - (other.createdAt ?? NEVER) ||
    compareTexts(one.name, other.name) ||
    compareTexts(one.namespace, other.namespace)
  );
}

/** A file without a timestamp is older than every one that has it. */
const NEVER = Number.MIN_SAFE_INTEGER;
