import { randomBytes } from 'node:crypto';
import type { SdsStatus, StreamStatus } from '../../agent/admin/agent-view';
import type { Deps } from '../../agent/base/deps';
import { AgentError, invalid } from '../../agent/base/errors';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { CertState } from '../../agent/identity/cert-state';
import type { Call } from '../grpc/call';
import type { Connection } from '../grpc/connections';
import { LIMITS } from '../grpc/limits';
import type { Pieces } from '../grpc/pieces';
import { grpcStatus } from '../grpc/status';
import type { StreamLimiter } from '../grpc/stream-limiter';
import { Acknowledgements } from './acknowledgements';
import { encodeSotw } from './codec';
import { createFileSecrets, type FileSecrets } from './file-secrets';
import { IdentityNames, type IdentityNamesOptions } from './identity-names';
import { parseSotwRequest } from './messages';
import { isFile, isTrust, parseResourceName, type ResourceName } from './resource-name';
import { SdsTelemetry } from './sds-telemetry';
import type { Lookup, SecretResource } from './secret-resource';
import type { LeafSecret } from './secrets';
import { DELTA_STREAM, type OpenStream, openStream, SOTW_STREAM, type StreamHost } from './stream';
import { inOrder, unknownNotes } from './subscription';

export interface SecretServiceOptions extends IdentityNamesOptions {
  readonly fileDirs: readonly string[];
  /** Called for each call of any of the methods. */
  readonly onArrival: () => void;
  /** Called when a client may owe a message, an answer or a read: `isOwed` says whether it does. */
  readonly onOwed: () => void;
}

/** What secret discovery knows of one connection. */
interface Client {
  readonly streams: Set<OpenStream>;
  /** The leaf that it is offered. Behind the newest while a newer bundle has not been sent to it. */
  leaf: LeafSecret | undefined;
}

