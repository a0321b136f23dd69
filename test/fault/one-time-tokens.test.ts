import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Authority } from '../../agent/authority/authority';
import type { CaStore } from '../../agent/authority/store/store';
import { AgentError } from '../../agent/base/errors';
import { Secret } from '../../agent/base/secret';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { but } from '../support/but';
import { makeRequest } from '../support/ca-server';
import { TEST_ID } from '../support/certs';
import { tempDir } from '../support/temp-dir';
import { testCaWorld } from '../support/test-ca-world';
import { TestClock } from '../support/test-clock';

const PERMISSION_DENIED = 7;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

const someCsr = async (id?: string) => (await makeRequest(id)).csrDer;

describe('field A6: a one-time token whose answer got lost', () => {
  test('is answered again for its key, by the next process too, and each time the audit log says so', async () => {
    const dir = join(tempDir(), 'ca');
    const first = await testCaWorld({ dir });
    const [token, csr] = [await first.joinToken(), await someCsr()];
    const second = await testCaWorld({ dir });
    for (const world of [first, second]) {
      expect(await world.client().create(csr, { token })).toMatchObject({ code: 0 });
      expect(await world.client().create(csr, { token })).toMatchObject({ code: 0 });
    }
    await first.close();
    const after = await testCaWorld({ dir });
    const codes = [];
    for (let each = 0; each < 3; each += 1)
      codes.push((await after.client().create(csr, { token })).code);
    expect(codes).toEqual([0, 0, UNAUTHENTICATED]);
    expect(
      [first, second, after]
        .flatMap((world) => world.audit())
        .map(({ event, proof }) => [event, (proof as { again?: string })?.again]),
    ).toEqual([
      [undefined, undefined],
      ...['1', '2', '3', '4', '5'].map((again) => ['join-token-answered-again', again]),
      [undefined, undefined],
    ]);
  });

  test('is answered again for ten minutes from the first time, and not past its own end', async () => {
    const clock = new TestClock(Date.now());
    const world = await testCaWorld({ deps: { clock } });
    const [long, short, csr] = [
      await world.joinToken(),
      await world.store.createJoinToken(parseSpiffeId(TEST_ID), 60, clock.now()),
      await someCsr(),
    ];
    const by = world.client();
    for (const token of [long, short.reveal()])
      expect(await by.create(csr, { token })).toMatchObject({ code: 0 });
    await clock.advanceBy(59_000);
    for (const token of [long, short.reveal()])
      expect(await by.create(csr, { token })).toMatchObject({ code: 0 });
    await clock.advanceBy(1_000);
    expect(await world.client().create(csr, { token: short.reveal() })).toMatchObject({
      code: UNAUTHENTICATED,
    });
    await clock.advanceBy(539_000);
    expect(await world.client().create(csr, { token: long })).toMatchObject({ code: 0 });
    await clock.advanceBy(1_000);
    expect(await world.client().create(csr, { token: long })).toMatchObject({
      code: UNAUTHENTICATED,
    });
  });

  test('is refused with another key, which is an audit event of its own and an error in the log', async () => {
    const world = await testCaWorld();
    const token = await world.joinToken();
    expect(await world.client().create(await someCsr(), { token })).toMatchObject({ code: 0 });
    expect(await world.client().create(await someCsr(), { token })).toMatchObject({
      code: UNAUTHENTICATED,
    });
    const [issued, refused] = world.audit();
    expect(refused).toMatchObject({
      event: 'join-token-stolen',
      decision: 'refused',
      reason: expect.stringContaining('two machines'),
    });
    expect(refused!.proof).toEqual(issued!.proof);
    expect(world.events.at(-1)).toMatchObject({
      level: 'error',
      event: 'certificate refused',
      facts: { event: 'join-token-stolen', hint: expect.stringContaining('ca revoke') },
    });
    expect(JSON.stringify([world.events, world.audit()])).not.toContain(token.slice(4));
  });

  test('is not given by a request for another identity, or by one that its key did not sign', async () => {
    const world = await testCaWorld();
    const [token, mine] = [await world.joinToken(), await someCsr()];
    const forged = Uint8Array.from(mine);
    forged[forged.length - 1]! ^= 1;
    expect(await world.client().create(mine, { token })).toMatchObject({ code: 0 });
    expect((await world.client().create(forged, { token })).code).not.toBe(0);
    expect(world.issued()).toBe(1);
    const other = await world.joinToken();
    expect(
      await world.client().create(await someCsr(`${TEST_ID}-2`), { token: other }),
    ).toMatchObject({ code: PERMISSION_DENIED });
    expect(await world.client().create(mine, { token: other })).toMatchObject({ code: 0 });
  });

  test.each<[string, (store: CaStore, token: string) => Promise<unknown>]>([
    ['ca revoke', (store) => store.revoke({ id: TEST_ID }, 'keyCompromise', Date.now())],
    [
      'ca token delete',
      (store, token) => store.deleteJoinTokens({ token: new Secret(token) }, Date.now()),
    ],
  ])('is answered never again after %s', async (_, close) => {
    const world = await testCaWorld();
    const [token, csr] = [await world.joinToken(), await someCsr()];
    expect(await world.client().create(csr, { token })).toMatchObject({ code: 0 });
    await close(world.store, token);
    expect(await world.client().create(csr, { token })).toMatchObject({ code: UNAUTHENTICATED });
    expect(world.audit().at(-1)).toMatchObject({ reason: expect.stringContaining('deleted') });
    expect(world.audit().at(-1)).not.toHaveProperty('event');
  });
});

