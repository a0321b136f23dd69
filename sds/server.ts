import { createServer } from 'node:net';
import type { SdsStatus, StreamStatus } from '../agent/admin/agent-view';
import type { Deps } from '../agent/base/deps';
import { AgentError } from '../agent/base/errors';
import { collectGarbage } from '../agent/base/gc';
import { listenUnix } from '../agent/base/unix-socket';
import type { Watched } from '../agent/base/watched';
import type { CertState } from '../agent/identity/cert-state';
import type { CrlSet } from '../agent/identity/crl';
import type { KeyFormat } from '../agent/identity/keys';
import type { FederatedBundles } from '../agent/identity/spiffe-bundle';
import type { SpiffeId } from '../agent/identity/spiffe-id';
import { Connections } from './grpc/connections';
import { GrpcServer, type Method } from './grpc/grpc-server';
import { PATIENCE } from './grpc/limits';
import { StreamLimiter } from './grpc/stream-limiter';
import { SecretService } from './secrets/secret-service';
import { secretDiscoveryPath } from './secrets/service';
import { createLazyStandardServices } from './standard/lazy-standard-services';
import type { JwtSources } from './workload-api/jwt-answers';
import { createLazyWorkloadApi } from './workload-api/lazy-workload-api';

export interface SdsServerOptions {
  /** At most 107 bytes. A missing directory is made. */
  readonly socketPath: string;
  /** Exact mode of the socket, e.g. 0o600. There is no other gate: whoever can open it gets the key. */
  readonly mode: number;
  /** User, by name or number, that owns the socket; default: that of this process. */
  readonly owner?: string | undefined;
  /** Group, by name or number, that owns the socket; default: the group of this process. */
  readonly group: string | undefined;
  /** How many sockets like this one the process has; default 1. They share its descriptors. */
  readonly sockets?: (() => number) | undefined;
  readonly state: Watched<CertState>;
  readonly keyFormat: KeyFormat;
  /** Directories below which `file-cert:` and `file-root:` may name files. */
  readonly fileDirs: readonly string[];
  /** Revocation lists that go with `ROOTCA`, which waits for the first; undefined where revocation is not looked at. */
  readonly crl?: Watched<CrlSet | undefined> | undefined;
  /** The identity that is served; undefined where only the mounted certificate says. */
  readonly id?: SpiffeId | undefined;
  /** Bundles of the other trust domains that are to be believed; undefined for none. */
  readonly federated?: Watched<FederatedBundles> | undefined;
  /** Where JWT-SVIDs come from. */
  readonly jwt: JwtSources;
  /** What clients of the Workload API are told that the identity is for. */
  readonly hint?: string | undefined;
}

/**
 * `envoy.service.secret.v3.SecretDiscoveryService` and the SPIFFE Workload API on a Unix socket: what a proxy, and what a program, asks for
 * its identity.
 */
export interface SdsServer {
  streams(): readonly StreamStatus[];
  unknownNames(): SdsStatus['unknownNames'];
  /** Open streams of the Workload API. */
  workloadApiStreams(): number;
  /** Why clients do not reach the socket by its path, undefined where they do. */
  problem(): string | undefined;
  /**
   * Resolves when each stream that watches `default` has acknowledged that leaf, or a later one, with their number.
   *
   * @param serial  Lower-case hex; of a leaf that is in service, or will be.
   * @throws        The signal's reason when it fires before.
   */
  acknowledged(serial: string, signal: AbortSignal): Promise<number>;
  /** Removes the socket, tells every client, and resolves well within a second whether they listen or not. */
  close(): Promise<void>;
}

/** Turns of the event loop that clients are given to take the goodbye; each turn does all the I/O there is. */
const GOODBYE_TURNS = 50;
/** A burst of proxies that start together; the kernel lowers it to its own limit. */
const BACKLOG = 1_024;

