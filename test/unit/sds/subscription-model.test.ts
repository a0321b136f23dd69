import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { deltaSubscription } from '../../../sds/secrets/delta-subscription';
import type { DeltaRequest, SotwRequest } from '../../../sds/secrets/messages';
import type { Lookup } from '../../../sds/secrets/secret-resource';
import { sotwSubscription } from '../../../sds/secrets/sotw-subscription';
import type {
  Response,
  Step,
  Subscription,
  SubscriptionEvent,
  SubscriptionState,
} from '../../../sds/secrets/subscription';

const RUNS = process.env.KEYTURN_TEST === 'full' ? 100_000 : 10_000;
const NAMES = ['default', 'ROOTCA', 'file-root:/a', 'nobody'] as const;
type Name = (typeof NAMES)[number];

/** What may happen to a stream, in any order. Bits of `names` choose from NAMES. */
type Action =
  | { readonly do: 'rotate'; readonly roots: boolean }
  | { readonly do: 'file' }
  | { readonly do: 'written' }
  | { readonly do: 'overdue' }
  /** The client reads the next response and accepts or refuses it. */
  | { readonly do: 'answer'; readonly refuse: boolean }
  /** The client wants other names, under the nonce of what it read last. */
  | { readonly do: 'want'; readonly names: number }
  /** An answer to an older response, or to none of ours. */
  | { readonly do: 'stale'; readonly back: number; readonly refuse: boolean }
  /** The first request again. */
  | { readonly do: 'again' };

const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('rotate' as const), roots: fc.boolean() }) },
  { weight: 1, arbitrary: fc.constant({ do: 'file' as const }) },
  { weight: 5, arbitrary: fc.constant({ do: 'written' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'overdue' as const }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('answer' as const), refuse: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('want' as const),
      names: fc.integer({ min: 0, max: 15 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('stale' as const),
      back: fc.integer({ min: 0, max: 4 }),
      refuse: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'again' as const }) },
);
const actions = fc.array(action, { minLength: 1, maxLength: 40 });

/** The agent's side: key and leaf are one version, roots another; each is a number that only grows. */
class Agent {
  leaf = 0;
  roots = 0;
  file = 0;
  readonly lookup: Lookup = (name) => {
    const version = { default: this.leaf, ROOTCA: this.roots, 'file-root:/a': this.file }[
      name as string
    ];
    if (version === undefined) return 'unknown';
    if (version === 0) return 'waiting';
    return {
      name,
      version: String(version),
      secret: [new Uint8Array(1)],
      serial: undefined,
      publishedAt: 0,
    };
  };
}

/** A stream with its client, as the protocol sees both. */
abstract class Model<State extends SubscriptionState, Request> {
  readonly agent = new Agent();
  /** Responses on their way to the client, oldest first. */
  readonly wire: Response[] = [];
  /** Nonces that the client read, oldest first. */
  readonly read: string[] = [];
  /** What the client holds: name to version. */
  readonly held = new Map<string, number>();
  /** What it refused since it last asked for it: name to version. */
  readonly nacked = new Map<string, string>();
  wanted: readonly Name[] = [];
  sent = 0;
  #state: State;

  constructor(private readonly subscription: Subscription<State, Request>) {
    this.#state = subscription.open('p-');
  }

  abstract run(action: Action): void;
  /** Whether a verdict on what that response holds under the name still counts. */
  abstract counts(nonce: string, name: string): boolean;

  protected get state(): State {
    return this.#state;
  }

