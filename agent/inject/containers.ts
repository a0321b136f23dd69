import { createBootstrap } from '../envoy/bootstrap';
import type { Members } from './changes';
import * as names from './names';
import type { EnvoyChoice, InjectOptions, Resources } from './options';

/** What a pod says about its injected containers, beyond the options. */
export interface Surroundings {
  /** Volume of the SDS socket: ours, or one that the joined container has there already. */
  readonly socketVolume: string;
  /** Whom the agent runs as: the user of the Envoy that opens its socket. */
  readonly user: number;
  /** What the joined Envoy calls the socket; undefined for its usual name. */
  readonly socketFile: string | undefined;
}

/** For what an Envoy needs as a sidecar of a small service; its memory grows with its connections. */
const ENVOY_RESOURCES: Resources = {
  cpuRequest: '50m',
  memoryRequest: '64Mi',
  cpuLimit: undefined,
  memoryLimit: '256Mi',
};
/** A socket is an inode; a size is set because memory is the pod's. */
const SOCKET_SIZE = '1Mi';
/** kubelet renews a token at four fifths of its life, so the CA sees none that is older than 48 minutes. */
const TOKEN_SECONDS = 3_600;
/** With a look each second: a CA that is away for less delays the pod, and for longer restarts the agent, which asks again. */
const START_SECONDS = 600;

/** The agent's container, of the `restricted` Pod Security Standard. */
export function agentContainer(
  options: InjectOptions,
  { socketVolume, user, socketFile }: Surroundings,
): Members {
  const probe = (path: string) => ({ httpGet: { path, port: options.adminPort } });
  return {
    name: names.AGENT_CONTAINER,
    image: options.image,
    ...nativeSidecar(options),
    args: [
      'run',
      ...Object.entries(options.settings).map(([name, value]) => `--${name}=${literal(value)}`),
    ],
    // The settings' default paths are relative to it, whatever the image's own is.
    workingDir: '/',
    env: [
      fromPod('POD_NAMESPACE', 'metadata.namespace'),
      fromPod('SERVICE_ACCOUNT', 'spec.serviceAccountName'),
      ...(socketFile === undefined
        ? []
        : [{ name: names.SOCKET_FILE_VARIABLE, value: socketFile }]),
    ],
    ports: [{ name: 'keyturn-health', containerPort: options.adminPort }],
    startupProbe: { ...probe('/healthz/ready'), periodSeconds: 1, failureThreshold: START_SECONDS },
    readinessProbe: { ...probe('/healthz/ready'), periodSeconds: 5, timeoutSeconds: 3 },
    livenessProbe: { ...probe('/healthz/live'), periodSeconds: 10, timeoutSeconds: 3 },
    resources: resources(options.resources),
    securityContext: restricted(user),
    terminationMessagePolicy: 'FallbackToLogsOnError',
    volumeMounts: [
      { name: socketVolume, mountPath: names.SOCKET_DIR },
      { name: names.RUN_VOLUME, mountPath: names.RUN_DIR },
      ...(asksByToken(options) ? [readOnly(names.TOKEN_VOLUME, names.TOKEN_DIR)] : []),
      ...(options.rootConfigMap === undefined ? [] : [readOnly(names.ROOT_VOLUME, names.ROOT_DIR)]),
      ...(asksApi(options) ? [readOnly(names.API_VOLUME, names.API_DIR)] : []),
    ],
  };
}

/** The volumes of both containers. The socket's is left out where the joined container has one. */
export function ourVolumes(options: InjectOptions, { socketVolume }: Surroundings): Members[] {
  const inMemory = (name: string) => ({
    name,
    emptyDir: { medium: 'Memory', sizeLimit: SOCKET_SIZE },
  });
  const rootItem = { key: names.ROOT_FILE, path: names.ROOT_FILE };
  return [
    ...(socketVolume === names.SOCKET_VOLUME ? [inMemory(names.SOCKET_VOLUME)] : []),
    inMemory(names.RUN_VOLUME),
    ...(asksByToken(options) ? [tokenVolume(options.audience)] : []),
    ...(options.rootConfigMap === undefined
      ? []
      : [
          {
            name: names.ROOT_VOLUME,
            configMap: { name: options.rootConfigMap, items: [rootItem] },
          },
        ]),
    ...(asksApi(options) ? [apiVolume()] : []),
  ];
}

