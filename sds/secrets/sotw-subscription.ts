import type { SotwRequest } from './messages';
import type { Lookup, SecretResource } from './secret-resource';
import {
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

export interface SotwState extends SubscriptionState {
  /** The last response. Undefined until there is one: every request is a first one until then. */
  readonly last: LastResponse | undefined;
}

interface LastResponse {
  readonly nonce: string;
  readonly deliveries: readonly Delivery[];
  /** The client's ACK or NACK is waited for before anything that it did not ask for is sent. */
  readonly awaited: boolean;
  readonly verdict: 'none' | 'acknowledged' | 'refused';
}

/**
 * A stream of StreamSecrets. A request names all that the client wants. One with the nonce of the last response is its ACK or NACK and may
 * change the names; one with another nonce is stale and ignored; one without a nonce, or any before the first response, is a first request
 * and answered in full, whatever its version and nonce say: they may be those of an agent before this one. No names: unsubscribed.
 *
 * A name added is answered alone. A changed secret is sent alone too, the bundle first, and the next only after the client's verdict.
 *
 * @see xDS protocol, "ACK/NACK and versioning" and "Resource updates"; Envoy answers an empty response with a NACK, so none is sent.
 */
export const sotwSubscription: Subscription<SotwState, SotwRequest> = {
  open: (noncePrefix) => ({
    noncePrefix,
    sequence: 0,
    names: new Map(),
    writing: false,
    last: undefined,
  }),
  isAwaiting: (state) => state.last?.awaited === true,
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
          { ...state, last: state.last && { ...state.last, awaited: false } },
          [],
          event.at,
          lookup,
        );
    }
  },
};

function takeRequest(
  state: SotwState,
  { request, at }: Extract<SubscriptionEvent<SotwRequest>, { kind: 'request' }>,
  lookup: Lookup,
): Step<SotwState> {
  const { last } = state;
  if (last && request.nonce === last.nonce) return takeAnswer(state, last, request, at, lookup);
  if (last && request.nonce !== '')
    return { state, response: undefined, notes: [{ kind: 'stale' }] };
  return takeFirst(state, request, at, lookup);
}

/** A first request: everything is owed, and sent without waiting for a verdict on what came before; one that comes still counts. */
function takeFirst(
  state: SotwState,
  request: SotwRequest,
  at: number,
  lookup: Lookup,
): Step<SotwState> {
  const names = new Map(
    request.names.map((name) => [name, { ...(state.names.get(name) ?? NEW_ENTRY), due: true }]),
  );
  const notes: Note[] = unknownNotes(
    request.names.filter((name) => !state.names.has(name)),
    lookup,
  );
  const message = request.error;
  if (message !== undefined) {
    // A refusal of something that another process sent: there is nothing to hold back, but the operator should read it.
    for (const name of names.keys())
      notes.push({ kind: 'refused', name, version: '', message, repeated: false });
  }
  return flush(
    { ...state, names, last: state.last && { ...state.last, awaited: false } },
    notes,
    at,
    lookup,
  );
}

/** An ACK or NACK of the last response, or a later change of names under the same nonce. */
function takeAnswer(
  state: SotwState,
  last: LastResponse,
  request: SotwRequest,
  at: number,
  lookup: Lookup,
): Step<SotwState> {
  const judged = new Map(state.names);
  const notes: Note[] = [];
  let { verdict } = last;
  // The first answer is the verdict. Later ones without an error change names only: an update after a NACK must not pass for an ACK.
  if (verdict === 'none' || request.error !== undefined) {
    notes.push(...recordVerdict(judged, last.deliveries, request.error, at));
    verdict = request.error === undefined ? 'acknowledged' : 'refused';
  }
  if (request.names.length === 0)
    return { state: { ...state, names: new Map(), last: undefined }, response: undefined, notes };
  const names = new Map<string, NameEntry>(
    request.names.map((name) => [name, judged.get(name) ?? NEW_ENTRY]),
  );
  const added = request.names.filter((name) => !judged.has(name));
  return flush(
    { ...state, names, last: { ...last, awaited: false, verdict } },
    [...notes, ...unknownNotes(added, lookup)],
    at,
    lookup,
  );
}

function flush(
  state: SotwState,
  notes: readonly Note[],
  at: number,
  lookup: Lookup,
): Step<SotwState> {
  const resources = state.writing || state.last?.awaited ? [] : nextResources(state.names, lookup);
  if (resources.length === 0) return { state, response: undefined, notes };
  const answered = respond(state, resources, [], at);
  const { nonce } = answered.response;
  const last: LastResponse = {
    nonce,
    deliveries: answered.deliveries,
    awaited: true,
    verdict: 'none',
  };
  return { state: { ...answered.state, last }, response: answered.response, notes };
}

function nextResources(names: ReadonlyMap<string, NameEntry>, lookup: Lookup): SecretResource[] {
  const resources: SecretResource[] = [];
  let asked = false;
  for (const [name, entry] of names) {
    const resource = owed(entry, name, lookup);
    if (!resource) continue;
    asked ||= entry.due;
    resources.push(resource);
  }
  const ordered = inOrder(resources);
  // What was not asked for goes one by one, so that a refusal says which secret it is about.
  return asked ? ordered : ordered.slice(0, 1);
}
