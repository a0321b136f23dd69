import { type Change, changesBetween, isMembers, type Members } from './changes';
import {
  agentContainer,
  envoyContainer,
  envoyMount,
  ourVolumes,
  type Surroundings,
} from './containers';
import { findEnvoyContainer } from './envoy-container';
import type { Finding } from './findings';
import { INJECTED_ANNOTATION, OUR_CONTAINERS, OUR_VOLUMES, SOCKET_VOLUME } from './names';
import type { InjectOptions } from './options';
import { foreignContainers, isInjected, notesOf, optsOut, problemsOf } from './pod-rules';
import { type ContainerShape, type PodShape, readPod } from './pod-shape';
import { withServerDefaults } from './server-defaults';

/** What becomes of one pod. */
export type Injection =
  /** `changes` is empty where it is as it should be already. `notes` are for a person's eyes. */
  | {
      readonly kind: 'injected';
      readonly after: Members;
      readonly changes: readonly Change[];
      readonly notes: readonly Finding[];
    }
  /** Its own label or annotation wants it so. */
  | { readonly kind: 'left-alone' }
  /** It cannot be done; every field that stands against it. */
  | { readonly kind: 'refused'; readonly problems: readonly Finding[] };

/**
 * Puts the agent into a pod, or brings one that has it up to date. Pure: no input is changed, equal inputs give equal answers, and injecting
 * what was injected changes nothing. It never throws for what a pod says.
 *
 * ```ts
 * const injection = injectPod(pod, options);
 * if (injection.kind === 'injected') answer(jsonPatch(injection.changes));
 * if (injection.kind === 'refused') refuse(injection.problems.map(({ path, rule }) => `${fieldName(path)}: ${rule}`));
 * ```
 *
 * @param template  Any value: a Pod, or the `template` of what makes pods; its `metadata` and `spec` are looked at. Untrusted.
 * @returns         Paths of changes and findings are below `template`: `['spec', 'containers', 0]`. `jsonPatch` in changes.ts makes an
 *                  RFC 6902 patch of the changes, `fieldName` in findings.ts the name of a field.
 * @throws          AgentError ERR_CONFIG | ERR_IDENTITY_INVALID only for options that `createBootstrap` refuses, whatever the pod.
 */
export function injectPod(template: unknown, options: InjectOptions): Injection {
  const reading = readPod(template);
  if (reading.kind === 'malformed') return { kind: 'refused', problems: reading.problems };
  const { pod } = reading;
  if (optsOut(pod)) return { kind: 'left-alone' };
  const place = findEnvoyContainer(pod, options);
  const problems = [
    ...problemsOf(pod, options),
    ...(place.kind === 'refused' ? place.problems : []),
  ];
  if (problems.length > 0 || place.kind === 'refused') return { kind: 'refused', problems };
  const before = template as Members;
  const after = injected(before, pod, options, place.around);
  return {
    kind: 'injected',
    after,
    changes: changesBetween(before, after),
    notes: notesOf(pod, options),
  };
}

/**
 * Takes everything that is ours out of a pod, also where its label or annotation wants it left alone. `changes` is empty where nothing of
 * ours is in it. Mappings and lists that are empty then go as well. As pure as `injectPod`.
 */
export function removeFromPod(template: unknown): Injection {
  const reading = readPod(template);
  if (reading.kind === 'malformed') return { kind: 'refused', problems: reading.problems };
  const { pod } = reading;
  const before = template as Members;
  if (!isInjected(pod)) return { kind: 'injected', after: before, changes: [], notes: [] };
  const problems = leftBehind(pod);
  if (problems.length > 0) return { kind: 'refused', problems };
  const after = removed(before, pod);
  return { kind: 'injected', after, changes: changesBetween(before, after), notes: [] };
}

/** The socket's mounts go with it; what else of ours somebody has mounted, a pod without it would wait for. */
function leftBehind(pod: PodShape): Finding[] {
  const needed = foreignContainers(pod).flatMap(({ mounts }) =>
    mounts.filter(({ volume }) => volume !== SOCKET_VOLUME && OUR_VOLUMES.includes(volume)),
  );
  const left = needed.map(({ path, volume }) => ({
    path,
    rule: `mounts ${volume}, which is to go`,
    hint: 'take out the mount first',
  }));
  if (pod.containers.some(({ name }) => !OUR_CONTAINERS.includes(name))) return left;
  return [...left, { path: ['spec', 'containers'], rule: 'has only the injected container' }];
}

