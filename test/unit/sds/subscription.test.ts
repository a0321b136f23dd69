import { describe, expect, test } from '@jest/globals';
import { LIMITS } from '../../../sds/grpc/limits';
import { type DeltaState, deltaSubscription } from '../../../sds/secrets/delta-subscription';
import type { DeltaRequest, SotwRequest } from '../../../sds/secrets/messages';
import type { Lookup, SecretResource } from '../../../sds/secrets/secret-resource';
import { type SotwState, sotwSubscription } from '../../../sds/secrets/sotw-subscription';
import type {
  Note,
  Response,
  Step,
  Subscription,
  SubscriptionEvent,
  SubscriptionState,
} from '../../../sds/secrets/subscription';

const AT = 1_000;

/** What the agent has, by name: a version, or `waiting`. Anything else is unknown. */
type World = Record<string, string>;

function lookupIn(world: World): Lookup {
  return (name) => {
    const version = Object.hasOwn(world, name) ? world[name]! : undefined;
    if (version === undefined) return 'unknown';
    return version === 'waiting' ? 'waiting' : resource(name, version);
  };
}

function resource(name: string, version: string, bytes = 1): SecretResource {
  return { name, version, secret: [new Uint8Array(bytes)], serial: version, publishedAt: 0 };
}

/** One stream under test: requests in, `name@version` texts out. */
function drive<State extends SubscriptionState, Request>(
  subscription: Subscription<State, Request>,
  world: World,
) {
  let state = subscription.open('p-');
  let last: Response | undefined;
  const notes: Note[] = [];
  const take = (step: Step<State>): string[] | undefined => {
    state = step.state;
    notes.push(...step.notes);
    if (!step.response) return undefined;
    last = step.response;
    return [
      ...last.resources.map(({ name, version }) => `${name}@${version}`),
      ...last.removed.map((name) => `-${name}`),
    ];
  };
  const event = (input: SubscriptionEvent<Request>) =>
    take(subscription.step(state, input, lookupIn(world)));
  return {
    world,
    event,
    request: (request: Request) => event({ kind: 'request', request, at: AT }),
    written: () => event({ kind: 'written', at: AT }),
    changed: () => event({ kind: 'changed', at: AT }),
    overdue: () => event({ kind: 'overdue', at: AT }),
    isAwaiting: () => subscription.isAwaiting(state),
    nonce: () => last?.nonce ?? '',
    entry: (name: string) => state.names.get(name),
    notes: () => notes.splice(0).map((note) => note.kind),
    /** Words of each refusal, and whether it is repeated. */
    refusals: () =>
      notes.splice(0).map((note) => note.kind === 'refused' && [note.message, note.repeated]),
  };
}

function sotw(world: World) {
  const driven = drive<SotwState, SotwRequest>(sotwSubscription, world);
  const ask = (names: string[], nonce: string, error?: string) =>
    driven.request({ names, nonce, error, node: '' });
  return {
    ...driven,
    ask: (...names: string[]) => ask(names, ''),
    /** An ACK of the last response, once it is written. */
    ack: (...names: string[]) => [driven.written(), ask(names, driven.nonce())].find(Boolean),
    nack: (...names: string[]) =>
      [driven.written(), ask(names, driven.nonce(), 'no')].find(Boolean),
    say: ask,
  };
}

function delta(world: World) {
  const driven = drive<DeltaState, DeltaRequest>(deltaSubscription, world);
  const say = (request: Partial<DeltaRequest>) =>
    driven.request({
      subscribe: [],
      unsubscribe: [],
      versions: new Map(),
      nonce: '',
      error: undefined,
      node: '',
      ...request,
    });
  return {
    ...driven,
    say,
    ask: (...subscribe: string[]) => say({ subscribe }),
    ack: () => [driven.written(), say({ nonce: driven.nonce() })].find(Boolean),
    nack: () => [driven.written(), say({ nonce: driven.nonce(), error: 'no' })].find(Boolean),
  };
}