/** The three methods of the secret discovery service over one set of secrets: who is subscribed, and what they are sent when. */
export class SecretService {
  readonly #deps: Deps;
  readonly #onArrival: () => void;
  readonly #room: StreamLimiter;
  readonly #observer: SdsTelemetry;
  readonly #files: FileSecrets;
  readonly #acknowledgements = new Acknowledgements(
    () => this.#streams,
    () => this.#names.ofLeaf(),
  );
  readonly #names: IdentityNames;
  readonly #streams = new Set<OpenStream>();
  readonly #clients = new WeakMap<Connection, Client>();
  readonly #held = new WeakMap<OpenStream, Map<string, () => void>>();
  /** Calls of FetchSecrets that wait for a secret: each looks again when one appears. */
  readonly #fetches = new Map<() => void, (error: AgentError) => void>();
  /** Nonces of this process differ from those of every other, so one from before a restart is never taken for ours. */
  readonly #nonceBase = randomBytes(6).toString('hex');
  readonly #host: StreamHost;
  #lastId = 0;

  constructor(options: SecretServiceOptions, room: StreamLimiter, deps: Deps) {
    this.#deps = deps;
    this.#onArrival = options.onArrival;
    this.#room = room;
    this.#names = new IdentityNames(options);
    this.#observer = new SdsTelemetry(this.#lookup, deps);
    this.#files = createFileSecrets(
      { dirs: options.fileDirs, onChange: (name) => this.#fileChanged(name) },
      deps,
    );
    this.#host = {
      lookup: (connection) => (name) => this.#find(name, this.#client(connection).leaf),
      now: () => deps.clock.now(),
      watches: (stream, names) => this.#watches(stream, names),
      notes: (stream, notes) => {
        for (const note of notes) this.#observer.note(stream, note);
        this.#acknowledgements.changed();
      },
      sent: (_stream, response) => {
        this.#observer.sent(response);
        options.onOwed();
      },
      written: (stream) => this.#offerLeaf(stream.connection),
      failed: (stream, error) => this.#failed(stream, error),
      closed: (stream) => this.#closed(stream),
    };
  }

  get observer(): SdsTelemetry {
    return this.#observer;
  }

  /**
   * Puts a state into service. A client is sent a new bundle before it is offered the leaf that came with it: nobody is to present a
   * certificate of a root that it has not been told of. HTTP/2 may well overtake between streams, so the leaf waits until the bundle
   * has left this process; one client that does not read holds back its own leaf only.
   */
  publish(state: CertState): void {
    const before = this.#names.leaf;
    this.#names.publish(state, this.#deps.clock.now());
    const { leaf } = this.#names;
    this.#trustChanged();
    if (leaf === before) return;
    if (leaf) this.#acknowledgements.published(leaf.serial);
    for (const connection of new Set([...this.#streams].map((stream) => stream.connection)))
      this.#offerLeaf(connection);
    this.#lookAgain();
  }

  streamSecrets(call: Call): void {
    this.#open(call, 'sotw', (id, connection) =>
      openStream(
        call,
        SOTW_STREAM,
        { id, connection, noncePrefix: this.#noncePrefix(id) },
        this.#host,
      ),
    );
  }

  deltaSecrets(call: Call): void {
    this.#open(call, 'delta', (id, connection) =>
      openStream(
        call,
        DELTA_STREAM,
        { id, connection, noncePrefix: this.#noncePrefix(id) },
        this.#host,
      ),
    );
  }

  /** One request, one answer. It waits for secrets that will come, leaves unknown names out, and answers NOT_FOUND if there is no other. */
  fetchSecrets(call: Call, request: Buffer): void {
    this.#onArrival();
    this.#lastId += 1;
    const id = this.#lastId;
    this.#fetch(call, request, id).then(
      (message) => {
        call.send(message);
        call.finish();
      },
      (error) => {
        const { code, details } = grpcStatus(error);
        if (code === GrpcStatus.INTERNAL) this.#observer.failed({ id, node: '' }, error);
        call.finish(code, details);
      },
    );
  }

  streams(): readonly StreamStatus[] {
    return [...this.#streams].map((stream) => stream.status());
  }

  unknownNames(): SdsStatus['unknownNames'] {
    return this.#observer.unknownNames();
  }

  acknowledged(serial: string, signal: AbortSignal): Promise<number> {
    return this.#acknowledgements.wait(serial, signal);
  }

  /** Whether a client owes anything, so that time has to be watched. */
  isOwed(): boolean {
    for (const stream of this.#streams) if (stream.isOwed()) return true;
    return false;
  }

  sweep(): void {
    for (const stream of [...this.#streams]) if (stream.isOwed()) stream.sweep();
  }

  /** Ends every stream and stops watching files. */
  async close(): Promise<void> {
    for (const stream of [...this.#streams])
      stream.fail(GrpcStatus.UNAVAILABLE, 'the agent is stopping');
    for (const refuse of [...this.#fetches.values()])
      refuse(new AgentError('ERR_ABORTED', 'fetch: the agent is stopping'));
    await this.#files.close();
  }

  readonly #lookup: Lookup = (name) => this.#find(name, this.#names.leaf);

  /** @param leaf  The certificate that whoever asks may have by now. */
  #find(text: string, leaf: LeafSecret | undefined): ReturnType<Lookup> {
    const name = parseResourceName(text);
    if (name === undefined) return 'unknown';
    return isFile(name)
      ? this.#files.lookup(text)
      : this.#names.find(text, name, leaf, this.#deps.clock.now());
  }

  #open(
    call: Call,
    kind: 'sotw' | 'delta',
    open: (id: number, connection: Connection) => OpenStream,
  ): void {
    this.#onArrival();
    if (!this.#room.enter(call)) return;
    const { connection } = call;
    this.#deps.metrics.record('sds_streams_total', { kind });
    this.#lastId += 1;
    this.#offerLeaf(connection);
    const stream = open(this.#lastId, connection);
    this.#client(connection).streams.add(stream);
    this.#streams.add(stream);
    this.#room.hold(connection, stream);
  }

  #client(connection: Connection): Client {
    const known = this.#clients.get(connection);
    if (known !== undefined) return known;
    const client: Client = { streams: new Set(), leaf: undefined };
    this.#clients.set(connection, client);
    return client;
  }

  /** Offers the newest leaf to a client that has been sent the newest of what it judges its peers by. */
  #offerLeaf(connection: Connection): void {
    const { leaf } = this.#names;
    const client = this.#client(connection);
    if (client.leaf === leaf) return;
    const streams = [...client.streams];
    if (leaf && !streams.every((stream) => this.#hasSentTrust(stream))) return;
    client.leaf = leaf;
    if (leaf)
      for (const stream of streams)
        if (isWatching(stream, 'identity', 'spiffe-id')) stream.changed();
  }

  #hasSentTrust(stream: OpenStream): boolean {
    for (const name of stream.names.keys()) {
      if (!isTrust(parseResourceName(name)?.kind)) continue;
      const found = this.#lookup(name);
      if (typeof found !== 'string' && !stream.hasSent(name, found.version)) return false;
    }
    return true;
  }

  #noncePrefix(id: number): string {
    return `${this.#nonceBase}-${id}-`;
  }

  /** Tells the streams whose peers may be judged by something else now; those to whom it is nothing new send nothing. */
  #trustChanged(): void {
    for (const stream of [...this.#streams])
      if (isWatching(stream, 'bundle', 'trust-domain', 'all-bundles')) stream.changed();
    this.#lookAgain();
  }

  /** Tells the streams that watch a name. */
  #changed(name: string): void {
    for (const stream of [...this.#streams]) if (stream.names.has(name)) stream.changed();
    this.#lookAgain();
  }

  #lookAgain(): void {
    for (const look of [...this.#fetches.keys()]) look();
  }

  #fileChanged(name: string): void {
    if (this.#lookup(name) === 'unknown') this.#observer.unknown(name);
    this.#changed(name);
  }

  #watches(stream: OpenStream, names: Iterable<string>): void {
    const held = this.#held.get(stream) ?? new Map<string, () => void>();
    this.#held.set(stream, held);
    const wanted = new Set(names);
    for (const name of wanted) {
      if (held.has(name)) continue;
      const release = this.#files.retain(name);
      if (release) held.set(name, release);
    }
    for (const [name, release] of held) {
      if (wanted.has(name)) continue;
      held.delete(name);
      release();
    }
    this.#offerLeaf(stream.connection);
    this.#acknowledgements.changed();
  }

  #failed(stream: OpenStream, error: unknown): void {
    if (grpcStatus(error).code === GrpcStatus.INTERNAL) this.#observer.failed(stream, error);
    else this.#observer.refused('request', { stream: stream.id, node: stream.node, cause: error });
  }

  #closed(stream: OpenStream): void {
    this.#streams.delete(stream);
    this.#client(stream.connection).streams.delete(stream);
    this.#room.leave(stream.connection, stream);
    this.#offerLeaf(stream.connection);
    this.#acknowledgements.changed();
  }

  async #fetch(call: Call, bytes: Buffer, id: number): Promise<Pieces> {
    const request = parseSotwRequest(bytes);
    if (request.names.length === 0)
      throw invalid('ERR_PARSE', 'resource_names', 'must not be empty');
    for (const note of unknownNotes(request.names, this.#lookup))
      this.#observer.note({ id, node: request.node }, note);
    if (this.#fetches.size >= LIMITS.fetches) {
      this.#observer.refused('fetches', { limit: LIMITS.fetches });
      throw new AgentError('ERR_ABORTED', `fetch: more than ${LIMITS.fetches} calls wait already`);
    }
    const releases = request.names.map((name) => this.#files.retain(name));
    try {
      const resources = await this.#whenKnown(request.names, call);
      if (resources.length === 0)
        throw new AgentError('ERR_SECRET_UNKNOWN', 'fetch: none of the names is served here');
      const response = { nonce: `${this.#noncePrefix(id)}1`, resources, removed: [] };
      this.#observer.sent(response);
      return encodeSotw(response);
    } finally {
      for (const release of releases) release?.();
    }
  }

  /** Resolves once no name is waiting any more, with the resources of those that are served. */
  #whenKnown(names: readonly string[], call: Call): Promise<SecretResource[]> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        this.#fetches.delete(look);
        finish();
      };
      const look = () => {
        const found = names.map(this.#lookup);
        if (found.includes('waiting')) return;
        settle(() => resolve(inOrder(found.filter((each) => typeof each !== 'string'))));
      };
      const refuse = (error: AgentError) => settle(() => reject(error));
      this.#fetches.set(look, refuse);
      call.follow({
        gone: () => refuse(new AgentError('ERR_ABORTED', 'fetch: the client gave up')),
      });
      look();
    });
  }
}

function isWatching(stream: OpenStream, ...kinds: readonly ResourceName['kind'][]): boolean {
  for (const name of stream.names.keys()) {
    const kind = parseResourceName(name)?.kind;
    if (kind && kinds.includes(kind)) return true;
  }
  return false;
}
