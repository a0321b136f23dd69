import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { RenewalAfterExpiry } from '../../agent/authority/server/renewal-after-expiry';
import type { Revocation } from '../../agent/authority/store/store';
import { parseCertificate, parseCertificates } from '../../agent/identity/certificate';
import { MAX_CRL_ENTRIES } from '../../agent/identity/crl-bounds';
import { generateKeyPair, type KeyPair } from '../../agent/identity/keys';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import {
  type CaWorld,
  type ClientIdentity,
  issueIdentity,
  makeRequest,
} from '../support/ca-server';
import { HOUR_MS, issueLeaf, makeTestCa, TEST_ID } from '../support/certs';
import { longestTurn } from '../support/longest-turn';
import { tempDir } from '../support/temp-dir';
import { testCaWorld } from '../support/test-ca-world';
import { TestClock } from '../support/test-clock';

const PERMISSION_DENIED = 7;
const UNAUTHENTICATED = 16;
const BOUND_MS = 2 * HOUR_MS;

/** An authority some hours ago, since TLS goes by the machine's clock. */
async function start(
  boundMs: number | 'off' = BOUND_MS,
  dir = join(tempDir(), 'ca'),
  clock = new TestClock(Date.now() - 8 * HOUR_MS),
) {
  const world = await testCaWorld({
    dir,
    ...(boundMs !== 'off' && { renewAfterExpiryMs: boundMs }),
    deps: { clock },
    authenticators: ['client-certificate', 'join-token'],
  });
  return { world, clock, dir };
}

const someCsr = async (id?: string) => (await makeRequest(id)).csrDer;

interface Machine extends ClientIdentity {
  readonly serial: string;
}

/** A machine that has joined: its certificate of an hour. */
async function joined(world: CaWorld): Promise<Machine> {
  const { key, csrDer } = await makeRequest();
  const { chain } = await world.client().create(csrDer, { token: await world.joinToken() });
  return machine(key, chain);
}

function machine(key: KeyPair, chain: readonly string[]): Machine {
  const certificates = chain
    .slice(0, -1)
    .flatMap((pem) => parseCertificates(Buffer.from(pem), 'reply'));
  return {
    key,
    certificatesDer: certificates.map(({ der }) => der),
    serial: certificates[0]!.serial,
  };
}

