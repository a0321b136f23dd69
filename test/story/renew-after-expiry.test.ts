import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { createToken, readAudit, serveCa } from '../support/ca-daemon';
import { freePort } from '../support/free-port';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';

const ID = 'spiffe://example.org/ns/shop/sa/cart';
const CART = ['--trust-domain', 'example.org', '--namespace', 'shop', '--service-account', 'cart'];
const WITH_RENEWAL = ['--renew-after-expiry', '1h', '--audit-log', './audit.jsonl'];

test('a machine whose certificate ended while the authority was away comes back by itself, and after a restart too', async () => {
  const dir = tempDir();
  const listen = `127.0.0.1:${await freePort()}`;
  const serve = () => serveCa(dir, '--listen', listen, ...WITH_RENEWAL);
  const first = await serve();
  writeFileSync(join(dir, 'token'), await createToken(first.daemon, ID));
  const asking = [
    '--ca',
    'istiod',
    '--ca-address',
    listen,
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const machine = () =>
    testDaemon({
      dir,
      source: [...asking, '--state-dir', './state'],
      identity: CART,
      flags: ['--ttl', '3s'],
    });

  const agent = machine();
  await agent.event('certificate files written');
  await first.daemon.stop();
  await agent.event('certificate expired');
  const second = await serve();
  const came = () => readAudit(dir).filter(({ event }) => event === 'renewed-after-expiry');
  await agent.event('certificate renewed', ({ time }) =>
    came().some((each) => String(each.time) <= time),
  );
  expect(came()).toMatchObject([{ decision: 'issued', caller: ID, method: 'client-certificate' }]);

  await agent.event('certificate files written', ({ time }) => String(came()[0]!.time) <= time);
  await second.daemon.stop();
  await agent.kill('SIGKILL');
  const kept = machine();
  await kept.event('renewal failed and the previous certificate has expired');
  const third = await serve();
  await kept.ready();
  expect(came()).toHaveLength(2);
  // Of all that nothing was a second use of the token.
  expect(
    readAudit(dir).filter(
      ({ method, decision }) => method === 'join-token' || decision === 'refused',
    ),
  ).toHaveLength(1);
  await third.daemon.stop();
});

test('a certificate that has ended is shown to the authority that issued it alone, and by default that refuses it', async () => {
  const dir = tempDir();
  const other = tempDir();
  const own = await serveCa(dir, '--audit-log', './audit.jsonl');
  const stranger = await serveCa(other, ...WITH_RENEWAL);
  const roots = [dir, other].map((each) => readFileSync(join(each, 'ca/root-cert.pem'), 'utf8'));
  writeFileSync(join(dir, 'roots.pem'), roots.join(''));
  writeFileSync(join(dir, 'token'), await createToken(own.daemon, ID));
  const machine = (address: string) => {
    const asking = [
      '--ca',
      'istiod',
      '--ca-address',
      address,
      '--ca-root',
      './roots.pem',
      '--token',
      './token',
    ];
    return testDaemon({
      dir,
      source: [...asking, '--state-dir', './state'],
      identity: CART,
      flags: ['--ttl', '2s'],
    });
  };
  const agent = machine(own.address);
  await agent.event('certificate files written');
  await own.daemon.stop();
  await agent.event('certificate expired');
  await agent.stop();
  writeFileSync(join(dir, 'token'), '');

  const again = await serveCa(dir, '--audit-log', './audit.jsonl');
  const home = machine(again.address);
  const refused = await home.event(/retrying|has expired/, (event) =>
    JSON.stringify(event).includes('UNAUTHENTICATED'),
  );
  expect(JSON.stringify(refused)).toContain('--renew-after-expiry');
  expect(readAudit(dir).at(-1)).toMatchObject({
    decision: 'refused',
    reason: expect.stringContaining('must not be expired'),
  });
  await home.stop();

  const elsewhere = machine(stranger.address);
  const { cause } = await elsewhere.event(/retrying|has expired/, (event) =>
    JSON.stringify(event).includes('was not shown'),
  );
  expect(JSON.stringify(cause)).toContain('does not lead to the issuer of our certificate');
  expect(readAudit(other)).toEqual([]);
  // A token of that authority is taken all the same.
  writeFileSync(join(dir, 'token'), await createToken(stranger.daemon, ID));
  await elsewhere.event('certificate files written', ({ serial }) =>
    readAudit(other).some((each) => each.serial === serial),
  );
});
