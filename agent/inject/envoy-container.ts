import { isMembers, type Path } from './changes';
import type { Surroundings } from './containers';
import type { Finding } from './findings';
import { AGENT_USER, SOCKET_DIR, SOCKET_FILE_VARIABLE, SOCKET_VOLUME } from './names';
import type { InjectOptions } from './options';
import { foreignContainers } from './pod-rules';
import type { ContainerShape, PodShape, VolumeShape } from './pod-shape';

/** Where the socket lies and who opens it, or why the Envoy that is there cannot be joined. */
export type EnvoyContainer =
  | { readonly kind: 'found'; readonly around: Surroundings }
  | { readonly kind: 'refused'; readonly problems: readonly Finding[] };

/**
 * Fits the agent to the container of `--join`. The socket's mode is 0600, so the agent runs as the Envoy's user; and where the Envoy has a
 * volume in memory or on disk at the socket's directory already, as Istio's proxy has, that one is used.
 */
export function findEnvoyContainer(pod: PodShape, options: InjectOptions): EnvoyContainer {
  if (options.envoy?.kind !== 'join')
    return {
      kind: 'found',
      around: { socketVolume: SOCKET_VOLUME, user: AGENT_USER, socketFile: undefined },
    };
  const { container } = options.envoy;
  const envoy = foreignContainers(pod).find(({ name }) => name === container);
  if (!envoy)
    return refused({
      path: ['spec', 'containers'],
      rule: `has no container named ${JSON.stringify(container)}`,
      hint: JOIN_HINT,
    });
  const user = userFor(envoy, pod, options);
  const socketVolume = volumeFor(envoy, pod);
  const socketFile = socketFileFor(envoy);
  if (
    typeof user === 'number' &&
    typeof socketVolume === 'string' &&
    typeof socketFile !== 'object'
  )
    return { kind: 'found', around: { socketVolume, user, socketFile } };
  return refused(
    ...[user, socketVolume, socketFile].filter((each): each is Finding => typeof each === 'object'),
  );
}

const JOIN_HINT =
  'name the container of the Envoy with --join, or label pods without one keyturn.dev/inject: "false"';

function refused(...problems: Finding[]): EnvoyContainer {
  return { kind: 'refused', problems };
}

/** Root cannot be followed, and without capabilities it cannot open the socket either. */
function userFor(
  envoy: ContainerShape,
  pod: PodShape,
  { settings }: InjectOptions,
): number | Finding {
  const user = envoy.runAsUser ?? pod.runAsUser;
  if (user !== undefined && user > 0) return user;
  const mode = settings['sds-socket-mode'];
  if (mode !== undefined && (Number.parseInt(mode.slice(-1), 8) & 0o6) === 0o6) return AGENT_USER;
  return {
    path: [...envoy.path, 'securityContext', 'runAsUser'],
    rule: `${user === undefined ? 'is missing' : 'is 0'}: the socket is open to the user of the Envoy alone, which must be set and not root`,
    hint: 'set it (1337, say); or give --sds-socket-mode 0666: only the containers that mount its volume reach the socket',
  };
}

function volumeFor(envoy: ContainerShape, pod: PodShape): string | Finding {
  const mount = envoy.mounts.find(
    ({ mountPath, volume }) =>
      placeOf(mountPath) === placeOf(SOCKET_DIR) && volume !== SOCKET_VOLUME,
  );
  if (!mount) return SOCKET_VOLUME;
  const isEmptyDir = pod.volumes.some(
    (volume) => volume.name === mount.volume && isEmptyDirectory(volume),
  );
  if (isEmptyDir && mount.fields.subPath === undefined && mount.fields.subPathExpr === undefined)
    return mount.volume;
  return {
    path: mount.path,
    rule: 'is where the socket belongs, and its volume is no emptyDir',
    hint: 'mount it elsewhere',
  };
}

/** Istio's proxy may be told another name of the socket, and does not start before somebody listens there. */
function socketFileFor({ path, fields }: ContainerShape): string | undefined | Finding {
  const variables: readonly unknown[] = Array.isArray(fields.env) ? fields.env : [];
  const index = variables.findLastIndex(
    (each) => isMembers(each) && each.name === SOCKET_FILE_VARIABLE,
  );
  const variable = variables[index];
  if (!isMembers(variable)) return undefined;
  const { value } = variable;
  if (value === '' || value == null)
    return variable.valueFrom == null
      ? undefined
      : unreadable([...path, 'env', index, 'valueFrom']);
  return typeof value === 'string' && SOCKET_FILE.test(value)
    ? value
    : unreadable([...path, 'env', index, 'value']);
}

function unreadable(path: Path): Finding {
  return {
    path,
    rule: `of ${SOCKET_FILE_VARIABLE} must be the plain name of a file: the agent listens under that name`,
  };
}

/** Without a reference to another variable, `$(NAME)`. */
const SOCKET_FILE = /^(?!\.{1,2}$)[\w.-]{1,40}$/;

/** One that says nothing about its kind is made one by the API server; Istio's injector writes its volumes so. */
function isEmptyDirectory({ fields }: VolumeShape): boolean {
  const kinds = Object.keys(fields).filter((key) => key !== 'name' && fields[key] != null);
  return kinds.length === 0 || fields.emptyDir != null;
}

/** `/var/run` is a link to `/run` in almost every image. */
function placeOf(path: string): string {
  return path
    .replace(/\/+/g, '/')
    .replace(/\/$/, '')
    .replace(/^\/var\/run(?=\/|$)/, '/run');
}
