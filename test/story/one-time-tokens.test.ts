import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { createToken, readAudit, serveCa } from '../support/ca-daemon';
import type { Daemon } from '../support/daemon';
import { type DeafProxy, startDeafProxy } from '../support/deaf-proxy';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { liveCa, rootsPem } from '../support/tls-ca';

const ID = 'spiffe://example.org/ns/shop/sa/cart';
const CART = ['--trust-domain', 'example.org', '--namespace', 'shop', '--service-account', 'cart'];

/** An authority, and a machine with a token of it that asks at `address`. */
async function joinWorld() {
  const dir = tempDir();
  const { daemon: ca, address } = await serveCa(dir, '--audit-log', './audit.jsonl');
  const token = await createToken(ca, ID);
  writeFileSync(join(dir, 'token'), token);
  const machine = (flags: readonly string[] = [], identity = CART, at = address): Daemon => {
    const asking = [
      '--ca',
      'istiod',
      '--ca-address',
      at,
      '--ca-root',
      './ca/root-cert.pem',
      '--token',
      './token',
    ];
    return testDaemon({ dir, source: [...asking, '--state-dir', './state'], identity, flags });
  };
  return { dir, ca, address, token, machine };
}

const failure = (agent: Daemon, text: string) =>
  agent.event('no certificate yet, retrying', ({ cause }) => JSON.stringify(cause).includes(text));

test('field A6 a machine without a trust bundle, or with another authority’s, joins by the token that it has once the bundle is right', async () => {
  const { dir, machine } = await joinWorld();
  writeFileSync(join(dir, 'bundle.pem'), '');
  const agent = machine(['--trust-bundle', './bundle.pem']);
  await failure(agent, 'yet; the one-time token was not sent');
  writeFileSync(join(dir, 'bundle.pem'), rootsPem(await liveCa()));
  await failure(agent, 'does not lead to the trust bundle');
  expect(readAudit(dir)).toEqual([]);
  writeFileSync(join(dir, 'bundle.pem'), readFileSync(join(dir, 'ca/root-cert.pem')));
  await agent.ready();
  expect(readAudit(dir)).toMatchObject([{ decision: 'issued', method: 'join-token', caller: ID }]);
});

test('field A6 a machine with a wrong account or trust domain joins by the token that it has once they are right', async () => {
  const { dir, machine } = await joinWorld();
  for (const [domain, account] of [
    ['example.org', 'crat'],
    ['example.com', 'cart'],
  ] as const) {
    const mistaken = machine(
      [],
      ['--trust-domain', domain, '--namespace', 'shop', '--service-account', account],
    );
    await mistaken.event('no certificate yet, retrying');
    await mistaken.stop();
  }
  expect(readAudit(dir).map(({ decision }) => decision)).not.toContain('issued');
  await machine().ready();
  expect(readAudit(dir).at(-1)).toMatchObject({
    decision: 'issued',
    method: 'join-token',
    caller: ID,
  });
});

const proxies: DeafProxy[] = [];

/** A way to the authority on which nothing comes back from the first certificate on, until `hear`. */
async function deafFrom(dir: string, address: string) {
  let isOver = false;
  const issued = () => readAudit(dir).some(({ decision }) => decision === 'issued');
  const proxy = await startDeafProxy(address, () => !isOver && issued());
  proxies.push(proxy);
  return {
    at: proxy.address,
    hear: () => {
      isOver = true;
    },
  };
}

test.each(['goes on', 'is killed and started again'])(
  'field A6 a machine whose answer gets lost joins by the same key when it %s',
  async (how) => {
    const { dir, address, machine, token } = await joinWorld();
    const way = await deafFrom(dir, address);
    const first = machine([], CART, way.at);
    await failure(first, way.at);
    expect(readAudit(dir)).toHaveLength(1);
    expect(existsSync(join(dir, 'state/pending/key.pem'))).toBe(true);
    if (how !== 'goes on') await first.kill('SIGKILL');
    way.hear();
    const agent = how === 'goes on' ? first : machine([], CART, way.at);
    await agent.ready();
    await agent.event('certificate files written');
    const [lost, answered] = readAudit(dir);
    expect(answered).toMatchObject({
      decision: 'issued',
      event: 'join-token-answered-again',
      proof: { again: '1' },
    });
    expect(answered!.keySha256).toBe(lost!.keySha256);
    // The next key is another one, and the old one is nowhere.
    expect(await agent.command('rotate')).toMatchObject({ code: 0 });
    expect(readAudit(dir).at(-1)).toMatchObject({
      method: 'client-certificate',
      keySha256: expect.not.stringMatching(String(lost!.keySha256)),
    });
    expect(existsSync(join(dir, 'state/pending'))).toBe(false);
    expect(JSON.stringify([agent.events, readAudit(dir)])).not.toContain(token.slice(4));
    for (const proxy of proxies.splice(0)) await proxy.close();
  },
);

test('field A6 ca token delete makes a token worthless that was shown before', async () => {
  const { dir, address, ca, machine } = await joinWorld();
  const way = await deafFrom(dir, address);
  const agent = machine([], CART, way.at);
  await failure(agent, way.at);
  expect(await ca.command('ca', 'token', 'delete', './token', '--ca-dir', './ca')).toMatchObject({
    code: 0,
    stdout: '1 token deleted\n',
  });
  way.hear();
  await failure(agent, 'UNAUTHENTICATED');
  expect(readAudit(dir).at(-1)).toMatchObject({
    decision: 'refused',
    reason: expect.stringContaining('deleted'),
  });
  for (const proxy of proxies.splice(0)) await proxy.close();
});
