import { X509Certificate } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import {
  createSdsClient,
  getSecret,
  type SdsClient,
  type SotwClientStream,
} from '../support/sds-client';
import { leafSerial } from '../support/sds-daemon';
import { until } from '../support/until';
import { identity, idOf, startWorkloads, type WorkloadsDaemon } from '../support/workload-list';

const clients: SdsClient[] = [];

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

/** A stream that watches `default`, with the serial number of what it got. */
async function watch(
  socket: string,
): Promise<{ readonly stream: SotwClientStream; readonly serial: string }> {
  const client = createSdsClient(socket);
  clients.push(client);
  const stream = client.openStream();
  stream.request(['default']);
  const serial = leafSerial((await stream.next()).secrets[0]!.chainPem);
  stream.ack();
  return { stream, serial };
}

async function served(
  socket: string,
): Promise<{ readonly serial: string; readonly uri: string | undefined; readonly keyPem: string }> {
  const { chainPem, keyPem } = await getSecret(socket);
  const uri = /URI:([^,]+)/.exec(new X509Certificate(chainPem!).subjectAltName ?? '')?.[1];
  return { serial: leafSerial(chainPem), uri, keyPem: keyPem! };
}

const refusals = ({ daemon }: WorkloadsDaemon) =>
  daemon.events.filter(({ event }) => event === 'workload invalid');

describe('workloads that come and go while streams are open', () => {
  test('each serves its own identity, and no step of one is seen at the others', async () => {
    const world = startWorkloads({ steady: [identity('steady')], gone: [identity('gone')] });
    await world.daemon.ready();
    const steady = await watch(world.socket('steady'));
    const gone = await watch(world.socket('gone'));

    world.put('late', identity('late'), 'sds-socket-mode: 0660');
    await world.daemon.event('workload started', ({ workload }) => workload === 'late');
    await until('its certificate', async () => (await world.status('late'))?.state === 'current');
    expect((await served(world.socket('late'))).uri).toBe(idOf('late'));
    expect(statSync(world.socket('late')).mode & 0o777).toBe(0o660);

    world.remove('gone');
    expect(await gone.stream.ended).toMatchObject({ code: 14, details: 'the agent is stopping' });
    await world.daemon.event('workload stopped', ({ workload }) => workload === 'gone');
    expect(existsSync(join(world.socket('gone'), '..'))).toBe(false);

    expect(await served(world.socket('steady'))).toMatchObject({
      serial: steady.serial,
      uri: idOf('steady'),
    });
    await steady.stream.silence();
    expect((await world.daemon.status()).workloads.map(({ name }) => name)).toEqual([
      'late',
      'steady',
    ]);
  });

  test('another life or key is taken on under open streams, and counts from the next certificate', async () => {
    const world = startWorkloads({ cart: [identity('cart'), 'ttl: 24h'] });
    await world.daemon.ready();
    const { stream, serial } = await watch(world.socket('cart'));
    world.put('cart', identity('cart'), 'ttl: 1h');
    await world.daemon.event('workload changed', ({ workload }) => workload === 'cart');
    await stream.silence();
    expect(await served(world.socket('cart'))).toMatchObject({ serial });

    world.put('cart', identity('cart'), 'ttl: 1h', 'key-algorithm: ecdsa-p384');
    const next = await stream.next();
    const leaf = new X509Certificate(next.secrets[0]!.chainPem!);
    expect(leaf.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'secp384r1' });
    expect(Date.parse(leaf.validTo) - Date.now()).toBeLessThan(3_600_001);
  });

  test('a CA that does not answer takes nothing away when a workload is told to ask it', async () => {
    const world = startWorkloads({ cart: [identity('cart'), 'ttl: 4s'] });
    await world.daemon.ready();
    const { stream, serial } = await watch(world.socket('cart'));
    world.put(
      'cart',
      identity('cart'),
      'ttl: 4s',
      'ca: istiod',
      'ca-address: 127.0.0.1:1',
      'ca-root: no-root.pem',
    );
    const told = await world.becomes(
      'cart',
      'in trouble',
      ({ sourceProblem }) => sourceProblem !== undefined,
    );
    expect(told).toMatchObject({ state: 'current', source: 'builtin' });
    // The CA before still renews what it has certified.
    const renewed = leafSerial((await stream.next()).secrets[0]!.chainPem);
    expect(renewed).not.toBe(serial);
    expect((await world.daemon.status()).ready).toBe(true);
  });

  test('a new name or place keeps key and certificate; another identity never gets them', async () => {
    const world = startWorkloads({ cart: [identity('cart')] });
    await world.daemon.ready();
    const before = await served(world.socket('cart'));

    world.rename('cart', 'basket');
    await world.daemon.event('workload changed', ({ workload }) => workload === 'basket');
    expect(await served(world.socket('basket'))).toEqual(before);
    expect(existsSync(world.socket('cart'))).toBe(false);

    world.put('basket', identity('cart'), 'sds-socket: elsewhere.sock');
    await until('its new place', async () => existsSync(join(world.dir, 'elsewhere.sock')));
    expect(await served(join(world.dir, 'elsewhere.sock'))).toEqual(before);

    world.put('basket', identity('till'), 'sds-socket: elsewhere.sock');
    await world.becomes(
      'basket',
      'somebody else',
      ({ id, state }) => id === idOf('till') && state === 'current',
    );
    const after = await served(join(world.dir, 'elsewhere.sock'));
    expect(after.uri).toBe(idOf('till'));
    expect(after.keyPem).not.toBe(before.keyPem);
  });

  test('two exchange their sockets, and each keeps its key', async () => {
    const at = (name: string, socket: string) => [identity(name), `sds-socket: ${socket}.sock`];
    const world = startWorkloads({ a: at('a', 'one'), b: at('b', 'two') });
    await world.daemon.ready();
    const [one, two] = [
      await served(join(world.dir, 'one.sock')),
      await served(join(world.dir, 'two.sock')),
    ];
    // In one step for the agent, which looks once the files stand still.
    world.put('a', ...at('a', 'two'));
    world.put('b', ...at('b', 'one'));
    await world.becomes('a', 'moved', ({ sds }) => sds.socket === 'two.sock');
    await world.becomes('b', 'moved', ({ sds }) => sds.socket === 'one.sock');
    expect(await served(join(world.dir, 'one.sock'))).toEqual(two);
    expect(await served(join(world.dir, 'two.sock'))).toEqual(one);
  });

  test('what is taken off the list leaves its files, or none where that is wished', async () => {
    const files = (name: string, wish: string) => [
      identity(name),
      `state-dir: state/${name}`,
      `output-certs: certs/${name}`,
      wish,
    ];
    const world = startWorkloads({
      kept: files('kept', 'on-removal: keep'),
      deleted: files('deleted', 'on-removal: delete'),
    });
    await world.daemon.ready();
    const written = (name: string) =>
      [`state/${name}/key.pem`, `certs/${name}/key.pem`].map((each) =>
        existsSync(join(world.dir, each)),
      );
    await until('the files', async () => ['kept', 'deleted'].flatMap(written).every(Boolean));
    for (const name of ['kept', 'deleted']) {
      world.remove(name);
      await world.daemon.event('workload stopped', ({ workload }) => workload === name);
    }
    expect(written('kept')).toEqual([true, true]);
    expect([
      existsSync(join(world.dir, 'state/deleted')),
      existsSync(join(world.dir, 'certs/deleted')),
    ]).toEqual([false, false]);
  });
});

