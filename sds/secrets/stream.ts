import type { StreamStatus } from '../../agent/admin/agent-view';
import { iso } from '../../agent/base/iso';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Call } from '../grpc/call';
import type { Connection } from '../grpc/connections';
import { LIMITS, PATIENCE } from '../grpc/limits';
import type { Pieces } from '../grpc/pieces';
import { grpcStatus } from '../grpc/status';
import { encodeDelta, encodeSotw } from './codec';
import { deltaSubscription } from './delta-subscription';
import { parseDeltaRequest, parseSotwRequest } from './messages';
import type { Lookup } from './secret-resource';
import { sotwSubscription } from './sotw-subscription';
import type {
  NameEntry,
  Note,
  Response,
  Subscription,
  SubscriptionEvent,
  SubscriptionState,
} from './subscription';

/** What is particular to one kind of stream. */
interface StreamKind<State extends SubscriptionState, Request extends { readonly node: string }> {
  readonly kind: StreamStatus['kind'];
  readonly subscription: Subscription<State, Request>;
  readonly parse: (bytes: Uint8Array) => Request;
  readonly encode: (response: Response) => Pieces;
}

export const SOTW_STREAM = {
  kind: 'sotw',
  subscription: sotwSubscription,
  parse: parseSotwRequest,
  encode: encodeSotw,
} as const;
export const DELTA_STREAM = {
  kind: 'delta',
  subscription: deltaSubscription,
  parse: parseDeltaRequest,
  encode: encodeDelta,
} as const;

/** What a stream needs of its server. */
export interface StreamHost {
  lookup(connection: Connection): Lookup;
  now(): number;
  /** The names that the stream watches from now on. Called after every request, and with none at the end. */
  watches(stream: OpenStream, names: Iterable<string>): void;
  notes(stream: OpenStream, notes: readonly Note[]): void;
  sent(stream: OpenStream, response: Response): void;
  /** A response has left this process. */
  written(stream: OpenStream): void;
  failed(stream: OpenStream, error: unknown): void;
  closed(stream: OpenStream): void;
}

/** An open stream as its server sees it, of either kind. */
export interface OpenStream {
  readonly id: number;
  readonly connection: Connection;
  readonly kind: StreamStatus['kind'];
  readonly node: string;
  readonly names: ReadonlyMap<string, NameEntry>;
  /** Whether the sweeper has to look at it: the client owes a message, an answer or a read. */
  isOwed(): boolean;
  /** One sweep has passed. */
  sweep(): void;
  /** Whether that version has left this process under the name, or the stream does not watch it. */
  hasSent(name: string, version: string): boolean;
  /** Something under one of its names changed. */
  changed(): void;
  /** Ends the stream with a status. */
  fail(code: GrpcStatus, details: string): void;
  status(): StreamStatus;
}

/** Wires a call to its state machine. Whatever goes wrong in here ends this stream and no other. */
export function openStream<
  State extends SubscriptionState,
  Request extends { readonly node: string },
>(
  call: Call,
  kind: StreamKind<State, Request>,
  place: { readonly id: number; readonly connection: Connection; readonly noncePrefix: string },
  host: StreamHost,
): OpenStream {
  const { subscription } = kind;
  const openedAt = host.now();
  const lookup = host.lookup(place.connection);
  let state = subscription.open(place.noncePrefix);
  let node: string | undefined;
  let ended = false;
  let sweeps = 0;

  const guarded = (work: () => void) => {
    if (ended) return;
    try {
      work();
    } catch (caught) {
      host.failed(stream, caught);
      const { code, details } = grpcStatus(caught);
      stream.fail(code, details);
    }
  };
  const step = (event: SubscriptionEvent<Request>) =>
    guarded(() => {
      const before = state;
      const next = subscription.step(state, event, lookup);
      state = next.state;
      if (
        subscription.isAwaiting(before) !== subscription.isAwaiting(state) ||
        before.writing !== state.writing
      )
        sweeps = 0;
      if (next.notes.length > 0) host.notes(stream, next.notes);
      if (next.response) send(next.response);
    });
  const send = (response: Response) => {
    host.sent(stream, response);
    call.send(kind.encode(response), () => {
      step({ kind: 'written', at: host.now() });
      guarded(() => host.written(stream));
    });
  };
  const take = (bytes: Buffer) =>
    guarded(() => {
      const request = kind.parse(bytes);
      node ??= request.node;
      sweeps = 0;
      step({ kind: 'request', request, at: host.now() });
      if (!ended) host.watches(stream, state.names.keys());
    });
  const end = () => {
    if (ended) return;
    ended = true;
    host.watches(stream, []);
    host.closed(stream);
  };

  const stream: OpenStream = {
    id: place.id,
    connection: place.connection,
    kind: kind.kind,
    get node() {
      return node ?? '';
    },
    get names() {
      return state.names;
    },
    hasSent: (name, version) => {
      const entry = state.names.get(name);
      return entry === undefined || (entry.sent?.version === version && !state.writing);
    },
    isOwed: () => node === undefined || state.writing || subscription.isAwaiting(state),
    sweep: () => {
      sweeps += 1;
      if (node === undefined) {
        if (sweeps > PATIENCE.silentStreamSweeps)
          stream.fail(GrpcStatus.DEADLINE_EXCEEDED, 'no request came');
      } else if (state.writing) {
        // A status would queue behind what is not being read.
        if (sweeps > PATIENCE.unreadSweeps) place.connection.socket.destroy();
      } else if (subscription.isAwaiting(state) && sweeps > PATIENCE.unacknowledgedSweeps) {
        step({ kind: 'overdue', at: host.now() });
      }
    },
    changed: () => step({ kind: 'changed', at: host.now() }),
    fail: (code, details) => {
      if (ended) return;
      end();
      call.finish(code, details);
    },
    status: () => ({
      id: place.id,
      kind: kind.kind,
      node: node ?? '',
      openedAt: iso(openedAt),
      names: [...state.names].map(nameStatus),
    }),
  };

  call.follow({
    message: take,
    end: () => {
      end();
      call.finish();
    },
    gone: end,
  });
  return stream;
}

function nameStatus([name, entry]: [string, NameEntry]): StreamStatus['names'][number] {
  const { sent, acknowledged, nack } = entry;
  return {
    name: name.length > LIMITS.shownName ? `${name.slice(0, LIMITS.shownName)}...` : name,
    ...(sent && { sentVersion: sent.version, sentAt: iso(sent.at) }),
    ...(sent?.serial !== undefined && { sentSerial: sent.serial }),
    ...(acknowledged && {
      acknowledgedVersion: acknowledged.version,
      acknowledgedAt: iso(acknowledged.at),
    }),
    ...(nack && { nack: { version: nack.version, message: nack.message, at: iso(nack.at) } }),
  };
}