  protected event(event: SubscriptionEvent<Request>): void {
    const wasWriting = event.kind !== 'written' && this.#state.writing;
    const step: Step<State> = this.subscription.step(this.#state, event, this.agent.lookup);
    this.#state = step.state;
    const { response } = step;
    if (!response) return;
    // Never a second response behind one that has not left.
    expect(wasWriting).toBe(false);
    expect(response.resources.length + response.removed.length).toBeGreaterThan(0);
    this.checkResponse(response);
    this.wire.push(response);
    this.sent += 1;
  }

  protected checkResponse(response: Response): void {
    for (const { name, version } of response.resources) {
      expect(this.agent.lookup(name)).toMatchObject({ version });
      expect([name, version]).not.toEqual([name, this.nacked.get(name)]);
    }
    const names = response.resources.map(({ name }) => name);
    if (names.includes('ROOTCA')) expect(names[0]).toBe('ROOTCA');
    expect(names).not.toContain('nobody');
  }

  /** The client asks for these anew: even what it refused may come again. */
  protected asksAnew(names: readonly string[]): void {
    for (const name of names) this.nacked.delete(name);
  }

  protected rotate(roots: boolean): void {
    if (roots) {
      this.agent.roots += 1;
      this.event({ kind: 'changed', at: 0 });
    }
    this.agent.leaf += 1;
    this.event({ kind: 'changed', at: 0 });
  }

  protected request(request: Request): void {
    this.event({ kind: 'request', request, at: 0 });
  }

  /** The client reads one response. */
  protected receive(refuse: boolean): Response | undefined {
    const response = this.wire.shift();
    if (!response) return undefined;
    this.read.push(response.nonce);
    for (const { name, version } of response.resources) {
      if (refuse) {
        // A refusal of what is overtaken already is stale, and says nothing of the answer that is on its way.
        if (this.counts(response.nonce, name)) this.nacked.set(name, version);
      } else {
        // Versions never go back: nobody ends with an older certificate than it had.
        expect(Number(version)).toBeGreaterThanOrEqual(this.held.get(name) ?? 0);
        this.held.set(name, Number(version));
        this.nacked.delete(name);
      }
    }
    return response;
  }

  /** Everything is delivered and accepted: now the client holds the newest of all that it wants, and nothing more is sent. */
  settle(): void {
    this.rotate(true);
    this.agent.file += 1;
    this.event({ kind: 'changed', at: 0 });
    for (let round = 0; round < 50 && (this.wire.length > 0 || this.#state.writing); round += 1) {
      this.run({ do: 'written' });
      this.run({ do: 'answer', refuse: false });
    }
    expect(this.wire).toEqual([]);
    expect(this.subscription.isAwaiting(this.#state)).toBe(false);
    for (const name of this.wanted) {
      const found = this.agent.lookup(name);
      if (typeof found !== 'string')
        expect([name, this.held.get(name)]).toEqual([name, Number(found.version)]);
      if (typeof found !== 'string')
        expect(this.#state.names.get(name)?.acknowledged?.version).toBe(found.version);
    }
    const before = this.sent;
    this.event({ kind: 'changed', at: 0 });
    this.run({ do: 'overdue' });
    expect(this.sent).toBe(before);
  }

  protected common(action: Action): void {
    if (action.do === 'rotate') {
      this.rotate(action.roots);
    } else if (action.do === 'file') {
      this.agent.file += 1;
      this.event({ kind: 'changed', at: 0 });
    } else if (action.do === 'overdue') {
      this.event({ kind: 'overdue', at: 0 });
    } else if (action.do === 'written' && this.#state.writing) {
      // Writes end once each, as the socket tells it.
      this.event({ kind: 'written', at: 0 });
    }
  }
}

function chosen(bits: number): readonly Name[] {
  return NAMES.filter((_, index) => (bits & (1 << index)) !== 0);
}

class SotwModel extends Model<ReturnType<typeof sotwSubscription.open>, SotwRequest> {
  constructor() {
    super(sotwSubscription);
  }

  run(action: Action): void {
    if (action.do === 'answer') {
      const response = this.receive(action.refuse);
      if (response) this.say(response.nonce, action.refuse);
    } else if (action.do === 'want') {
      this.wanted = chosen(action.names);
      this.say(this.read.at(-1) ?? '', false);
    } else if (action.do === 'stale') {
      const before = this.state;
      this.say(this.read.at(-2 - action.back) ?? 'another-agent-1', action.refuse);
      if (before.last && this.wanted.length > 0) expect(this.state).toBe(before);
    } else if (action.do === 'again') {
      this.say('', false);
    } else {
      this.common(action);
    }
  }

  counts(nonce: string): boolean {
    return this.state.last?.nonce === nonce;
  }

  private say(nonce: string, refuse: boolean): void {
    const first = nonce === '' || !this.state.last;
    this.asksAnew(this.wanted.filter((name) => first || !this.state.names.has(name)));
    this.request({ names: this.wanted, nonce, error: refuse ? 'no' : undefined, node: '' });
  }
}

class DeltaModel extends Model<ReturnType<typeof deltaSubscription.open>, DeltaRequest> {
  constructor() {
    super(deltaSubscription);
  }

  run(action: Action): void {
    if (action.do === 'answer') {
      const response = this.receive(action.refuse);
      if (response) this.say({ nonce: response.nonce, error: action.refuse ? 'no' : undefined });
    } else if (action.do === 'want') {
      const [before, wanted] = [this.wanted, chosen(action.names)];
      this.wanted = wanted;
      this.say({
        subscribe: wanted.filter((name) => !before.includes(name)),
        unsubscribe: before.filter((name) => !wanted.includes(name)),
      });
    } else if (action.do === 'stale') {
      this.say({
        nonce: this.read.at(-2 - action.back) ?? 'another-agent-1',
        error: action.refuse ? 'no' : undefined,
      });
    } else if (action.do === 'again') {
      this.say({ subscribe: this.wanted });
    } else {
      this.common(action);
    }
  }

  counts(nonce: string, name: string): boolean {
    return (
      this.state.outstanding.get(nonce)?.deliveries.some((delivery) => delivery.name === name) ===
      true
    );
  }

  private say(request: Partial<DeltaRequest>): void {
    this.asksAnew(request.subscribe ?? []);
    this.request({
      subscribe: [],
      unsubscribe: [],
      versions: new Map(),
      nonce: '',
      error: undefined,
      node: '',
      ...request,
    });
  }
}

describe('whatever the order of requests, ACKs, NACKs, stale answers, rotations and writes', () => {
  test.each([
    ['state-of-the-world', () => new SotwModel()],
    ['delta', () => new DeltaModel()],
  ])(
    'the client of a %s stream ends with the newest of all that it wants, one response at a time',
    (_kind, make) => {
      fc.assert(
        fc.property(actions, (list) => {
          const model = make();
          for (const each of list) model.run(each);
          model.settle();
        }),
        { numRuns: RUNS },
      );
    },
  );
});
