import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError, invalid } from '../../../agent/base/errors';
import type { Claim } from '../../../agent/config/workload-claims';
import {
  type Listed,
  planWorkloads,
  type Refusal,
  type Version,
  type WorkloadPlan,
} from '../../../agent/config/workload-plan';
import { RUNS } from '../../support/mutations';

/** Settings as far as the plan looks into them. */
interface Settings {
  readonly id: string;
  readonly socket: string;
  readonly ttl: number;
}

const claim = (setting: Claim['setting'], value: string): Claim => ({
  setting,
  value,
  shown: value,
});
const claims = ({ id, socket }: Settings) => [claim('spiffe-id', id), claim('sds-socket', socket)];
const same = (a: Settings, b: Settings) =>
  a.id === b.id && a.socket === b.socket && a.ttl === b.ttl;
const RULES = {
  claims,
  same,
  reserved: [{ claim: claim('sds-socket', 'control'), by: 'control-socket' }],
};

const version = (
  name: string,
  config: Partial<Settings> = {},
  from = `${name}.yaml`,
): Version<Settings> => ({
  name,
  from,
  config: { id: name, socket: name, ttl: 1, ...config },
});
const wrong = (name: string | undefined, from = `${name}.yaml`): Refusal => ({
  name,
  from,
  error: invalid('ERR_CONFIG', from, 'is wrong'),
});

/** What runs when every step of a plan was taken. */
function taken(
  plan: WorkloadPlan<Settings>,
  running: readonly Version<Settings>[],
): Version<Settings>[] {
  const gone = [...plan.stop, ...plan.change.map(({ before }) => before)];
  return [
    ...running.filter((each) => !gone.includes(each)),
    ...plan.change.map((each) => each.after),
    ...plan.start,
  ];
}

const plan = (listed: readonly Listed<Settings>[], running: readonly Version<Settings>[]) =>
  planWorkloads(listed, running, RULES);
const names = (versions: readonly { readonly name: string | undefined }[]) =>
  versions.map(({ name }) => name);