describe('an entry that is wrong', () => {
  test('is refused by file and field, once, and leaves what it stood for in service until it is mended', async () => {
    const world = startWorkloads({ cart: [identity('cart')], till: [identity('till')] });
    await world.daemon.ready();
    const { stream, serial } = await watch(world.socket('cart'));
    world.put('cart', identity('cart'), 'tll: 1h');
    const refused = await world.daemon.event('workload invalid');
    expect(refused).toMatchObject({
      workload: 'cart',
      file: 'workloads/cart.yaml',
      hint: 'did you mean ttl?',
    });
    expect(refused.cause).toBe('workload cart: file workloads/cart.yaml: tll: is not a setting');

    world.put('till', identity('till'), 'ttl: 2h');
    await world.daemon.event('workload changed', ({ workload }) => workload === 'till');
    process.kill(world.daemon.pid, 'SIGHUP');
    world.put('other', identity('other'));
    await world.becomes('other', 'in service', ({ state }) => state === 'current');
    expect(refusals(world)).toHaveLength(1);
    expect(await served(world.socket('cart'))).toMatchObject({ serial });
    await stream.silence();
    const { ready, refused: told } = await world.daemon.status();
    expect({ ready, told }).toMatchObject({
      ready: true,
      told: [{ name: 'cart', inService: true, file: 'workloads/cart.yaml' }],
    });
    expect((await world.daemon.command('status')).stdout).toContain(
      'an earlier version is in service',
    );

    world.put('cart', identity('cart'), 'ttl: 1h');
    await world.daemon.event('workload valid again');
    await stream.silence();
  });

  test('that cannot be put into service makes the agent unready, by name, unless one ready workload is enough', async () => {
    const bad = [identity('bad'), 'sds-socket-group: no_such_group_here'];
    const world = startWorkloads({ cart: [identity('cart')], bad });
    await world.becomes('cart', 'in service', ({ state }) => state === 'current');
    const { ready, reasons } = await world.daemon.status();
    expect(ready).toBe(false);
    expect(reasons).toEqual([expect.stringMatching(/^workload bad: .*no_such_group_here/)]);
    expect((await world.daemon.http('/healthz/ready')).status).toBe(503);
    expect((await world.daemon.command('status', '--workload', 'cart')).code).toBe(0);
    expect((await world.daemon.command('status', '--workload', 'bad')).code).toBe(75);
    expect(await world.daemon.command('status', '--workload', 'nobody')).toMatchObject({
      code: 64,
    });
    const any = startWorkloads(
      { cart: [identity('cart')], bad },
      { flags: ['--workloads-ready', 'any'] },
    );
    expect((await any.daemon.ready()).ready).toBe(true);
  });

  test('field 17 that was cut to nothing becomes no other workload: it is refused by file, and what runs goes on', async () => {
    const world = startWorkloads({ cart: [identity('cart')], till: [identity('till')] });
    await world.daemon.ready();
    const before = await world.becomes('cart', 'current', ({ state }) => state === 'current');
    // As a truncating writer or a full disk does it.
    writeFileSync(join(world.dir, 'workloads', 'cart.yaml'), '');
    const refused = await world.daemon.event('workload invalid');
    expect(refused).toMatchObject({
      workload: 'cart',
      file: 'workloads/cart.yaml',
      cause: expect.stringContaining('must name the identity'),
    });
    expect(await world.status('cart')).toMatchObject({
      id: idOf('cart'),
      certificate: { serial: before.certificate!.serial },
    });
    expect((await world.daemon.status()).workloads.map(({ id }) => id)).toEqual([
      idOf('cart'),
      idOf('till'),
    ]);
  });

  test('field 39 that is new and wrong leaves the process ready, with a metric and a line of its own', async () => {
    const world = startWorkloads({ cart: [identity('cart')] });
    await world.daemon.ready();
    world.put('till', 'tll: 1h');
    await world.daemon.event('workload invalid');
    expect((await world.daemon.http('/healthz/ready')).status).toBe(200);
    const { ready, refused } = await world.daemon.status();
    expect({ ready, refused }).toMatchObject({
      ready: true,
      refused: [{ name: 'till', outcome: 'refused', inService: false }],
    });
    const { body } = await world.daemon.http('/metrics');
    expect(body).toMatch(/^keyturn_workloads_refused 1$/m);
    expect(body).toMatch(/^keyturn_workloads_failed 0$/m);
    world.remove('cart');
    await until(
      'nothing in service',
      async () => (await world.daemon.status()).workloads.length === 0,
    );
    expect(await world.daemon.http('/healthz/ready')).toMatchObject({
      status: 503,
      body: expect.stringContaining('tll'),
    });
  });

  test.each([
    ['that cannot be read', 'x: [', undefined],
    ['that is refused', 'tll: 1h', 'cart'],
    ['that is empty', '', 'cart'],
  ])('field 39 %s after a restart is served from its state', async (_, text, name) => {
    const world = startWorkloads(
      { cart: [identity('cart'), 'ttl: 2h'], till: [identity('till')] },
      { flags: ['--state-dir', 'state'] },
    );
    await world.daemon.ready();
    const before = await served(world.socket('cart'));
    await world.daemon.stop();
    world.put('cart', text);
    const again = world.restart();
    await again.daemon.ready();
    expect(await served(again.socket('cart'))).toEqual(before);
    expect(await again.daemon.status()).toMatchObject({
      ready: true,
      refused: [{ ...(name && { name }), file: 'workloads/cart.yaml', inService: true }],
    });
    again.put('cart', identity('cart'));
    await again.daemon.event('workload valid again');
    again.remove('till');
    await until('one workload', async () => (await again.daemon.status()).workloads.length === 1);
    // What left the list is not brought back by a later fault, however soon the process ended after it.
    await again.daemon.stop();
    again.put('till', 'tll: 1h');
    const third = again.restart();
    await third.daemon.ready();
    expect((await third.daemon.status()).workloads.map((each) => each.name)).toEqual(['cart']);
  });

  test('cannot take what another has: name, identity, socket and directories are refused by name', async () => {
    const world = startWorkloads({ cart: [identity('cart'), 'state-dir: state'] });
    await world.daemon.ready();
    world.put('a', identity('cart'));
    world.put('b', identity('b'), `sds-socket: ${world.socket('cart')}`);
    world.put('c', identity('c'), 'output-certs: ./state/');
    world.put('d', identity('d'), 'name: cart');
    world.put('e', identity('e'), 'sds-socket: ./var/run/keyturn/control.sock');
    symlinkSync('state', join(world.dir, 'alias'));
    world.put('f', identity('f'), 'output-certs: alias');
    world.put('g', identity('g'), 'ca-dir: other-ca', 'output-certs: var/lib/keyturn/ca');
    await until('seven refusals', async () => refusals(world).length === 7);
    expect(
      refusals(world)
        .map(({ cause }) => String(cause).replace(/"[^"]*" /, ''))
        .sort(),
    ).toEqual([
      'workload a: file workloads/a.yaml: spiffe-id: is that of workload cart',
      'workload b: file workloads/b.yaml: sds-socket: is that of workload cart',
      'workload c: file workloads/c.yaml: output-certs: is that of workload cart',
      'workload cart: file workloads/d.yaml: name: is given twice',
      'workload e: file workloads/e.yaml: sds-socket: is that of control-socket',
      'workload f: file workloads/f.yaml: output-certs: is that of workload cart',
      'workload g: file workloads/g.yaml: output-certs: is that of workload cart',
    ]);
    expect((await world.daemon.status()).workloads.map(({ name }) => name)).toEqual(['cart']);
  });

  test('a socket that cannot be made is tried again, and at once after SIGHUP', async () => {
    const world = startWorkloads({ till: [identity('till')] });
    writeFileSync(join(world.dir, 'taken'), 'a file where a directory is wanted');
    world.put('cart', identity('cart'), 'sds-socket: taken/socket');
    await world.daemon.event('workload started: failed');
    await world.becomes('till', 'in service', ({ state }) => state === 'current');
    expect((await world.daemon.status()).reasons).toEqual([
      expect.stringMatching(/^workload cart: sds socket taken\/socket: /),
    ]);
    rmSync(join(world.dir, 'taken'));
    process.kill(world.daemon.pid, 'SIGHUP');
    expect((await world.daemon.ready()).workloads.map(({ name }) => name)).toEqual([
      'cart',
      'till',
    ]);
    expect((await served(join(world.dir, 'taken/socket'))).uri).toBe(idOf('cart'));
  });

  test('a file that is written without end keeps no other waiting, and what it stands for stays in service', async () => {
    const world = startWorkloads({ cart: [identity('cart')] });
    await world.daemon.ready();
    const before = await served(world.socket('cart'));
    let writes = 0;
    const writing = setInterval(() => world.put('cart', identity(`other-${writes++}`)), 20);
    try {
      world.put('till', identity('till'));
      await world.becomes('till', 'in service', ({ state }) => state === 'current');
      expect(refusals(world).map(({ file, cause }) => [file, String(cause)])).toContainEqual([
        'workloads/cart.yaml',
        expect.stringContaining('keeps changing'),
      ]);
      expect(await served(world.socket('cart'))).toEqual(before);
    } finally {
      clearInterval(writing);
    }
    world.put('cart', identity('cart'));
    await until('no refusal', async () => (await world.daemon.status()).refused === undefined);
    expect(await served(world.socket('cart'))).toEqual(before);
  });

  test('one that cannot be changed, and whose name another takes, serves nobody behind the scenes', async () => {
    const cart = [identity('cart'), 'sds-socket: cart.sock'];
    const till = [identity('till'), 'sds-socket: till.sock'];
    const world = startWorkloads({ a: cart, b: till });
    await world.daemon.ready();
    mkdirSync(join(world.dir, 'broken-ca'));
    writeFileSync(join(world.dir, 'broken-ca/ca-cert.pem'), 'no certificate');
    world.put('a', ...till);
    world.put('b', ...cart, 'ca-dir: broken-ca');
    await world.daemon.event('workload changed: failed');
    await world.becomes('a', 'the other', ({ id }) => id === idOf('till'));
    await until(
      'the end of what has no name',
      async () => !existsSync(join(world.dir, 'cart.sock')),
    );
    expect((await served(join(world.dir, 'till.sock'))).uri).toBe(idOf('till'));
    expect((await world.daemon.status()).refused).toMatchObject([
      { name: 'b', code: 'ERR_CA_STATE', inService: false },
    ]);
    world.put('b', ...cart);
    await world.becomes('b', 'in service', ({ state }) => state === 'current');
    expect((await served(join(world.dir, 'cart.sock'))).uri).toBe(idOf('cart'));
  });

  test('a change that cannot be put into service goes back to what was, with its key', async () => {
    const world = startWorkloads({ cart: [identity('cart')] });
    await world.daemon.ready();
    const before = await served(world.socket('cart'));
    world.put('cart', identity('cart'), 'sds-socket-group: no_such_group_here');
    await world.daemon.event('workload changed: failed');
    await until('the socket to be back', async () => existsSync(world.socket('cart')));
    expect(await served(world.socket('cart'))).toEqual(before);
    expect((await world.daemon.status()).refused).toMatchObject([
      { name: 'cart', code: 'ERR_SOCKET', inService: true },
    ]);
  });
});

test('config show tells beforehand what of a list would be started and what refused, and starts nothing', async () => {
  const world = startWorkloads({
    cart: [identity('cart')],
    till: [identity('till'), 'sds-socket-mode: 0777'],
    twin: [identity('cart')],
  });
  await world.daemon.stop();
  const { code, stdout, stderr } = await world.daemon.command(
    'config',
    'show',
    '--ca',
    'builtin',
    '--workloads',
    'workloads',
  );
  expect(code).toBe(78);
  expect(stdout).toMatch(
    /^cart +spiffe:\/\/cluster\.local\/ns\/shop\/sa\/cart +var\/run\/secrets\/workload-spiffe-uds\/cart\/socket$/m,
  );
  expect(stderr).toMatch(/till\.yaml: sds-socket-mode: "0777" must not have executable bits/);
  expect(stderr).toMatch(/twin\.yaml: spiffe-id: .* is that of workload cart/);
});

test('field 39 a list of one file that is damaged as a whole after a restart is served from its state, one that is gone is not', async () => {
  const world = startWorkloads({});
  await world.daemon.stop();
  const list = join(world.dir, 'list.yaml');
  writeFileSync(list, `- name: a\n  ${identity('a')}\n`);
  const { startDaemon } = await import('../support/daemon');
  const start = () =>
    startDaemon({
      dir: world.dir,
      identity: [],
      flags: ['--workloads', 'list.yaml', '--state-dir', 'state'],
    });
  const first = start();
  await first.ready();
  await first.stop();
  writeFileSync(list, '- name: [');
  const second = start();
  try {
    await second.event('workload list invalid, keeping the running workloads');
    expect((await second.ready()).workloads.map(({ name }) => name)).toEqual(['a']);
    writeFileSync(list, `- name: b\n  ${identity('b')}\n`);
    await until(
      'b alone',
      async () => (await second.status()).workloads.map(({ name }) => name).join() === 'b',
    );
  } finally {
    await second.stop();
  }
  rmSync(list);
  expect((await start().finished).code).toBe(78);
});

test('a list that is one file says the same, and keeps everything where it is damaged as a whole', async () => {
  const world = startWorkloads({}, { flags: [] });
  await world.daemon.stop();
  const list = join(world.dir, 'list.yaml');
  const element = (name: string) => `- name: ${name}\n  ${identity(name)}\n`;
  writeFileSync(list, element('a') + element('b'));
  const { startDaemon } = await import('../support/daemon');
  const daemon = startDaemon({ dir: world.dir, identity: [], flags: ['--workloads', 'list.yaml'] });
  try {
    await daemon.ready();
    writeFileSync(list, `${element('a')}- name: [`);
    await daemon.event('workload list invalid, keeping the running workloads');
    writeFileSync(list, `${element('a')}- nam: b\n`);
    const refused = await daemon.event('workload invalid');
    expect(refused.cause).toBe('file list.yaml element 2: name: is required');
    expect((await daemon.status()).workloads.map(({ name }) => name)).toEqual(['a', 'b']);
    writeFileSync(list, element('c'));
    await until(
      'c alone',
      async () => (await daemon.status()).workloads.map(({ name }) => name).join() === 'c',
    );
    writeFileSync(list, '[]\n');
    await until('nobody', async () => (await daemon.status()).workloads.length === 0);
    expect((await daemon.status()).ready).toBe(true);
    // Out of service first, then the socket and its directory go.
    await until(
      'no directory',
      async () => readdirSync(join(world.dir, 'var/run/secrets/workload-spiffe-uds')).length === 0,
    );
  } finally {
    await daemon.stop();
  }
});