describe('a state-of-the-world stream', () => {
  test('is answered with all that is there, the bundle first', () => {
    expect(sotw({ default: 'a', ROOTCA: 'r' }).ask('default', 'ROOTCA')).toEqual([
      'ROOTCA@r',
      'default@a',
    ]);
  });

  test('D3 ignores a stale nonce on the same stream entirely, names included', () => {
    const stream = sotw({ default: 'a', ROOTCA: 'r' });
    stream.ask('default');
    const old = stream.nonce();
    stream.ack('default');
    stream.world.default = 'b';
    expect(stream.changed()).toEqual(['default@b']);
    stream.written();
    expect(stream.say(['default', 'ROOTCA'], old)).toBeUndefined();
    expect(stream.entry('ROOTCA')).toBeUndefined();
    expect(stream.isAwaiting()).toBe(true);
    expect(stream.notes()).toEqual(['acknowledged', 'stale']);
  });

  test('D3 ignores a stale nonce that comes without names: what unsubscribes is the answer to the response under way', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    const old = stream.nonce();
    stream.ack('default');
    stream.world.default = 'b';
    stream.changed();
    stream.written();
    stream.say([], old);
    expect(stream.entry('default')).toBeDefined();
    expect(stream.notes()).toEqual(['acknowledged', 'stale']);
    stream.say([], stream.nonce());
    expect(stream.entry('default')).toBeUndefined();
    expect(stream.notes()).toEqual(['acknowledged']);
  });

  test('D4 answers a first request whatever its nonce and error say', () => {
    const stream = sotw({ default: 'a' });
    expect(stream.say(['default'], 'other-1-1', 'refused elsewhere')).toEqual(['default@a']);
    expect(stream.notes()).toEqual(['refused']);
  });

  test('D5 holds a refused version back, and pushes the next different one', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    expect(stream.nack('default')).toBeUndefined();
    expect(stream.changed()).toBeUndefined();
    expect(stream.entry('default')).toMatchObject({
      acknowledged: undefined,
      nack: { version: 'a', message: 'no' },
    });
    stream.world.default = 'b';
    expect(stream.changed()).toEqual(['default@b']);
    stream.ack('default');
    expect(stream.entry('default')).toMatchObject({
      acknowledged: { version: 'b' },
      nack: undefined,
    });
  });

  test('D5 after a NACK pushes the version before it, when that comes back', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    stream.ack('default');
    stream.world.default = 'b';
    stream.changed();
    stream.nack('default');
    stream.world.default = 'a';
    expect(stream.changed()).toEqual(['default@a']);
  });

  test('D6 answers none of many NACKs, and tells repeated ones apart', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    stream.written();
    for (let times = 0; times < 3; times += 1)
      expect(stream.say(['default'], stream.nonce(), 'no')).toBeUndefined();
    expect(stream.refusals()).toEqual([
      ['no', false],
      ['no', true],
      ['no', true],
    ]);
  });

  test('D7 serves the names that a NACK adds', () => {
    const stream = sotw({ default: 'a', ROOTCA: 'r' });
    stream.ask('default');
    expect(stream.nack('default', 'ROOTCA')).toEqual(['ROOTCA@r']);
  });

  test('takes a change of names after a NACK for what it is, not for an ACK', () => {
    const stream = sotw({ default: 'a', ROOTCA: 'waiting' });
    stream.ask('default');
    stream.nack('default');
    expect(stream.say(['default', 'ROOTCA'], stream.nonce())).toBeUndefined();
    expect(stream.entry('default')).toMatchObject({
      acknowledged: undefined,
      nack: { version: 'a' },
    });
  });

  test('D8 pushes no removed name, answers an added one alone, and a removed and added one anew', () => {
    const stream = sotw({ default: 'a', ROOTCA: 'r' });
    stream.ask('default', 'ROOTCA');
    expect(stream.ack('ROOTCA')).toBeUndefined();
    stream.world.default = 'b';
    expect(stream.changed()).toBeUndefined();
    expect(stream.say(['ROOTCA', 'default'], stream.nonce())).toEqual(['default@b']);
  });

  test('D9 waits for what is not there yet, and sends at once what is', () => {
    const stream = sotw({ default: 'waiting', ROOTCA: 'r' });
    expect(stream.ask('default', 'ROOTCA')).toEqual(['ROOTCA@r']);
    stream.world.default = 'a';
    expect(stream.changed()).toBeUndefined();
    expect(stream.ack('default', 'ROOTCA')).toEqual(['default@a']);
  });

  test('D11 keeps the newest of many changes for a client that does not answer, and nothing while it does not read', () => {
    const stream = sotw({ default: '0' });
    stream.ask('default');
    for (let version = 1; version <= 100; version += 1) {
      stream.world.default = String(version);
      expect(stream.changed()).toBeUndefined();
      expect(stream.say(['default'], '')).toBeUndefined();
    }
    expect(stream.written()).toEqual(['default@100']);
    expect(stream.written()).toBeUndefined();
  });

  test('is pushed the newest version when its answer is long overdue, and a late ACK still counts', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    stream.written();
    stream.world.default = 'b';
    expect(stream.changed()).toBeUndefined();
    expect(stream.overdue()).toEqual(['default@b']);
    stream.ack('default');
    expect(stream.entry('default')).toMatchObject({ acknowledged: { version: 'b' } });
  });

  test('an overdue answer alone sends nothing', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    stream.written();
    expect(stream.overdue()).toBeUndefined();
    expect(stream.isAwaiting()).toBe(false);
    stream.ack('default');
    expect(stream.entry('default')).toMatchObject({ acknowledged: { version: 'a' } });
  });

  test('changes that nobody asked for go one by one, the bundle first, each after the verdict on the one before', () => {
    const stream = sotw({ default: 'a', ROOTCA: 'r' });
    stream.ask('default', 'ROOTCA');
    stream.ack('default', 'ROOTCA');
    Object.assign(stream.world, { default: 'b', ROOTCA: 's' });
    expect(stream.changed()).toEqual(['ROOTCA@s']);
    expect(stream.nack('default', 'ROOTCA')).toEqual(['default@b']);
  });

  test('D23 sends a changed bundle before a leaf that is asked for only now', () => {
    const stream = sotw({ default: 'a', ROOTCA: 'r' });
    stream.ask('ROOTCA');
    stream.written();
    stream.world.ROOTCA = 's';
    expect(stream.say(['ROOTCA', 'default'], stream.nonce())).toEqual(['ROOTCA@s', 'default@a']);
  });

  test('unsubscribed, is silent whatever changes, and fresh afterwards', () => {
    const stream = sotw({ default: 'a' });
    stream.ask('default');
    expect(stream.ack()).toBeUndefined();
    stream.world.default = 'b';
    expect(stream.changed()).toBeUndefined();
    expect(stream.say(['default'], 'whatever')).toEqual(['default@b']);
  });

  test('a response is as large as clients take, and the rest follows', () => {
    const names = [...Array(5)].map((_, index) => `file-root:/${index}`);
    const lookup: Lookup = (name) => resource(name, 'v', LIMITS.responseBytes / 2);
    let state = sotwSubscription.open('p-');
    const sent: number[] = [];
    let step = sotwSubscription.step(
      state,
      { kind: 'request', request: { names, nonce: '', error: undefined, node: '' }, at: AT },
      lookup,
    );
    while (step.response) {
      sent.push(step.response.resources.length);
      const request = { names, nonce: step.response.nonce, error: undefined, node: '' };
      state = sotwSubscription.step(step.state, { kind: 'written', at: AT }, lookup).state;
      step = sotwSubscription.step(state, { kind: 'request', request, at: AT }, lookup);
    }
    expect(sent).toEqual([2, 2, 1]);
  });
});