describe('a plan', () => {
  test('starts what is new, stops what is gone, changes what is different and leaves the rest alone', () => {
    const [kept, changed, gone] = [version('kept'), version('changed'), version('gone')];
    const found = plan(
      [kept, version('changed', { ttl: 2 }), version('new')],
      [kept, changed, gone],
    );
    expect(names(found.start)).toEqual(['new']);
    expect(names(found.stop)).toEqual(['gone']);
    expect(found.change).toEqual([{ before: changed, after: version('changed', { ttl: 2 }) }]);
    expect(found.refused).toEqual([]);
  });

  test('leaves in service what its entry no longer says in a way that can be read', () => {
    const cart = version('cart');
    expect(taken(plan([wrong('cart')], [cart]), [cart])).toEqual([cart]);
    expect(taken(plan([wrong(undefined, 'cart.yaml')], [cart]), [cart])).toEqual([cart]);
  });

  test('stops nothing of a list that has an element without a readable name', () => {
    const [cart, till] = [version('cart', {}, 'list.yaml'), version('till', {}, 'list.yaml')];
    const found = plan([cart, wrong(undefined, 'list.yaml')], [cart, till]);
    expect(taken(found, [cart, till])).toEqual([cart, till]);
  });

  test.each([
    [
      'the same identity',
      { id: 'cart' },
      'workload till: file till.yaml: spiffe-id: "cart" is that of workload cart',
    ],
    [
      'the same socket',
      { socket: 'cart' },
      'workload till: file till.yaml: sds-socket: "cart" is that of workload cart',
    ],
    [
      "the agent's own socket",
      { socket: 'control' },
      'workload till: file till.yaml: sds-socket: "control" is that of control-socket',
    ],
  ])('refuses %s by name', (_, config, message) => {
    const found = plan([version('cart'), version('till', config)], []);
    expect(names(found.start)).toEqual(['cart']);
    expect(found.refused.map(({ name, error }) => [name, error.message])).toEqual([
      ['till', message],
    ]);
  });

  test('lets many read one directory, and nobody write where another reads', () => {
    const reads = { ...claim('ca-dir', '/ca'), shared: true };
    const of = (...found: readonly Claim[]) => ({
      ...RULES,
      claims: (config: Settings) => [...claims(config), ...(config.ttl === 2 ? found : [reads])],
    });
    const listed = [version('cart'), version('till'), version('odd', { ttl: 2 })];
    const found = planWorkloads(listed, [], of(claim('output-certs', '/ca')));
    expect(names(found.start)).toEqual(['cart', 'till']);
    expect(found.refused.map(({ error }) => error.message)).toEqual([
      'workload odd: file odd.yaml: output-certs: "/ca" is that of workload till',
    ]);
  });

  test('refuses a name that is given twice', () => {
    const found = plan(
      [version('cart', {}, 'a.yaml'), version('cart', { id: 'x', socket: 'y' }, 'b.yaml')],
      [],
    );
    expect(found.start).toEqual([version('cart', {}, 'a.yaml')]);
    expect(found.refused.map(({ error }) => error.message)).toEqual([
      'workload cart: file b.yaml: name: is given twice',
    ]);
  });

  test('does not let a newcomer take what somebody has, wherever it stands in the list', () => {
    const till = version('till');
    const found = plan([version('cart', { socket: 'till' }), till], [till]);
    expect(names(found.refused)).toEqual(['cart']);
    expect(taken(found, [till])).toEqual([till]);
  });

  test('lets two exchange what each of them had', () => {
    const running = [version('a'), version('b')];
    const wanted = [version('a', { socket: 'b' }), version('b', { socket: 'a' })];
    const found = plan(wanted, running);
    expect(found.refused).toEqual([]);
    expect(taken(found, running)).toEqual(wanted);
  });

  test('keeps the version that runs where the new one would take what another keeps', () => {
    const running = [version('a'), version('b')];
    const found = plan([version('a', { socket: 'b' }), wrong('b')], running);
    expect(names(found.refused)).toEqual(['b', 'a']);
    expect(taken(found, running)).toEqual(running);
  });

  test('sees in a new name for an identity a change, also where two exchange their names', () => {
    const [cart, till] = [version('cart'), version('till')];
    const renamed = version('basket', { id: 'cart' });
    expect(plan([renamed], [cart])).toMatchObject({
      stop: [],
      start: [],
      change: [{ before: cart, after: renamed }],
    });
    const exchanged = [version('cart', { id: 'till' }), version('till', { id: 'cart' })];
    expect(
      plan(exchanged, [cart, till]).change.map(({ before, after: next }) => [
        before.config.id,
        next.config.id,
      ]),
    ).toEqual([
      ['till', 'till'],
      ['cart', 'cart'],
    ]);
  });
});

test('who is refused for somebody who is then refused as well has it after all', () => {
  const running = [
    version('till', { id: 'cart', socket: 'cart' }, 'old.yaml'),
    version('cart', { id: 'x', socket: 'x' }),
  ];
  const wanted = [
    version('cart', { id: 'basket', socket: 'cart' }),
    version('till', { id: 'cart', socket: 'cart' }),
    version('basket', { id: 'basket' }),
  ];
  const found = plan(wanted, running);
  expect(names(found.refused)).toEqual(['cart']);
  expect(plan(wanted, taken(found, running))).toMatchObject({ stop: [], change: [], start: [] });
});

