import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { openJwtAuthority } from '../../../../agent/authority/jwt/jwt-authority';
import { jwtKeysDir } from '../../../../agent/authority/jwt/jwt-key-files';
import { type KeyTerm, planKeys } from '../../../../agent/authority/jwt/jwt-key-plan';
import { firstValue } from '../../../../agent/base/watched';
import type { JwtAuthority } from '../../../../agent/identity/jwt-svid';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import { verifyJwtSvid } from '../../../../agent/jwt/jwt-svid';
import { HOUR_MS } from '../../../support/certs';
import { tempDir } from '../../../support/temp-dir';
import { TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';

const DAY_MS = 24 * HOUR_MS;
const NOW = Date.parse('2026-01-01T00:00:00Z');
const ID = parseSpiffeId('spiffe://cluster.local/ns/shop/sa/cart');

describe('which key signs', () => {
  test('the first at once, the second is told on day six and signs on day seven, the first is gone a day after that', () => {
    expect(planKeys([], NOW)).toMatchObject({
      signing: undefined,
      due: { number: 1, activeAt: NOW },
    });
    const one = { number: 1, activeAt: NOW };
    expect(planKeys([one], NOW)).toEqual({
      signing: one,
      published: [one],
      gone: [],
      due: undefined,
      nextAt: NOW + 6 * DAY_MS,
    });
    const two = { number: 2, activeAt: NOW + 7 * DAY_MS };
    expect(planKeys([one], NOW + 6 * DAY_MS).due).toEqual(two);
    expect(planKeys([one, two], NOW + 6 * DAY_MS)).toMatchObject({
      signing: one,
      published: [one, two],
      due: undefined,
    });
    expect(planKeys([two, one], two.activeAt)).toMatchObject({
      signing: two,
      published: [one, two],
      gone: [],
    });
    const goneAt = two.activeAt + DAY_MS + 5 * 60_000;
    expect(planKeys([one, two], goneAt - 1).published).toEqual([one, two]);
    expect(planKeys([one, two], goneAt)).toMatchObject({
      signing: two,
      published: [two],
      gone: [one],
    });
  });

  test('the old one for another day, where nobody was running for long: verifiers elsewhere know no other', () => {
    const one = { number: 1, activeAt: NOW };
    const later = NOW + 100 * DAY_MS;
    expect(planKeys([one], later)).toMatchObject({
      signing: one,
      due: { number: 2, activeAt: later + DAY_MS },
    });
  });

  test('always one that is published, whatever keys there are and whatever the clock says, and the plan goes on', () => {
    const terms = fc.uniqueArray(
      fc.record({
        number: fc.integer({ min: 1, max: 20 }),
        activeAt: fc.integer({ min: NOW - 30 * DAY_MS, max: NOW + 30 * DAY_MS }),
      }),
      {
        selector: ({ number }) => number,
        minLength: 1,
      },
    );
    fc.assert(
      fc.property(
        terms,
        fc.integer({ min: NOW - 60 * DAY_MS, max: NOW + 60 * DAY_MS }),
        (keys: KeyTerm[], now) => {
          const plan = planKeys(keys, now);
          expect(plan.signing).toBeDefined();
          expect([...plan.published, ...plan.gone].sort((a, b) => a.number - b.number)).toEqual(
            [...keys].sort((a, b) => a.number - b.number),
          );
          expect(plan.due === undefined ? plan.nextAt > now : plan.nextAt === now).toBe(true);
          if (plan.due) expect(keys.every(({ number }) => number < plan.due!.number)).toBe(true);
        },
      ),
      { numRuns: 10_000 },
    );
  });
});

describe('the keys of a CA directory', () => {
  const open: JwtAuthority[] = [];
  const authorityOf = async (
    caDir: string,
    clock = new TestClock(NOW),
    algorithm: 'ecdsa-p256' | 'rsa-2048' = 'ecdsa-p256',
  ) => {
    const deps = testDeps({ clock });
    const authority = await openJwtAuthority({ caDir, algorithm }, deps);
    open.push(authority);
    return { authority, clock, deps };
  };
  const token = (authority: JwtAuthority, at: number) =>
    authority.sign({ id: ID, audience: ['a', 'b'], issuedAt: at, expiresAt: at + 300_000 });
  const kidsOf = ({ keys }: JwtAuthority) => keys.value.map(({ kid }) => kid);

  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
  });

  test.each([
    ['ecdsa-p256', 'ES256'],
    ['rsa-2048', 'RS256'],
  ] as const)(
    'sign with their own algorithm (%s), and say which key it was',
    async (algorithm, alg) => {
      const { authority } = await authorityOf(tempDir(), undefined, algorithm);
      const signed = token(authority, NOW);
      const [header, claims] = signed
        .split('.')
        .slice(0, 2)
        .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()));
      expect(header).toEqual({ alg, kid: kidsOf(authority)[0], typ: 'JWT' });
      expect(claims).toEqual({
        sub: 'spiffe://cluster.local/ns/shop/sa/cart',
        aud: ['a', 'b'],
        iat: NOW / 1_000,
        exp: NOW / 1_000 + 300,
      });
      await expect(
        verifyJwtSvid(signed, 'b', () => authority.keys.value, NOW),
      ).resolves.toMatchObject({ id: ID });
    },
  );

  test('are private files, and the same after a restart', async () => {
    const caDir = tempDir();
    const { authority } = await authorityOf(caDir);
    const dir = jwtKeysDir(caDir);
    expect(readdirSync(dir)).toEqual(['key-1.json']);
    expect([statSync(dir).mode & 0o777, statSync(join(dir, 'key-1.json')).mode & 0o777]).toEqual([
      0o700, 0o600,
    ]);
    const again = await authorityOf(caDir);
    expect(kidsOf(again.authority)).toEqual(kidsOf(authority));
  });

  test('are one set for many processes that start at once', async () => {
    const caDir = tempDir();
    const all = await Promise.all(Array.from({ length: 8 }, () => authorityOf(caDir)));
    expect(new Set(all.map(({ authority }) => kidsOf(authority).join())).size).toBe(1);
    expect(readdirSync(jwtKeysDir(caDir))).toEqual(['key-1.json']);
  });

  test('turn while they are in use: every token stays good, and every process has the same', async () => {
    const caDir = tempDir();
    const [one, two] = [await authorityOf(caDir), await authorityOf(caDir)];
    const first = token(one.authority, NOW);
    await one.clock.advanceTo(NOW + 6 * DAY_MS);
    const both = await firstValue(
      one.authority.keys,
      (keys) => keys.length === 2,
      AbortSignal.timeout(5_000),
    );
    await two.clock.advanceTo(NOW + 6 * DAY_MS);
    await two.authority.refresh();
    expect(kidsOf(two.authority)).toEqual(both.map(({ kid }) => kid));
    // Told, and not yet used.
    expect(token(one.authority, NOW).split('.')[0]).toBe(first.split('.')[0]);
    await one.clock.advanceTo(NOW + 7 * DAY_MS);
    await one.authority.refresh();
    const second = token(one.authority, NOW);
    expect(second.split('.')[0]).not.toBe(first.split('.')[0]);
    for (const each of [first, second])
      await verifyJwtSvid(each, 'a', () => two.authority.keys.value, NOW);
    await one.clock.advanceTo(NOW + 8 * DAY_MS + HOUR_MS);
    await one.authority.refresh();
    expect(kidsOf(one.authority)).toHaveLength(1);
    expect(existsSync(join(jwtKeysDir(caDir), 'key-1.json'))).toBe(false);
  });

  test('a key that is removed by hand is believed no more, and another signs', async () => {
    const caDir = tempDir();
    const { authority } = await authorityOf(caDir);
    const [kid] = kidsOf(authority);
    const signed = token(authority, NOW);
    rmSync(join(jwtKeysDir(caDir), 'key-1.json'));
    await authority.refresh();
    expect(kidsOf(authority)).toHaveLength(1);
    expect(kidsOf(authority)).not.toContain(kid);
    await expect(verifyJwtSvid(signed, 'a', () => authority.keys.value, NOW)).rejects.toMatchObject(
      { field: 'token key' },
    );
  });

  test.each<[string, (path: string) => void]>([
    ['is damaged', (path) => writeFileSync(path, readFileSync(path).subarray(0, 100))],
    [
      'is no key',
      (path) => writeFileSync(path, '{"activeAt":"2026-01-01T00:00:00Z","privateKey":"x"}'),
    ],
    ['is open to others', (path) => chmodSync(path, 0o644)],
    [
      'is no file',
      (path) => {
        rmSync(path);
        writeFileSync(`${path}.target`, '{}');
        (require('node:fs') as typeof import('node:fs')).symlinkSync(`${path}.target`, path);
      },
    ],
  ])(
    'a key file that %s is refused, without a word of it; what was good before stays in use',
    async (_, spoil) => {
      const caDir = tempDir();
      const { authority, deps } = await authorityOf(caDir);
      const path = join(jwtKeysDir(caDir), 'key-1.json');
      const before = kidsOf(authority);
      const secret = JSON.parse(readFileSync(path, 'utf8')).privateKey.split('\n')[1] as string;
      spoil(path);
      await authority.refresh();
      expect(kidsOf(authority)).toEqual(before);
      expect(deps.events.some(({ level }) => level === 'error')).toBe(true);
      expect(JSON.stringify(deps.events)).not.toContain(secret.slice(0, 20));
      await expect(
        openJwtAuthority({ caDir, algorithm: 'ecdsa-p256' }, testDeps()),
      ).rejects.toMatchObject({ code: 'ERR_CA_STATE' });
    },
  );
});
