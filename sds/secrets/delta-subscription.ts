import type { DeltaRequest } from './messages';
import type { Lookup, SecretResource } from './secret-resource';
import {
  checkCount,
  type Delivery,
  inOrder,
  type NameEntry,
  NEW_ENTRY,
  type Note,
  owed,
  recordVerdict,
  respond,
  type Step,
  type Subscription,
  type SubscriptionEvent,
  type SubscriptionState,
  unknownNotes,
} from './subscription';

export interface DeltaState extends SubscriptionState {
  /** Whether the first request has come: only that one may tell what the client brings along. */
  readonly begun: boolean;
  /** Responses without a verdict, by nonce. A name is in at most one of them. */
  readonly outstanding: ReadonlyMap<string, Outstanding>;
}

interface Outstanding {
  readonly deliveries: readonly Delivery[];
  /** The verdict is waited for before a newer version of these names is sent. */
  readonly awaited: boolean;
}

/**
 * A stream of DeltaSecrets. Subscriptions and removals count whatever nonce comes with them; the nonce only says which response the client
 * accepts or refuses. A name subscribed again is sent again. A version that the client brings from an earlier stream is a content hash,
 * so it is not sent what it has. Names that nobody serves are answered in `removed_resources`.
 *
 * @see xDS protocol, "Incremental xDS".
 */
export const deltaSubscription: Subscription<DeltaState, DeltaRequest> = {
  open: (noncePrefix) => ({
    noncePrefix,
    sequence: 0,
    names: new Map(),
    writing: false,
    begun: false,
    outstanding: new Map(),
  }),
  isAwaiting: (state) => [...state.outstanding.values()].some((each) => each.awaited),
  step(state, event, lookup) {
    switch (event.kind) {
      case 'request':
        return takeRequest(state, event, lookup);
      case 'changed':
        return flush(state, [], event.at, lookup);
      case 'written':
        return flush({ ...state, writing: false }, [], event.at, lookup);
      case 'overdue':
        return flush(
          { ...state, outstanding: withoutWaiting(state.outstanding) },
          [],
          event.at,
          lookup,
        );
    }
  },
};

function takeRequest(
  state: DeltaState,
  { request, at }: Extract<SubscriptionEvent<DeltaRequest>, { kind: 'request' }>,
  lookup: Lookup,
): Step<DeltaState> {
  const names = new Map(state.names);
  const outstanding = new Map(state.outstanding);
  const notes = takeVerdict(state, request, names, outstanding, at);
  for (const name of request.unsubscribe) names.delete(name);
  const added = request.subscribe.filter((name) => !names.has(name));
  for (const name of request.subscribe) {
    names.set(
      name,
      subscribed(
        names.get(name),
        state.begun ? undefined : request.versions.get(name),
        name,
        lookup,
        at,
      ),
    );
  }
  checkCount(names);
  return flush(
    { ...state, begun: true, names, outstanding },
    [...notes, ...unknownNotes(added, lookup)],
    at,
    lookup,
  );
}

function takeVerdict(
  state: DeltaState,
  request: DeltaRequest,
  names: Map<string, NameEntry>,
  outstanding: Map<string, Outstanding>,
  at: number,
): Note[] {
  const { nonce, error } = request;
  if (nonce === '' && error === undefined) return [];
  const answered = outstanding.get(nonce);
  if (answered) {
    outstanding.delete(nonce);
    return [...recordVerdict(names, answered.deliveries, error, at)];
  }
  if (state.begun || error === undefined) return state.begun ? [{ kind: 'stale' }] : [];
  return request.subscribe.map((name) => ({
    kind: 'refused',
    name,
    version: '',
    message: error,
    repeated: false,
  }));
}

/** The entry of a name that the client asks for now, which may tell that it has a version of it. */
function subscribed(
  entry: NameEntry | undefined,
  version: string | undefined,
  name: string,
  lookup: Lookup,
  at: number,
): NameEntry {
  if (version === undefined) return { ...(entry ?? NEW_ENTRY), due: true };
  const found = lookup(name);
  if (found === 'unknown') return NEW_ENTRY;
  const current = found !== 'waiting' && found.version === version ? found : undefined;
  const brought: Delivery = { name, version, serial: current?.serial, at };
  return { due: false, sent: brought, acknowledged: current && brought, nack: undefined };
}

function flush(
  state: DeltaState,
  notes: readonly Note[],
  at: number,
  lookup: Lookup,
): Step<DeltaState> {
  if (state.writing) return { state, response: undefined, notes };
  const resources = nextResources(state, lookup);
  const removed = [...state.names]
    .filter(([name, entry]) => entry.due && lookup(name) === 'unknown')
    .map(([name]) => name);
  if (resources.length === 0 && removed.length === 0) return { state, response: undefined, notes };
  const answered = respond(state, resources, removed, at);
  const sent = new Set(resources.map((resource) => resource.name));
  const outstanding = withoutNames(state.outstanding, sent);
  outstanding.set(answered.response.nonce, { deliveries: answered.deliveries, awaited: true });
  return { state: { ...answered.state, outstanding }, response: answered.response, notes };
}

/** What is asked for goes at once; what merely changed waits until the client has judged the version before it. */
function nextResources(state: DeltaState, lookup: Lookup): SecretResource[] {
  const awaited = new Set<string>();
  for (const each of state.outstanding.values()) {
    if (each.awaited) for (const { name } of each.deliveries) awaited.add(name);
  }
  const resources: SecretResource[] = [];
  for (const [name, entry] of state.names) {
    const resource = owed(entry, name, lookup);
    if (resource && (entry.due || !awaited.has(name))) resources.push(resource);
  }
  return inOrder(resources);
}

/** A verdict on a delivery that is overtaken by a newer one would be about nothing: such answers are stale. */
function withoutNames(
  outstanding: ReadonlyMap<string, Outstanding>,
  names: ReadonlySet<string>,
): Map<string, Outstanding> {
  const kept = new Map<string, Outstanding>();
  for (const [nonce, { deliveries, awaited }] of outstanding) {
    const rest = deliveries.filter((delivery) => !names.has(delivery.name));
    if (rest.length > 0) kept.set(nonce, { deliveries: rest, awaited });
  }
  return kept;
}

function withoutWaiting(outstanding: ReadonlyMap<string, Outstanding>): Map<string, Outstanding> {
  return new Map([...outstanding].map(([nonce, each]) => [nonce, { ...each, awaited: false }]));
}