describe('whatever is listed and whatever runs', () => {
  const few = (prefix: string) =>
    fc.integer({ min: 0, max: 4 }).map((number) => `${prefix}${number}`);
  const settings = fc.record({
    id: few('id'),
    socket: fc.oneof(few('s'), fc.constant('control')),
    ttl: fc.integer({ min: 0, max: 1 }),
  });
  const good = fc.record({ name: few('w'), from: few('f'), config: settings });
  const bad = fc
    .record({ name: fc.option(few('w'), { nil: undefined }), from: few('f') })
    .map(({ name, from }) => wrong(name, from));
  const list = fc.array(fc.oneof({ weight: 4, arbitrary: good }, { weight: 1, arbitrary: bad }), {
    maxLength: 7,
  });
  /** What can run: nothing of it shares anything. */
  const runs = list.map((listed) => taken(plan(listed, []), []));

  const always = (
    holds: (
      found: WorkloadPlan<Settings>,
      listed: readonly Listed<Settings>[],
      running: readonly Version<Settings>[],
    ) => boolean,
  ) =>
    fc.assert(
      fc.property(list, runs, (listed, running) => holds(plan(listed, running), listed, running)),
      { numRuns: RUNS },
    );
  const isRefusal = (each: Listed<Settings>): each is Refusal => each && 'error' in each;

  test('no two share a name, an identity or a socket, and none has the socket of the agent', () =>
    always((found, _, running) => {
      const result = taken(found, running);
      const all = result.flatMap(({ name, config }) => [
        `n ${name}`,
        `i ${config.id}`,
        `s ${config.socket}`,
      ]);
      return (
        new Set(all).size === all.length &&
        !result.some(({ config }) => config.socket === 'control')
      );
    }));

  test('each good entry is followed to the letter, or refused by an error that names it', () =>
    always((found, listed, running) => {
      const result = taken(found, running);
      return listed.every((each) => {
        if (isRefusal(each)) return found.refused.includes(each);
        const { name, from } = each;
        const refused = found.refused.some(
          (refusal) =>
            refusal.name === name && refusal.from === from && refusal.error instanceof AgentError,
        );
        return (
          refused ||
          result.some(
            (one) => one.name === name && one.from === from && same(one.config, each.config),
          )
        );
      });
    }));

  test('what an entry that cannot be used stands for goes on as it was', () =>
    always((found, listed, running) => {
      const result = taken(found, running);
      const unsure = listed.filter(isRefusal);
      return running.every((one) => {
        const held = unsure.some(({ name, from }) =>
          name === undefined
            ? from === one.from && !listed.some((each) => each.name === one.name)
            : name === one.name && !listed.some((each) => each.name === name && !isRefusal(each)),
        );
        return !held || result.includes(one);
      });
    }));

  test('nothing runs that is neither listed nor held back', () =>
    always((found, listed, running) =>
      taken(found, running).every(
        (one) =>
          listed.some(({ name }) => name === one.name) ||
          listed.some(
            (each) => isRefusal(each) && each.name === undefined && each.from === one.from,
          ),
      ),
    ));

  test('the same list again changes nothing more, and is refused the same', () =>
    always((found, listed, running) => {
      const again = plan(listed, taken(found, running));
      const told = ({ refused }: WorkloadPlan<Settings>) =>
        refused.map(({ name, from }) => `${name} ${from}`).sort();
      return (
        again.start.length + again.stop.length + again.change.length === 0 &&
        JSON.stringify(told(again)) === JSON.stringify(told(found))
      );
    }));

  test('nobody is stopped whose identity goes on, and each that runs is touched once at most', () =>
    always((found, _, running) => {
      const touched = [...found.stop, ...found.change.map(({ before }) => before)];
      const identities = new Set(taken(found, running).map(({ config }) => config.id));
      return (
        new Set(touched).size === touched.length &&
        found.stop.every(({ config }) => !identities.has(config.id))
      );
    }));

  test('a list without conflicts is followed whatever its order', () =>
    fc.assert(
      fc.property(runs, runs, fc.infiniteStream(fc.nat()), (listed, running, order) => {
        const shuffled = listed
          .map((each) => [order.next().value, each] as const)
          .sort((a, b) => a[0] - b[0])
          .map(([, each]) => each);
        const result = (found: WorkloadPlan<Settings>) =>
          JSON.stringify(taken(found, running).sort((a, b) => (a.name < b.name ? -1 : 1)));
        const found = plan(listed, running);
        return found.refused.length === 0 && result(found) === result(plan(shuffled, running));
      }),
      { numRuns: RUNS },
    ));
});
