import { protocolOf } from '../inbound';
import { objectOf, objectsOf, textMapOf, textOf } from '../resources/fields';
import type { FieldPath, JsonObject, Resource } from '../resources/resource';
import type { ResourceIndex } from '../select';
import type { PolicyWorkload } from '../workload';

/** A port at which a workload is called: an `ingress` of its Sidecar. */
export interface KnownPort {
  readonly number: number;
  readonly name: string;
  readonly protocol: 'HTTP' | 'TCP' | 'auto';
  readonly sidecar: Resource;
  readonly path: FieldPath;
}

/** A workload that files tell of. */
export interface KnownWorkload {
  /** Undefined for those of every namespace. */
  readonly namespace: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** Whether these are all its labels; a Sidecar names only some. */
  readonly isWhole: boolean;
  readonly ports: readonly KnownPort[];
}

/**
 * The workloads that are given, those of WorkloadEntries, and for each Sidecar that is of none of them
 * the workload that it was written for.
 */
export function knownWorkloads(
  index: ResourceIndex,
  given: readonly PolicyWorkload[],
  rootNamespace: string,
): readonly KnownWorkload[] {
  const whole = [...given, ...index.all('WorkloadEntry').map(entryWorkload)];
  const taken = new Set<Resource>();
  const known = whole.map(({ namespace, labels }): KnownWorkload => {
    const sidecar = index.sidecar({ namespace, labels }, rootNamespace);
    if (sidecar) taken.add(sidecar);
    return { namespace, labels, isWhole: true, ports: portsOf(sidecar) };
  });
  const others = index.all('Sidecar').filter((each) => !taken.has(each));
  return [
    ...known,
    ...others.map(
      (sidecar): KnownWorkload => ({
        namespace: sidecar.namespace === rootNamespace ? undefined : sidecar.namespace,
        labels: textMapOf(objectOf(sidecar.spec.workloadSelector).labels),
        isWhole: false,
        ports: portsOf(sidecar),
      }),
    ),
  ];
}

function entryWorkload({ namespace, spec }: Resource): PolicyWorkload {
  return { namespace, labels: textMapOf(spec.labels) };
}

function portsOf(sidecar: Resource | undefined): KnownPort[] {
  if (!sidecar) return [];
  return objectsOf(sidecar.spec.ingress).map((entry, index) => portOf(sidecar, entry, index));
}

function portOf(sidecar: Resource, entry: JsonObject, index: number): KnownPort {
  const port = objectOf(entry.port);
  return {
    number: Number(port.number),
    name: textOf(port.name) ?? '',
    protocol: protocolOf(entry),
    sidecar,
    path: ['spec', 'ingress', index, 'port'],
  };
}