/**
 * Serves the state's certificate and bundle to whoever can open the socket. Resolves when listening.
 *
 * @throws AgentError ERR_SOCKET_IN_USE | ERR_SOCKET.
 */
export async function createSdsServer(options: SdsServerOptions, deps: Deps): Promise<SdsServer> {
  const connections = new Connections(options.sockets);
  const room = new StreamLimiter(connections, (facts) =>
    service.observer.refused('streams', facts),
  );
  const service = new SecretService(
    { ...options, onArrival: () => sweeper.arrived(), onOwed: () => sweeper.wake() },
    room,
    deps,
  );
  const workloadApi = createWorkloadApi(options, room, service, () => sweeper.wake(), deps);
  const standard = createLazyStandardServices(
    { state: options.state, room, onOwed: () => sweeper.wake() },
    deps,
  );
  const methods = new Map([...secretMethods(service), ...workloadApi.methods, ...standard.methods]);
  const grpc = new GrpcServer(methods, room, service.observer, () => sweeper.wake(), deps);
  const late = [workloadApi.service, standard.service];
  const sweeper = createSweeper(connections, service, [service, ...late, grpc], deps);
  const listener = createServer((socket) => {
    // Errors of a socket are the client's; its end follows.
    socket.on('error', () => undefined);
    if (connections.full) service.observer.refused('connections', { limit: connections.bound });
    sweeper.arrived();
    const connection = connections.accept(socket);
    if (connection) grpc.serve(socket, connection);
  });
  // Before listening, so that the first request finds what is there already.
  const endings = [options.state, options.crl, options.federated].map((each) =>
    each?.subscribe(() => publish(service, options.state.value, deps)),
  );
  const unsubscribe = () => {
    for (const end of endings) end?.();
  };
  const socket = await listenUnix(
    {
      path: options.socketPath,
      mode: options.mode,
      owner: options.owner,
      group: options.group,
      backlog: BACKLOG,
      what: 'sds socket',
      rival: "Istio's agent, which has to start after this one",
    },
    listener,
    deps,
  ).catch(async (caught) => {
    unsubscribe();
    await Promise.all([service, ...late].map((each) => each.close()));
    throw caught;
  });
  logListening(options, deps);

  let closing: Promise<void> | undefined;
  const close = async () => {
    unsubscribe();
    const stopped = socket.close();
    const swept = sweeper.close();
    const ended = Promise.all([service, ...late].map((each) => each.close()));
    connections.leave();
    for (let turn = 0; turn < GOODBYE_TURNS && connections.size > 0; turn += 1)
      await new Promise((done) => setImmediate(done));
    connections.destroyAll();
    await Promise.all([stopped, swept, ended]);
  };
  return {
    streams: () => service.streams(),
    unknownNames: () => service.unknownNames(),
    workloadApiStreams: () => workloadApi.service.streams(),
    problem: () => socket.problem(),
    acknowledged: (serial, signal) => service.acknowledged(serial, signal),
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

function createWorkloadApi(
  options: SdsServerOptions,
  room: StreamLimiter,
  { observer }: SecretService,
  onOwed: () => void,
  deps: Deps,
) {
  const { state, crl, id, federated, jwt, hint = '' } = options;
  return createLazyWorkloadApi(
    { state, crl, id, hint, federated, jwt, room, observer, onOwed },
    deps,
  );
}

function secretMethods(service: SecretService): readonly (readonly [path: string, Method])[] {
  return [
    [
      secretDiscoveryPath('streamSecrets'),
      { requests: 'many', serve: (call) => service.streamSecrets(call) },
    ],
    [
      secretDiscoveryPath('deltaSecrets'),
      { requests: 'many', serve: (call) => service.deltaSecrets(call) },
    ],
    [
      secretDiscoveryPath('fetchSecrets'),
      { requests: 'one', serve: (call, request) => service.fetchSecrets(call, request) },
    ],
  ];
}

// Listeners of a state must not throw: what goes wrong here is ours, and the certificate before is still in service.
function publish(service: SecretService, state: CertState, deps: Deps): void {
  try {
    service.publish(state);
  } catch (cause) {
    deps.log.error('publishing a certificate to sds failed', { cause });
  }
}

function logListening(
  { socketPath, mode, owner, group, sockets }: SdsServerOptions,
  deps: Deps,
): void {
  deps.log.info('sds listening', {
    socket: socketPath,
    mode: mode.toString(8).padStart(4, '0'),
    owner,
    group,
  });
  // Of many sockets each was decided about; said a hundred times it is noise.
  if ((mode & 0o077) !== 0 || owner !== undefined || sockets !== undefined) return;
  deps.log.info('sds socket accessible to this user only', {
    uid: process.getuid?.(),
    hint: 'where the proxy runs as another user, share a group: --sds-socket-mode 0660 --sds-socket-group GROUP',
  });
}

/** A service whose clients are looked at. */
interface Swept {
  isOwed(): boolean;
  sweep(): void;
}

/** Work that is done again and again as long as there is a need for it. */
interface Repeated {
  /** There may be a need from now on. */
  wake(): void;
  close(): Promise<void>;
}

/** Does `work` each `everyMs` while `needed` says so, and sleeps otherwise until it is woken. */
function createRepeated(
  everyMs: number,
  needed: () => boolean,
  work: () => void,
  deps: Deps,
): Repeated {
  const stop = new AbortController();
  let awake = false;
  let running = Promise.resolve();
  const run = async () => {
    try {
      while (!stop.signal.aborted && needed()) {
        await deps.clock.sleepUntil(deps.clock.now() + everyMs, stop.signal);
        work();
      }
    } catch (caught) {
      if (!(caught instanceof AgentError && caught.code === 'ERR_ABORTED'))
        deps.log.error('sds client sweep failed', { cause: caught });
    } finally {
      awake = false;
    }
  };
  return {
    wake: () => {
      if (awake) return;
      awake = true;
      running = run();
    },
    close: async () => {
      stop.abort();
      await running;
    },
  };
}

interface Sweeper extends Repeated {
  /** A connection or a call came. */
  arrived(): void;
}

/**
 * Looks at silent and slow clients every few seconds, and sleeps as long as there are none. After a storm of clients it gives back the
 * memory that they took, which V8 would keep: an agent at rest makes too little garbage for it to look. Every few minutes it asks all
 * clients for a sign of life.
 */
function createSweeper(
  connections: Connections,
  { observer }: SecretService,
  services: readonly Swept[],
  deps: Deps,
): Sweeper {
  let arrivals = 0;
  let afterStorm = false;

  const sweep = () => {
    const closed = connections.sweep();
    if (closed > 0) observer.refused('silent', { connections: closed });
    for (const service of services) service.sweep();
    const storm = arrivals >= PATIENCE.stormArrivals;
    const calm = arrivals < PATIENCE.calmArrivals;
    arrivals = 0;
    // In the storm too: connections that are gone hold memory outside of V8's heap, of which it does not know, until it collects them.
    if (storm || (afterStorm && calm)) collectGarbage();
    if (storm || calm) afterStorm = storm;
  };
  const isOwed = () =>
    arrivals > 0 ||
    afterStorm ||
    connections.hasOwing() ||
    services.some((service) => service.isOwed());
  const sweeping = createRepeated(PATIENCE.sweepMs, isOwed, sweep, deps);
  const probe = () => {
    connections.probe();
    sweeping.wake();
  };
  const probing = createRepeated(PATIENCE.probeMs, () => connections.size > 0, probe, deps);
  return {
    arrived: () => {
      arrivals += 1;
      sweeping.wake();
      probing.wake();
    },
    wake: sweeping.wake,
    close: async () => {
      await Promise.all([sweeping.close(), probing.close()]);
    },
  };
}