function removed(before: Members, pod: PodShape): Members {
  const { [INJECTED_ANNOTATION]: _, ...annotations } = pod.annotations;
  const { annotations: __, ...others } = before.metadata as Members;
  const metadata =
    Object.keys(annotations).length > 0 ? { ...(before.metadata as Members), annotations } : others;
  const { metadata: ___, ...rest } = before;
  const none = { socketVolume: SOCKET_VOLUME };
  const theirs = (containers: readonly ContainerShape[]) =>
    placed(
      containers.map((each) => withSocket(each, false, none)),
      [],
      OUR_CONTAINERS,
      'end',
    );
  const volumes = pod.volumes.map(({ fields }) => fields);
  const spec = { ...(before.spec as Members), containers: theirs(pod.containers) };
  return {
    ...(Object.keys(metadata).length > 0 ? { ...before, metadata } : rest),
    spec: withList(
      withList(spec, 'initContainers', theirs(pod.initContainers)),
      'volumes',
      placed(volumes, [], OUR_VOLUMES, 'end'),
    ),
  };
}

function injected(
  before: Members,
  pod: PodShape,
  options: InjectOptions,
  around: Surroundings,
): Members {
  const ours = [
    agentContainer(options, around),
    ...(options.envoy?.kind === 'beside' ? [envoyContainer(options, options.envoy)] : []),
  ];
  const native = options.sidecar === 'native';
  const joined = options.envoy?.kind === 'join' ? options.envoy.container : undefined;
  const theirs = (containers: readonly ContainerShape[]) =>
    containers.map((each) => withSocket(each, each.name === joined, around));
  const metadata = isMembers(before.metadata) ? before.metadata : {};
  const spec = before.spec as Members;
  return {
    ...before,
    metadata: {
      ...metadata,
      annotations: isInjected(pod)
        ? metadata.annotations
        : { ...(metadata.annotations as object), [INJECTED_ANNOTATION]: 'true' },
    },
    spec: {
      ...withList(
        spec,
        'initContainers',
        placed(theirs(pod.initContainers), native ? ours : [], OUR_CONTAINERS, 'start'),
      ),
      containers: placed(theirs(pod.containers), native ? [] : ours, OUR_CONTAINERS, 'end'),
      volumes: placed(
        pod.volumes.map(({ fields }) => fields),
        ourVolumes(options, around),
        OUR_VOLUMES,
        'end',
      ),
    },
  };
}

/** Members with a list in place of what is there; an empty one is not written down, unless it was before. */
function withList(members: Members, name: string, items: readonly Members[]): Members {
  const { [name]: found, ...others } = members;
  if (items.length > 0) return { ...members, [name]: items };
  return Array.isArray(found) && found.length > 0 ? others : members;
}

/** A foreign container with our socket exactly where it is to be; everything else of it stays. */
function withSocket(
  { fields, name, mounts }: ContainerShape,
  joined: boolean,
  { socketVolume }: Pick<Surroundings, 'socketVolume'>,
): Members {
  if (OUR_CONTAINERS.includes(name)) return fields;
  const has = mounts.some(({ volume }) => volume === SOCKET_VOLUME);
  const wants = joined && socketVolume === SOCKET_VOLUME;
  if (!has && !wants) return fields;
  const all = mounts.map((mount) => mount.fields);
  return withList(
    fields,
    'volumeMounts',
    placed(all, wants ? [envoyMount(SOCKET_VOLUME)] : [], [SOCKET_VOLUME], 'end'),
  );
}

/**
 * A list with our items in it: one that is there stays at its place and is brought up to date, one that is no longer wanted goes, and a new
 * one comes after the one before it, or before the one after it, or else to the start or the end. At the start, because what comes after it
 * may need the identity.
 */
function placed(
  found: readonly Members[],
  ours: readonly Members[],
  names: readonly string[],
  at: 'start' | 'end',
): Members[] {
  const wanted = new Map(ours.map((item) => [item.name, item]));
  const items = found.flatMap((item) => {
    if (!names.includes(String(item.name))) return [item];
    const mine = wanted.get(item.name);
    wanted.delete(item.name);
    return mine ? [withServerDefaults(mine, item)] : [];
  });
  const indexOf = (name: unknown) => items.findIndex((item) => item.name === name);
  ours.forEach((item, index) => {
    if (!wanted.has(item.name)) return;
    const before = index === 0 ? -1 : indexOf(ours[index - 1]!.name);
    const after = items.findIndex(({ name }) => ours.some((each) => each.name === name));
    const fallback = at === 'start' ? 0 : items.length;
    items.splice(before >= 0 ? before + 1 : after >= 0 ? after : fallback, 0, item);
  });
  return items;
}
