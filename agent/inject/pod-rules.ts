import type { Path } from './changes';
import type { Finding } from './findings';
import {
  AGENT_CONTAINER,
  INJECT_MARK,
  INJECTED_ANNOTATION,
  ISTIO_PROXY,
  OUR_CONTAINERS,
  OUR_VOLUMES,
  SOCKET_VOLUME,
} from './names';
import type { InjectOptions } from './options';
import type { ContainerShape, PodShape } from './pod-shape';

/** Whether the annotation says that what has our names is ours. */
export function isInjected(pod: PodShape): boolean {
  return (
    pod.annotations[INJECTED_ANNOTATION] !== undefined &&
    pod.annotations[INJECTED_ANNOTATION] !== null
  );
}

/** The containers that are not ours, those that start first in front. */
export function foreignContainers(pod: PodShape): readonly ContainerShape[] {
  return [...pod.initContainers, ...pod.containers].filter(
    ({ name }) => !OUR_CONTAINERS.includes(name),
  );
}

/** Whether the pod asked to be left alone, by label or annotation. */
export function optsOut(pod: PodShape): boolean {
  return pod.labels[INJECT_MARK] === 'false' || pod.annotations[INJECT_MARK] === 'false';
}

/** Why a pod cannot have the agent. */
export function problemsOf(pod: PodShape, options: InjectOptions): Finding[] {
  return [
    ...markProblems(pod),
    ...placeProblems(pod),
    ...endProblems(pod, options),
    ...nameProblems(pod),
    ...mountProblems(pod, options),
    ...portProblems(pod, options),
  ];
}

/** What a person should know about a pod that has it. */
export function notesOf(pod: PodShape, { adminPort }: InjectOptions): Finding[] {
  const rule =
    "is true: other containers see the agent's process, and one of the same user could read its key";
  return [
    ...(pod.hostPid ? [{ path: ['spec', 'hostPID'], rule }] : []),
    ...(pod.shareProcessNamespace ? [{ path: ['spec', 'shareProcessNamespace'], rule }] : []),
    ...(isCaptured(pod, adminPort) ? [capturedNote(adminPort)] : []),
  ];
}

/** Istio leads what comes in through its Envoy, which lets nobody in who has no certificate where mutual TLS is strict: kubelet has none. */
function isCaptured(pod: PodShape, port: number): boolean {
  const excluded = pod.annotations[ISTIO_EXCLUDED_PORTS];
  return (
    hasIstioProxy(pod) &&
    !(typeof excluded === 'string' && excluded.split(',').includes(String(port)))
  );
}

function capturedNote(port: number): Finding {
  return {
    path: ['metadata', 'annotations', ISTIO_EXCLUDED_PORTS],
    rule: `should have ${port} before Istio injects: else probes of the agent go through Istio's Envoy, which refuses them where mutual TLS is strict`,
  };
}

function hasIstioProxy(pod: PodShape): boolean {
  return foreignContainers(pod).some(({ name }) => name === ISTIO_PROXY);
}

/** A typing error in the mark must not decide. */
function markProblems({ labels, annotations }: PodShape): Finding[] {
  return Object.entries({ labels, annotations }).flatMap(([kind, { [INJECT_MARK]: value }]) =>
    value === undefined || value === null || value === 'true' || value === 'false'
      ? []
      : [{ path: ['metadata', kind, INJECT_MARK], rule: 'must be "true" or "false"' }],
  );
}

function placeProblems(pod: PodShape): Finding[] {
  const problems: Finding[] = [];
  if (pod.os === 'windows')
    problems.push({
      path: ['spec'],
      rule: 'is for Windows: the agent and its socket are for Linux',
    });
  if (pod.hostNetwork) {
    problems.push({
      path: ['spec', 'hostNetwork'],
      rule: 'must not be true: the health port would be the port of the node, taken and open to all',
      hint: 'run one agent on the node and mount its socket',
    });
  }
  return problems;
}