describe('field B5: a one-time token, and a CA that fails', () => {
  const unavailable = (what: string) => () =>
    Promise.reject(new AgentError('ERR_CA_STATE', `${what}: ENOSPC`, { retry: 'soon' }));
  interface Trouble {
    readonly store?: Partial<CaStore>;
    readonly authority?: Partial<Authority>;
  }

  test.each<[string, Trouble]>([
    ['its register cannot be written', { store: { probe: unavailable('write') } }],
    [
      'its signer has ended',
      {
        authority: {
          problem: () => new AgentError('ERR_CA_UNAVAILABLE', 'the signer has expired'),
        },
      },
    ],
    ['a token cannot be bound', { store: { redeemJoinToken: unavailable('redeem') } }],
    ['nothing can be signed', { authority: { issue: unavailable('sign') } }],
  ])('stays good for any key where %s', async (_, trouble) => {
    let broken = true;
    const whileBroken = <T extends object>(whole: T, faults: Partial<T> = {}): T => {
      const [good, faulty] = [but(whole, {}), but(whole, faults)];
      return new Proxy(whole, { get: (_, name) => Reflect.get(broken ? faulty : good, name) });
    };
    const world = await testCaWorld({
      wrapStore: (store) => whileBroken(store, trouble.store),
      wrapAuthority: (authority) => whileBroken(authority, trouble.authority),
    });
    const token = await world.joinToken();
    expect(await world.client().create(await someCsr(), { token })).toMatchObject({
      code: UNAVAILABLE,
    });
    expect(world.issued()).toBe(0);
    broken = false;
    expect(await world.client().create(await someCsr(), { token })).toMatchObject({ code: 0 });
  });

  test('is bound where a certificate was signed and could not be registered: its key alone may come again', async () => {
    let broken = false;
    const world = await testCaWorld({
      wrapStore: (store) =>
        but(store, {
          recordIssued: (entry) =>
            broken ? unavailable('write the register')() : store.recordIssued(entry),
        }),
    });
    const [token, csr] = [await world.joinToken(), await someCsr()];
    broken = true;
    expect(await world.client().create(csr, { token })).toMatchObject({ code: UNAVAILABLE });
    broken = false;
    expect(await world.client().create(await someCsr(), { token })).toMatchObject({
      code: UNAUTHENTICATED,
    });
    expect(await world.client().create(csr, { token })).toMatchObject({ code: 0 });
  });
});
