import { LIMITS } from '../grpc/limits';
import { lengthOf } from '../grpc/pieces';
import { tooMany } from './messages';
import { nameRank } from './resource-name';
import type { Lookup, SecretResource } from './secret-resource';

/** What was put into a response under a name. */
export interface Delivery {
  readonly name: string;
  readonly version: string;
  /** The leaf's serial number; undefined for roots, and for a version that the client brought from an earlier stream. */
  readonly serial: string | undefined;
  readonly at: number;
}

/** One name that a stream watches, with what became of it. */
export interface NameEntry {
  /** Asked for and not yet answered: it is sent even where the client had the same version before. */
  readonly due: boolean;
  readonly sent: Delivery | undefined;
  /** The last delivery that the client accepted; `at` is the time of its ACK. */
  readonly acknowledged: Delivery | undefined;
  /** The client's refusal of `version`, gone with the next ACK. That version is not sent again unless the client asks anew. */
  readonly nack:
    | { readonly version: string; readonly message: string; readonly at: number }
    | undefined;
}

/** What both kinds of stream remember. Values are immutable: a step makes new ones. */
export interface SubscriptionState {
  /** Nonces are this prefix, which no other stream has, and `sequence`. */
  readonly noncePrefix: string;
  readonly sequence: number;
  readonly names: ReadonlyMap<string, NameEntry>;
  /** A response is on its way into the socket. Nothing else is sent meanwhile, so a client that does not read makes no queue grow. */
  readonly writing: boolean;
}

export type SubscriptionEvent<Request> =
  | { readonly kind: 'request'; readonly request: Request; readonly at: number }
  /** Some resource changed or appeared. */
  | { readonly kind: 'changed'; readonly at: number }
  /** The response has left this process. */
  | { readonly kind: 'written'; readonly at: number }
  /** The client owes an answer for so long that it is not waited for any more. */
  | { readonly kind: 'overdue'; readonly at: number };

/** At most one of them leaves a step. */
export interface Response {
  readonly nonce: string;
  readonly resources: readonly SecretResource[];
  /** Delta only: names that are not served. */
  readonly removed: readonly string[];
}

/** What happened in a step, for logs and metrics. */
export type Note =
  /** `replaces`: the client had accepted another version under that name before, on this stream. */
  | { readonly kind: 'acknowledged'; readonly delivery: Delivery; readonly replaces: boolean }
  /** `repeated`: the same refusal came before on this stream. `version` is empty where it answers a response of an earlier stream. */
  | {
      readonly kind: 'refused';
      readonly name: string;
      readonly version: string;
      readonly message: string;
      readonly repeated: boolean;
    }
  | { readonly kind: 'stale' }
  | { readonly kind: 'unknown'; readonly name: string };

export interface Step<State> {
  readonly state: State;
  readonly response: Response | undefined;
  readonly notes: readonly Note[];
}

/** One kind of stream: its first state, and how each event changes it. Pure. */
export interface Subscription<State extends SubscriptionState, Request> {
  open(noncePrefix: string): State;
  /** @throws AgentError ERR_PARSE when the stream would watch more names than `LIMITS.namesPerStream`. */
  step(state: State, event: SubscriptionEvent<Request>, lookup: Lookup): Step<State>;
  /** Whether a response waits for the client's ACK or NACK. */
  isAwaiting(state: State): boolean;
}

/** A name just asked for. */
export const NEW_ENTRY: NameEntry = {
  due: true,
  sent: undefined,
  acknowledged: undefined,
  nack: undefined,
};

// Only where the stream still watches the name.
function updateEntry(
  names: Map<string, NameEntry>,
  name: string,
  change: (entry: NameEntry) => NameEntry,
): void {
  const entry = names.get(name);
  if (entry) names.set(name, change(entry));
}

/** Records the client's ACK (`error` undefined) or NACK of deliveries. Returns what to note. */
export function recordVerdict(
  names: Map<string, NameEntry>,
  deliveries: readonly Delivery[],
  error: string | undefined,
  at: number,
): readonly Note[] {
  return deliveries.map((delivery): Note => {
    const { name, version } = delivery;
    const before = names.get(name);
    if (error === undefined) {
      updateEntry(names, name, (entry) => ({
        ...entry,
        acknowledged: { ...delivery, at },
        nack: undefined,
      }));
      return {
        kind: 'acknowledged',
        delivery,
        replaces: before?.acknowledged !== undefined && before.acknowledged.version !== version,
      };
    }
    const repeated = before?.nack?.version === version;
    updateEntry(names, name, (entry) => {
      // It may have asked again before it refused: what it refused is then no answer either.
      const sent = entry.sent ?? delivery;
      return {
        ...entry,
        sent,
        due: entry.due && sent.version !== version,
        nack: { version, message: error, at },
      };
    });
    return { kind: 'refused', name, version, message: error, repeated };
  });
}

/** The resource of a name where the client has to be sent it: asked for anew, or another version than the last one sent. */
export function owed(entry: NameEntry, name: string, lookup: Lookup): SecretResource | undefined {
  const found = lookup(name);
  if (typeof found === 'string') return undefined;
  return entry.due || entry.sent?.version !== found.version ? found : undefined;
}

/** Bundle before leaf before the rest, and no more than fits into one response (but always one). */
export function inOrder(resources: readonly SecretResource[]): SecretResource[] {
  const sorted = [...resources].sort((a, b) => nameRank(a.name) - nameRank(b.name));
  let bytes = 0;
  return sorted.filter((each, index) => {
    bytes += lengthOf(each.secret);
    return index === 0 || bytes <= LIMITS.responseBytes;
  });
}

/** Marks resources as sent and makes the response; its deliveries are what the client's verdict will be about. */
export function respond<State extends SubscriptionState>(
  state: State,
  resources: readonly SecretResource[],
  removed: readonly string[],
  at: number,
): {
  readonly state: State;
  readonly response: Response;
  readonly deliveries: readonly Delivery[];
} {
  const deliveries = resources.map(({ name, version, serial }) => ({ name, version, serial, at }));
  const names = new Map(state.names);
  for (const delivery of deliveries)
    updateEntry(names, delivery.name, (entry) => ({ ...entry, due: false, sent: delivery }));
  for (const name of removed) updateEntry(names, name, (entry) => ({ ...entry, due: false }));
  const sequence = state.sequence + 1;
  const nonce = `${state.noncePrefix}${sequence}`;
  return {
    state: { ...state, names, sequence, writing: true },
    response: { nonce, resources, removed },
    deliveries,
  };
}

/** Notes for those of the names that nobody serves. */
export function unknownNotes(names: Iterable<string>, lookup: Lookup): Note[] {
  return [...names]
    .filter((name) => lookup(name) === 'unknown')
    .map((name) => ({ kind: 'unknown', name }));
}

/** Bounds what one stream may watch. */
export function checkCount(names: ReadonlyMap<string, NameEntry>): void {
  if (names.size > LIMITS.namesPerStream) throw tooMany('resource_names_subscribe');
}