describe('a delta stream', () => {
  test('D1 lists what nobody serves as removed, once', () => {
    const stream = delta({ default: 'a' });
    expect(stream.ask('default', 'nobody')).toEqual(['default@a', '-nobody']);
    expect(stream.ack()).toBeUndefined();
    expect(stream.changed()).toBeUndefined();
    expect(stream.ask('nobody')).toEqual(['-nobody']);
  });

  test('D3 takes subscriptions whatever nonce comes with them, but no verdict of a wrong one', () => {
    const stream = delta({ default: 'a', ROOTCA: 'r' });
    stream.ask('default');
    stream.written();
    expect(stream.say({ subscribe: ['ROOTCA'], nonce: 'wrong' })).toEqual(['ROOTCA@r']);
    expect(stream.entry('default')?.acknowledged).toBeUndefined();
    expect(stream.notes()).toEqual(['stale']);
  });

  test('D5 holds a refused version back, and pushes the next different one', () => {
    const stream = delta({ default: 'a' });
    stream.ask('default');
    expect(stream.nack()).toBeUndefined();
    expect(stream.changed()).toBeUndefined();
    stream.world.default = 'b';
    expect(stream.changed()).toEqual(['default@b']);
  });

  test('D8 subscribes again what it has, and pushes nothing that is unsubscribed', () => {
    const stream = delta({ default: 'a', ROOTCA: 'r' });
    stream.ask('default', 'ROOTCA');
    stream.ack();
    expect(stream.ask('default')).toEqual(['default@a']);
    stream.ack();
    stream.say({ unsubscribe: ['default'] });
    Object.assign(stream.world, { default: 'b', ROOTCA: 's' });
    expect(stream.changed()).toEqual(['ROOTCA@s']);
  });

  test('D11 keeps the newest of many changes for a client that does not answer', () => {
    const stream = delta({ default: '0' });
    stream.ask('default');
    stream.written();
    for (let version = 1; version <= 100; version += 1) {
      stream.world.default = String(version);
      expect(stream.changed()).toBeUndefined();
    }
    expect(stream.ack()).toEqual(['default@100']);
  });

  test('an overdue answer lets the newest through, and a late one still counts until then', () => {
    const stream = delta({ default: 'a' });
    stream.ask('default');
    stream.written();
    expect(stream.overdue()).toBeUndefined();
    stream.ack();
    expect(stream.entry('default')).toMatchObject({ acknowledged: { version: 'a' } });
    stream.world.default = 'b';
    expect(stream.changed()).toEqual(['default@b']);
    stream.written();
    stream.world.default = 'c';
    expect(stream.changed()).toBeUndefined();
    expect(stream.overdue()).toEqual(['default@c']);
  });

  test('brings versions along in its first request only, and is sent what differs', () => {
    const stream = delta({ default: 'a', ROOTCA: 'r' });
    const versions = new Map([
      ['default', 'a'],
      ['ROOTCA', 'q'],
    ]);
    expect(stream.say({ subscribe: ['default', 'ROOTCA'], versions })).toEqual(['ROOTCA@r']);
    expect(stream.entry('default')).toMatchObject({ acknowledged: { version: 'a', serial: 'a' } });
    stream.ack();
    expect(stream.say({ subscribe: ['default'], versions })).toEqual(['default@a']);
  });

  test('that brings an old version along has not accepted the newest one', () => {
    const stream = delta({ default: 'b' });
    expect(stream.say({ subscribe: ['default'], versions: new Map([['default', 'a']]) })).toEqual([
      'default@b',
    ]);
    expect(stream.entry('default')?.acknowledged).toBeUndefined();
    stream.ack();
    expect(stream.entry('default')?.acknowledged).toMatchObject({ version: 'b', serial: 'b' });
  });

  test('is told at once that a name which it brings along is served no more', () => {
    expect(delta({}).say({ subscribe: ['gone'], versions: new Map([['gone', 'v']]) })).toEqual([
      '-gone',
    ]);
  });

  test.each([
    ['of another stream', 'old'],
    ['without a nonce', ''],
  ])(
    'a first message that is a NACK %s is a subscription, and its refusal is reported',
    (_, nonce) => {
      const stream = delta({ default: 'a' });
      expect(stream.say({ subscribe: ['default'], nonce, error: 'no' })).toEqual(['default@a']);
      expect(stream.notes()).toEqual(['refused']);
    },
  );

  test('a NACK without a nonce is reported as stale, and refuses nothing', () => {
    const stream = delta({ default: 'a' });
    stream.ask('default');
    stream.written();
    stream.say({ error: 'no' });
    expect(stream.notes()).toEqual(['stale']);
    expect(stream.entry('default')?.nack).toBeUndefined();
  });

  test('may not watch more names than one stream may', () => {
    const stream = delta({});
    stream.ask(...[...Array(LIMITS.namesPerStream)].map((_, index) => `n${index}`));
    expect(() => stream.ask('one more')).toThrow(expect.objectContaining({ code: 'ERR_PARSE' }));
  });
});
