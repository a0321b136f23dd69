import { chmodSync, copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { generateKeyPair, privateKeyPem } from '../../../agent/identity/keys';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import type { Svid } from '../../../agent/identity/svid';
import { openStateStore, type StateStore } from '../../../agent/lifecycle/state-store';
import { TEST_ID, TEST_NOW } from '../../support/certs';
import { DAY, HOUR, type Story, tell } from '../../support/keeper-story';
import { testRoots } from '../../support/scripted-ca';
import { tempDir } from '../../support/temp-dir';
import { testDeps } from '../../support/test-deps';

const open: StateStore[] = [];
afterEach(async () => {
  for (const store of open.splice(0)) await store.close();
});

async function openStore(dir: string, id = TEST_ID) {
  const deps = testDeps();
  const store = await openStateStore({ dir, id: parseSpiffeId(id) }, deps);
  open.push(store);
  return { store, events: deps.events };
}

/** A directory in which a store has kept the story's first certificate. */
async function kept(): Promise<{ dir: string; story: Story; svid: Svid }> {
  const dir = join(tempDir(), 'state');
  const story = await tell();
  const { store, events } = await openStore(dir);
  store.follow(story.keeper.state);
  while (!events.some(({ event }) => event === 'certificate files written'))
    await new Promise((resolve) => setTimeout(resolve, 5));
  await store.close();
  return { dir, story, svid: story.svid! };
}

describe('a state directory', () => {
  test('gives the certificate back after a restart, with its first receipt', async () => {
    const { dir, svid } = await kept();
    const { store, events } = await openStore(dir);
    const loaded = await store.load(svid.bundle, TEST_NOW + 5 * HOUR);
    expect(loaded).toMatchObject({
      serial: svid.serial,
      receivedAt: svid.receivedAt,
      notAfterAt: svid.notAfterAt,
      source: 'scripted',
    });
    expect(Buffer.compare(loaded!.key.spkiDer, svid.key.spkiDer)).toBe(0);
    expect(events).toEqual([]);
  });

  test('gives an expired certificate back too, as the expired one that it is', async () => {
    const { dir, svid } = await kept();
    const { store, events } = await openStore(dir);
    const loaded = await store.load(svid.bundle, TEST_NOW + 30 * DAY);
    expect(loaded).toMatchObject({ serial: svid.serial, notAfterAt: svid.notAfterAt });
    expect(loaded!.notAfterAt).toBeLessThan(TEST_NOW + 30 * DAY);
    expect(events).toEqual([]);
  });

  test('is made with mode 0700 and files of mode 0600', async () => {
    const { dir } = await kept();
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    const names = readdirSync(dir).filter((name) => !name.startsWith('..'));
    expect(names.sort()).toEqual(['cert-chain.pem', 'key.pem', 'receipt.json', 'root-cert.pem']);
    for (const name of names) expect(statSync(join(dir, name)).mode & 0o777).toBe(0o600);
  });

  test('that is new or empty has nothing and says nothing', async () => {
    const [root] = await testRoots();
    for (const dir of [tempDir(), join(tempDir(), 'none')]) {
      const { store, events } = await openStore(dir);
      expect(await store.load(root.bundle, TEST_NOW)).toBeUndefined();
      expect(events).toEqual([]);
    }
  });

  test('field A6 keeps a key without a certificate over a restart, for its identity alone, until its certificate is kept', async () => {
    const { dir, svid, story } = await kept();
    const key = await generateKeyPair('ecdsa-p256');
    const { store } = await openStore(dir);
    await store.keptKey.save(key);
    expect(statSync(join(dir, 'pending/key.pem')).mode & 0o777).toBe(0o600);
    const another = await openStore(dir, 'spiffe://cluster.local/ns/shop/sa/other');
    expect(await another.store.keptKey.load()).toBeUndefined();
    expect(another.events).toMatchObject([
      { level: 'warn', event: expect.stringContaining('stored key discarded') },
    ]);
    expect(await store.load(svid.bundle, TEST_NOW + HOUR)).toBeDefined();
    const { store: next } = await openStore(dir);
    expect((await next.keptKey.load())!.spkiDer).toEqual(key.spkiDer);
    // That of the certificate in service waits for none.
    await next.keptKey.save(svid.key);
    const { store: last, events } = await openStore(dir);
    last.follow(story.keeper.state);
    while (!events.some(({ event }) => event === 'certificate files written'))
      await new Promise((resolve) => setTimeout(resolve, 5));
    await last.close();
    expect(readdirSync(dir)).not.toContain('pending');
  });

  test('field A6 a key that is saved while the one before it is deleted stays, at whatever step', async () => {
    for (let steps = 0; steps < 40; steps += 1) {
      const { dir, svid } = await kept();
      const key = await generateKeyPair('ecdsa-p256');
      const { store } = await openStore(dir);
      await store.keptKey.save(svid.key);
      const deleting = store.load(svid.bundle, TEST_NOW + HOUR);
      for (let each = 0; each < steps; each += 1)
        await new Promise((resolve) => setImmediate(resolve));
      await Promise.all([deleting, store.keptKey.save(key)]);
      const { store: next } = await openStore(dir);
      expect((await next.keptKey.load())!.spkiDer).toEqual(key.spkiDer);
    }
  });

  test('field A6 deletes at the start what a killed process left beside the certificate of that key', async () => {
    const { dir, svid } = await kept();
    await (await openStore(dir)).store.keptKey.save(svid.key);
    const { store } = await openStore(dir);
    await store.load(svid.bundle, TEST_NOW + HOUR);
    expect(readdirSync(dir)).not.toContain('pending');
    expect(await store.keptKey.load()).toBeUndefined();
  });

  test.each([0o755, 0o710, 0o701])('of mode %o is refused', async (mode) => {
    const dir = tempDir();
    chmodSync(dir, mode);
    await expect(openStore(dir)).rejects.toMatchObject({
      code: 'ERR_OUTPUT',
      hint: `chmod 700 ${dir}`,
    });
  });

  test('that is a file is refused', async () => {
    const path = join(tempDir(), 'file');
    writeFileSync(path, '');
    await expect(openStore(path)).rejects.toMatchObject({
      code: 'ERR_OUTPUT',
      rule: 'must be a directory',
    });
  });
});

describe('E15 E16 what is kept but does not hold is discarded with a line in the log', () => {
  const spoil = (name: string, text: string | Buffer) => (dir: string) =>
    writeFileSync(join(dir, name), text);
  const cases: [string, (dir: string) => void][] = [
    ['a key that is garbage', spoil('key.pem', 'garbage')],
    ['an empty key', spoil('key.pem', '')],
    ['a chain that is garbage', spoil('cert-chain.pem', Buffer.alloc(100, 0xff))],
    ['a receipt that is no JSON', spoil('receipt.json', '{"receivedAt":')],
    ['a receipt of another shape', spoil('receipt.json', '[]')],
    ['a receipt that is null', spoil('receipt.json', 'null')],
    [
      'a receipt with a hostile name',
      spoil('receipt.json', '{"receivedAt":1,"source":"\\u001b[31m"}'),
    ],
    ['a huge file', spoil('cert-chain.pem', Buffer.alloc(2 << 20, 0x41))],
  ];

  test.each(cases)('%s', async (_, damage) => {
    const { dir, svid } = await kept();
    damage(dir);
    const { store, events } = await openStore(dir);
    expect(await store.load(svid.bundle, TEST_NOW + HOUR)).toBeUndefined();
    expect(events).toMatchObject([
      { level: 'warn', event: 'stored certificate discarded', facts: { dir } },
    ]);
  });

  test('a key without its certificate', async () => {
    const { dir, svid } = await kept();
    const other = tempDir();
    copyFileSync(join(dir, 'key.pem'), join(other, 'key.pem'));
    const { store, events } = await openStore(other);
    expect(await store.load(svid.bundle, TEST_NOW)).toBeUndefined();
    expect(events).toHaveLength(1);
  });

  test('a key of another certificate', async () => {
    const { dir, svid } = await kept();
    writeFileSync(
      join(dir, 'key.pem'),
      privateKeyPem(await generateKeyPair('ecdsa-p256'), 'pkcs8'),
    );
    const { store, events } = await openStore(dir);
    expect(await store.load(svid.bundle, TEST_NOW)).toBeUndefined();
    expect(events).toHaveLength(1);
  });

  test('a certificate of another identity', async () => {
    const { dir, svid } = await kept();
    const { store, events } = await openStore(dir, 'spiffe://cluster.local/ns/shop/sa/other');
    expect(await store.load(svid.bundle, TEST_NOW)).toBeUndefined();
    expect(events).toHaveLength(1);
  });

  test('a certificate that the CA of today would not have signed', async () => {
    const { dir } = await kept();
    const { store, events } = await openStore(dir);
    expect(await store.load((await testRoots())[1].bundle, TEST_NOW)).toBeUndefined();
    expect(events).toHaveLength(1);
  });

  test('a directory in place of a file', async () => {
    const dir = tempDir();
    mkdirSync(join(dir, 'key.pem'));
    const { store, events } = await openStore(dir);
    expect(await store.load((await testRoots())[0].bundle, TEST_NOW)).toBeUndefined();
    expect(events).toHaveLength(1);
  });
});