/** An Envoy whose whole configuration is on its command line, so that a pod needs no other object. */
export function envoyContainer(
  options: InjectOptions,
  envoy: EnvoyChoice & { readonly kind: 'beside' },
): Members {
  const bootstrap = createBootstrap({
    ...envoy.bootstrap,
    sdsSocket: names.SOCKET_PATH,
    nodeId: NODE_ID,
  });
  const { inbound } = envoy.bootstrap;
  const probe = { tcpSocket: { port: inbound?.listen.port } };
  // A listener opens when its certificate has come. One on loopback, as for calls out, kubelet cannot reach.
  const probed = inbound !== undefined && !isLoopback(inbound.listen.host);
  return {
    name: names.ENVOY_CONTAINER,
    image: envoy.image,
    ...nativeSidecar(options),
    args: [
      '--config-yaml',
      literal(JSON.stringify(bootstrap, undefined, 1)).replace(literal(NODE_ID), NODE_ID),
      // Restarts are Kubernetes's business, and hot ones need shared memory.
      '--disable-hot-restart',
      '--log-level',
      'warning',
      '--concurrency',
      '2',
    ],
    env: [fromPod('POD_NAME', 'metadata.name'), fromPod('POD_NAMESPACE', 'metadata.namespace')],
    ...(inbound && { ports: [{ name: 'keyturn-mtls', containerPort: inbound.listen.port }] }),
    ...(probed && {
      startupProbe: { ...probe, periodSeconds: 1, failureThreshold: START_SECONDS },
      readinessProbe: { ...probe, periodSeconds: 5 },
    }),
    resources: resources(ENVOY_RESOURCES),
    securityContext: restricted(names.AGENT_USER),
    volumeMounts: [envoyMount(names.SOCKET_VOLUME)],
  };
}

/** Connecting to a socket needs no writable mount, and nobody but the agent is to put one there. */
export function envoyMount(volume: string): Members {
  return readOnly(volume, names.SOCKET_DIR);
}

/** Filled in by Kubernetes: how `keyturn status` shows this Envoy. */
const NODE_ID = '$(POD_NAME).$(POD_NAMESPACE)';

function asksByToken({ cas }: InjectOptions): boolean {
  return cas.includes('istiod') || cas.includes('istio-csr');
}

function asksApi({ cas }: InjectOptions): boolean {
  return cas.includes('kubernetes-csr');
}

function nativeSidecar({ sidecar }: InjectOptions): object {
  return sidecar === 'native' ? { restartPolicy: 'Always' } : {};
}

/** @see Kubernetes, Pod Security Standards, `restricted`. */
function restricted(user: number): object {
  return {
    runAsNonRoot: true,
    runAsUser: user,
    runAsGroup: names.AGENT_USER,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  };
}

function resources({ cpuRequest, memoryRequest, cpuLimit, memoryLimit }: Resources): object {
  return {
    requests: { cpu: cpuRequest, memory: memoryRequest },
    limits: { ...(cpuLimit !== undefined && { cpu: cpuLimit }), memory: memoryLimit },
  };
}

function tokenVolume(audience: string): Members {
  const serviceAccountToken = {
    audience,
    expirationSeconds: TOKEN_SECONDS,
    path: names.TOKEN_FILE,
  };
  return { name: names.TOKEN_VOLUME, projected: { sources: [{ serviceAccountToken }] } };
}

/** What the API server would mount by itself, unless the pod or its account forbids it for the application's sake. */
function apiVolume(): Members {
  return {
    name: names.API_VOLUME,
    projected: {
      sources: [
        { serviceAccountToken: { expirationSeconds: TOKEN_SECONDS, path: 'token' } },
        { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
        {
          downwardAPI: {
            items: [{ path: 'namespace', fieldRef: { fieldPath: 'metadata.namespace' } }],
          },
        },
      ],
    },
  };
}

function fromPod(name: string, fieldPath: string): object {
  return { name, valueFrom: { fieldRef: { fieldPath } } };
}

function readOnly(name: string, mountPath: string): Members {
  return { name, mountPath, readOnly: true };
}

/** Kubernetes replaces `$(NAME)` in arguments; `$$(NAME)` stays. */
function literal(text: string): string {
  return text.replaceAll('$(', '$$$$(');
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}