describe('a certificate that has ended', () => {
  test('is good for one renewal, to one key, in an audit event of its own', async () => {
    const { world, clock } = await start();
    const old = await joined(world);
    await clock.advanceBy(2 * HOUR_MS);
    const csr = await someCsr();
    expect(await world.client(old).create(csr)).toMatchObject({ code: 0 });
    expect(world.audit().at(-1)).toMatchObject({
      event: 'renewed-after-expiry',
      decision: 'issued',
      caller: TEST_ID,
      method: 'client-certificate',
      proof: { serial: old.serial, endedAt: expect.stringMatching(/Z$/) },
    });
    // Its answer may have got lost.
    expect(await world.client(old).create(csr)).toMatchObject({ code: 0 });
    expect(world.audit().at(-1)).toMatchObject({
      event: 'renewed-after-expiry',
      proof: { again: '1' },
    });
    expect(await world.client(old).create(await someCsr())).toMatchObject({
      code: UNAUTHENTICATED,
    });
    expect(world.audit().at(-1)).toMatchObject({
      event: 'client-certificate-stolen',
      decision: 'refused',
      proof: { serial: old.serial },
    });
  });

  test('is good for it in the next process too, and after tidying up, until the bound', async () => {
    const { world, clock, dir } = await start();
    const [one, other, late] = [await joined(world), await joined(world), await joined(world)];
    await clock.advanceBy(2 * HOUR_MS);
    expect(await world.client(one).create(await someCsr())).toMatchObject({ code: 0 });
    await world.close();
    const { world: next } = await start(BOUND_MS, dir, clock);
    await next.store.sweep(clock.now());
    expect(await next.client(one).create(await someCsr())).toMatchObject({ code: UNAUTHENTICATED });
    expect(await next.client(other).create(await someCsr())).toMatchObject({ code: 0 });
    await clock.advanceBy(HOUR_MS + 1_000);
    expect(await next.client(late).create(await someCsr())).toMatchObject({
      code: UNAUTHENTICATED,
    });
    await next.store.sweep(clock.now() + 24 * HOUR_MS);
    expect(await next.store.issued({ about: new Set([late.serial]) }, 0)).toEqual([]);
  });

  test('leaves the renewal good where its request asks for another identity', async () => {
    const { world, clock } = await start();
    const old = await joined(world);
    await clock.advanceBy(2 * HOUR_MS);
    expect(await world.client(old).create(await someCsr(`${TEST_ID}-2`))).toMatchObject({
      code: PERMISSION_DENIED,
    });
    expect(await world.client(old).create(await someCsr())).toMatchObject({ code: 0 });
  });

  test.each<[string, RegExp, (world: CaWorld) => Promise<ClientIdentity>]>([
    ['is not in the register', /not in the register/, (world) => issueIdentity(world.authority)],
    [
      'is not the newest of its key',
      /not the newest/,
      async (world) => {
        const old = await joined(world);
        await world.store.recordIssued({
          ...(await world.store.issued({ serial: old.serial }, 0))[0]!,
          serial: '0abc',
          issuedAt: Date.now(),
        });
        return old;
      },
    ],
    [
      'was replaced before its end',
      /replaced before it ended/,
      async (world) => {
        const old = await joined(world);
        expect(await world.client(old).create(await someCsr())).toMatchObject({ code: 0 });
        return old;
      },
    ],
    [
      'was revoked',
      /revoked/,
      async (world) => {
        const old = await joined(world);
        await world.store.revoke({ serial: old.serial }, 'keyCompromise', Date.now() - 8 * HOUR_MS);
        return old;
      },
    ],
  ])('that %s proves nothing', async (_, why, make) => {
    const { world, clock } = await start();
    const old = await make(world);
    await clock.advanceBy(2 * HOUR_MS);
    expect(await world.client(old).create(await someCsr())).toMatchObject({
      code: UNAUTHENTICATED,
    });
    expect(world.audit().at(-1)!.reason).toMatch(why);
  });

  test('can still be revoked, by its identity too', async () => {
    const { world, clock } = await start();
    const [one, other] = [await joined(world), await joined(world)];
    await clock.advanceBy(2 * HOUR_MS);
    await world.store.revoke({ serial: one.serial }, 'keyCompromise', clock.now());
    expect(
      (await world.store.revoke({ id: TEST_ID }, 'keyCompromise', clock.now())).map(
        ({ serial }) => serial,
      ),
    ).toEqual([other.serial]);
    expect((await world.store.revocations(clock.now())).map(({ serial }) => serial).sort()).toEqual(
      [one.serial, other.serial].sort(),
    );
    for (const each of [one, other])
      expect(await world.client(each).create(await someCsr())).toMatchObject({
        code: UNAUTHENTICATED,
      });
  });

  test('proves nothing by default, nor beside a token', async () => {
    const { world: strict, clock } = await start('off');
    const old = await joined(strict);
    await clock.advanceBy(2 * HOUR_MS);
    expect(await strict.client(old).create(await someCsr())).toMatchObject({
      code: UNAUTHENTICATED,
    });
    const { world, clock: later } = await start();
    const mine = await joined(world);
    await later.advanceBy(2 * HOUR_MS);
    expect(
      await world.client(mine).create(await someCsr(), { token: `kt1_${'A'.repeat(43)}` }),
    ).toMatchObject({ code: UNAUTHENTICATED });
    expect(
      await world.client(mine).create(await someCsr(), { token: await world.joinToken() }),
    ).toMatchObject({ code: 0 });
    expect(world.audit().at(-1)).toMatchObject({ method: 'join-token' });
  });

  test('of one key is not renewed twice by calls at once', async () => {
    const { world, clock } = await start();
    const old = await joined(world);
    await clock.advanceBy(2 * HOUR_MS);
    const csrs = await Promise.all(Array.from({ length: 20 }, () => someCsr()));
    const codes = await Promise.all(
      csrs.map(async (csr) => (await world.client(old).create(csr)).code),
    );
    expect(codes.sort((a, b) => a - b)).toEqual([0, ...Array(19).fill(UNAUTHENTICATED)]);
    expect(
      (await world.store.issued({ about: new Set([old.serial]) }, 0)).filter(
        ({ provenBy }) => provenBy === old.serial,
      ),
    ).toHaveLength(1);
  });
});

test('half a million revocations hold up nobody while the register is asked about a certificate that has ended', async () => {
  const revocations = Array.from({ length: MAX_CRL_ENTRIES }, (_, at) => ({
    serial: at.toString(16).padStart(32, '7'),
  })) as unknown as readonly Revocation[];
  const store = {
    issued: async () => [],
    revocations: async () => revocations,
    redeemExpired: () => Promise.reject(new Error('not asked')),
    giveBackExpired: async () => undefined,
  };
  const renewal = new RenewalAfterExpiry({ store, boundMs: BOUND_MS }, { clock: new TestClock() });
  const [ca, key] = [await makeTestCa(), await generateKeyPair('ecdsa-p256')];
  const ask = (serial: Uint8Array) =>
    renewal.redeem(
      parseCertificate(issueLeaf(ca, { key, serial })),
      parseSpiffeId(TEST_ID),
      'ab'.repeat(32),
    );
  await expect(ask(Buffer.from(revocations.at(-1)!.serial, 'hex'))).rejects.toThrow(/revoked/);
  const inOnePiece = await longestTurn(
    async () => new Set(revocations.map(({ serial }) => serial)),
  );
  const { longestTurnMs } = await longestTurn(() =>
    ask(Buffer.of(1)).catch(({ message }) => expect(message).toMatch(/register/)),
  );
  expect(longestTurnMs).toBeLessThan(inOnePiece.longestTurnMs / 2);
});