/** A plain container runs for ever, and a pod that is to end waits for each of its containers. */
function endProblems({ restartPolicy }: PodShape, { sidecar }: InjectOptions): Finding[] {
  if (sidecar === 'native' || restartPolicy === undefined || restartPolicy === 'Always') return [];
  return [
    {
      path: ['spec', 'restartPolicy'],
      rule: `is ${restartPolicy.slice(0, 20)}: a plain container never ends, so the pod would never complete`,
      hint: 'leave out --plain: a native sidecar ends with the pod (Kubernetes 1.29 and newer)',
    },
  ];
}

function nameProblems(pod: PodShape): Finding[] {
  if (isInjected(pod)) return [];
  const taken = (path: Path, name: string): Finding => ({
    path: [...path, 'name'],
    rule: `is ${name}, which is reserved for keyturn`,
    hint: `rename it; or, where it is the agent, annotate the pod with ${INJECTED_ANNOTATION}: "true" and it is brought up to date`,
  });
  const containers = [...pod.initContainers, ...pod.containers].filter(({ name }) =>
    OUR_CONTAINERS.includes(name),
  );
  return [...containers, ...pod.volumes.filter(({ name }) => OUR_VOLUMES.includes(name))].map(
    ({ path, name }) => taken(path, name),
  );
}

/** Where nothing was injected a mount of ours is somebody's wish, which is not granted by the way. */
function mountProblems(pod: PodShape, { envoy }: InjectOptions): Finding[] {
  if (isInjected(pod)) return [];
  const others = foreignContainers(pod).filter(
    ({ name }) => envoy?.kind !== 'join' || name !== envoy.container,
  );
  const taken = others.flatMap(({ mounts }) =>
    mounts.filter(({ volume }) => volume === SOCKET_VOLUME),
  );
  return taken.map(({ path }) => ({
    path,
    rule: `mounts ${SOCKET_VOLUME}, the socket of the key: it is for the agent and its Envoy alone`,
    hint: 'take out the mount, and name the container with --join if it is the one to use the key',
  }));
}

/** Containers of a pod share its ports. What a container does not declare is not known. */
function portProblems(pod: PodShape, options: InjectOptions): Finding[] {
  const foreign = foreignContainers(pod);
  const ours = ourPorts(options);
  const declared = foreign.flatMap(({ ports }) =>
    ports.filter(({ protocol }) => protocol === undefined || protocol === 'TCP'),
  );
  const problems = declared.flatMap(({ path, port }): Finding[] => {
    const use = port === undefined ? undefined : ours.get(port);
    return use === undefined
      ? []
      : [
          {
            path,
            rule: `is ${port}, which is for ${use.what}`,
            hint: `choose another one with ${use.flag}`,
          },
        ];
  });
  const istio = foreign.find(({ name }) => name === ISTIO_PROXY);
  if (istio && options.adminPort === ISTIO_AGENT_PORT) {
    problems.push({
      path: istio.path,
      rule: `has Istio's agent, which listens on port ${ISTIO_AGENT_PORT}`,
      hint: 'give another port for health and metrics, e.g. --admin-address 0.0.0.0:15022',
    });
  }
  return problems;
}

const ISTIO_AGENT_PORT = 15_020;
const ISTIO_EXCLUDED_PORTS = 'traffic.sidecar.istio.io/excludeInboundPorts';

function ourPorts({
  adminPort,
  envoy,
}: InjectOptions): Map<number, { readonly what: string; readonly flag: string }> {
  const ports = new Map([
    [adminPort, { what: `health and metrics of ${AGENT_CONTAINER}`, flag: '--admin-address' }],
  ]);
  if (envoy?.kind !== 'beside') return ports;
  const { admin, inbound, outbound } = envoy.bootstrap;
  if (admin) ports.set(admin.port, { what: "Envoy's admin interface", flag: '--admin' });
  if (inbound) ports.set(inbound.listen.port, { what: "Envoy's mutual TLS", flag: '--listen' });
  if (outbound)
    ports.set(outbound.listen.port, { what: 'calls through Envoy', flag: '--peer-listen' });
  return ports;
}
