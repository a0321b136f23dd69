import { isMembers, type Members, type Path } from './changes';
import type { Finding } from './findings';

/** The fields of a pod that injection looks at, read from a value that may be anything. What is not listed is the API server's to judge. */
export interface PodShape {
  readonly labels: Members;
  readonly annotations: Members;
  readonly restartPolicy: string | undefined;
  readonly os: string | undefined;
  readonly hostNetwork: boolean;
  readonly hostPid: boolean;
  readonly shareProcessNamespace: boolean;
  readonly runAsUser: number | undefined;
  readonly containers: readonly ContainerShape[];
  readonly initContainers: readonly ContainerShape[];
  readonly volumes: readonly VolumeShape[];
}

export interface ContainerShape {
  readonly path: Path;
  readonly fields: Members;
  readonly name: string;
  readonly runAsUser: number | undefined;
  readonly ports: readonly {
    readonly path: Path;
    readonly port: number | undefined;
    readonly protocol: string | undefined;
  }[];
  readonly mounts: readonly {
    readonly path: Path;
    readonly fields: Members;
    readonly volume: string;
    readonly mountPath: string;
  }[];
}

export interface VolumeShape {
  readonly path: Path;
  readonly fields: Members;
  readonly name: string;
}

/** A pod that can be read, or every field that is not what it has to be. */
export type PodReading =
  | { readonly kind: 'pod'; readonly pod: PodShape }
  | { readonly kind: 'malformed'; readonly problems: readonly Finding[] };

/** Far more than a node could run; each is compared with each of ours. */
const MAX_ITEMS = 1_000;

/** Reads `{ metadata, spec }` of a Pod or of a pod template. Null is the same as absent, as for the API server. */
export function readPod(template: unknown): PodReading {
  const problems: Finding[] = [];
  const read = new Reader(problems);
  const root = read.members(template, []) ?? {};
  const metadata = read.members(root.metadata, ['metadata']) ?? {};
  const spec = read.members(root.spec, ['spec']);
  if (!spec && problems.length === 0)
    problems.push({ path: ['spec'], rule: 'is missing: there is no pod to inject into' });
  const at = spec ?? {};
  const pod: PodShape = {
    labels: read.texts(metadata.labels, ['metadata', 'labels']),
    annotations: read.texts(metadata.annotations, ['metadata', 'annotations']),
    restartPolicy: read.text(at.restartPolicy, ['spec', 'restartPolicy']),
    os: read.os(at),
    hostNetwork: read.flag(at.hostNetwork, ['spec', 'hostNetwork']),
    hostPid: read.flag(at.hostPID, ['spec', 'hostPID']),
    shareProcessNamespace: read.flag(at.shareProcessNamespace, ['spec', 'shareProcessNamespace']),
    runAsUser: read.user(at.securityContext, ['spec', 'securityContext']),
    containers: read.containers(at.containers, ['spec', 'containers']),
    initContainers: read.containers(at.initContainers, ['spec', 'initContainers']),
    volumes: read.named(at.volumes, ['spec', 'volumes']),
  };
  if (spec && pod.containers.length === 0 && problems.length === 0)
    problems.push({ path: ['spec', 'containers'], rule: 'must have one' });
  return problems.length === 0 ? { kind: 'pod', pod } : { kind: 'malformed', problems };
}

/** Reads typed values; what has another type becomes a problem and counts as absent. */
class Reader {
  constructor(private readonly problems: Finding[]) {}

  members(value: unknown, path: Path): Members | undefined {
    return this.check(value, path, isMembers, 'must be a mapping');
  }

  list(value: unknown, path: Path): readonly unknown[] {
    const isShort = (each: unknown): each is unknown[] =>
      Array.isArray(each) && each.length <= MAX_ITEMS;
    return this.check(value, path, isShort, `must be a list of at most ${MAX_ITEMS}`) ?? [];
  }

  text(value: unknown, path: Path): string | undefined {
    return this.check(value, path, (each) => typeof each === 'string', 'must be text');
  }

  flag(value: unknown, path: Path): boolean {
    return (
      this.check(value, path, (each) => typeof each === 'boolean', 'must be true or false') ?? false
    );
  }

  whole(value: unknown, path: Path): number | undefined {
    return this.check(
      value,
      path,
      (each): each is number => Number.isInteger(each),
      'must be a whole number',
    );
  }

  texts(value: unknown, path: Path): Members {
    const found = this.members(value, path) ?? {};
    for (const [key, each] of Object.entries(found)) this.text(each, [...path, key]);
    return found;
  }

  user(value: unknown, path: Path): number | undefined {
    return this.whole(this.members(value, path)?.runAsUser, [...path, 'runAsUser']);
  }

  os(spec: Members): string | undefined {
    const named = this.text(this.members(spec.os, ['spec', 'os'])?.name, ['spec', 'os', 'name']);
    const selected = this.texts(spec.nodeSelector, ['spec', 'nodeSelector'])[OS_LABEL];
    return named ?? (typeof selected === 'string' ? selected : undefined);
  }

  named(value: unknown, path: Path): VolumeShape[] {
    return this.list(value, path).flatMap((item, index) => {
      const fields = this.needed(item, [...path, index], (each, at) => this.members(each, at));
      const name =
        fields &&
        this.needed(fields.name, [...path, index, 'name'], (each, at) => this.text(each, at));
      return fields && name !== undefined ? [{ path: [...path, index], fields, name }] : [];
    });
  }

  containers(value: unknown, path: Path): ContainerShape[] {
    return this.named(value, path).map(({ path: at, fields, name }) => ({
      path: at,
      fields,
      name,
      runAsUser: this.user(fields.securityContext, [...at, 'securityContext']),
      ports: this.list(fields.ports, [...at, 'ports']).flatMap((item, index) => {
        const here = [...at, 'ports', index];
        const port = this.needed(item, here, (each, where) => this.members(each, where));
        if (!port) return [];
        const [number, protocol] = [
          this.whole(port.containerPort, [...here, 'containerPort']),
          this.text(port.protocol, [...here, 'protocol']),
        ];
        return [{ path: [...here, 'containerPort'], port: number, protocol }];
      }),
      mounts: this.named(fields.volumeMounts, [...at, 'volumeMounts']).flatMap((mount) => {
        const where = [...mount.path, 'mountPath'];
        const mountPath = this.needed(mount.fields.mountPath, where, (each, here) =>
          this.text(each, here),
        );
        return mountPath === undefined
          ? []
          : [{ path: where, fields: mount.fields, volume: mount.name, mountPath }];
      }),
    }));
  }

  private needed<T>(
    value: unknown,
    path: Path,
    read: (value: unknown, path: Path) => T | undefined,
  ): T | undefined {
    if (value === undefined || value === null) this.problems.push({ path, rule: 'is missing' });
    return read(value, path);
  }

  private check<T>(
    value: unknown,
    path: Path,
    is: (value: unknown) => value is T,
    rule: string,
  ): T | undefined {
    if (value === undefined || value === null) return undefined;
    if (is(value)) return value;
    this.problems.push({ path, rule });
    return undefined;
  }
}

const OS_LABEL = 'kubernetes.io/os';
