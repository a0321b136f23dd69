import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { LogRateLimit } from '../../../agent/base/log-rate-limit';
import { LIMITS, PATIENCE } from '../../../sds/grpc/limits';
import { parseResourceName } from '../../../sds/secrets/resource-name';
import { UnknownNames } from '../../../sds/secrets/unknown-names';
import { frame, message, openCall, PREFACE, rawConnect } from '../../support/raw-http2';
import { sotwRequest } from '../../support/sds-client';
import { type SdsWorld, startSdsWorld } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { until } from '../../support/until';

describe('patience', () => {
  let world: SdsWorld;
  let clock: TestClock;
  beforeEach(async () => {
    clock = new TestClock(Date.now());
    world = await startSdsWorld(tempDir(), {}, { clock });
    await world.rotate();
  });
  afterEach(() => world.close());

  const sweeps = async (count: number) => {
    for (let done = 0; done < count; done += 1) await clock.advanceBy(PATIENCE.sweepMs);
  };

  test('ends for a stream without a first message', async () => {
    const stream = world.client().openStream();
    const other = world.client().openStream();
    other.request(['default']);
    await other.next();
    other.ack();
    // gRPC opens a stream with its first write; an empty write would be a message.
    const silent = await rawConnect(world.socketPath);
    silent.send(PREFACE, openCall(1));
    await until('three streams', async () => world.server.streams().length >= 2);
    await sweeps(PATIENCE.silentStreamSweeps);
    expect(silent.ended(1)).toBe(false);
    await sweeps(2);
    await until('the end', async () => silent.ended(1));
    await other.silence(20);
    stream.cancel();
    silent.destroy();
  });

  test('ends for an ACK that does not come: a newer secret is pushed all the same', async () => {
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    await world.rotate();
    await sweeps(PATIENCE.unacknowledgedSweeps - 1);
    await stream.silence(20);
    await sweeps(3);
    expect((await stream.next()).names).toEqual(['default']);
  });

  test('ends for a response that is not read: the connection is closed', async () => {
    const client = await rawConnect(world.socketPath);
    // A window of one byte.
    client.send(
      PREFACE,
      frame('settings', 0, Buffer.from([0, 4, 0, 0, 0, 1])),
      openCall(1),
      message(1, sotwRequest(['default'])),
    );
    await until('the stream', async () => world.server.streams()[0]?.names[0]?.sentVersion);
    await sweeps(PATIENCE.unreadSweeps - 1);
    expect(client.socket.destroyed).toBe(false);
    await sweeps(3);
    await client.closed;
    await until('no stream', async () => world.server.streams().length === 0);
  });

  test('ends for a connection that says nothing, and has no end for one that is quiet', async () => {
    const silent = await rawConnect(world.socketPath);
    const quiet = await rawConnect(world.socketPath);
    quiet.send(PREFACE);
    await until('settings', async () => quiet.received() > 0);
    await sweeps(PATIENCE.silentConnectionSweeps + 2);
    await silent.closed;
    expect(quiet.socket.destroyed).toBe(false);
    quiet.destroy();
  });

  test('is not asked for while nobody owes anything: the server sleeps', async () => {
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    stream.ack();
    await stream.silence(50);
    await sweeps(3);
    // But for the sign of life that it asks of every client.
    expect(clock.nextWakeAt()).toBeGreaterThan(clock.now() + PATIENCE.probeMs / 2);
  });
});

describe('names', () => {
  test.each([
    ['default', { kind: 'identity' }],
    ['ROOTCA', { kind: 'bundle' }],
    [
      'file-cert:/a/cert.pem~/a/key.pem',
      { kind: 'certificate-files', certificatePath: '/a/cert.pem', keyPath: '/a/key.pem' },
    ],
    ['file-root:/a/root.pem', { kind: 'root-file', path: '/a/root.pem' }],
    ['file-root:system', { kind: 'system-roots' }],
  ])('%s is read', (name, want) => expect(parseResourceName(name)).toEqual(want));

  test.each([
    '',
    'Default',
    'rootca',
    'file-cert:',
    'file-cert:a',
    'file-cert:~b',
    'file-cert:a~',
    'file-cert:a~b~c',
    'file-root:',
    'file-root:a~b',
    'file-root:a\0b',
    'file:root',
    'sds://x',
    'kubernetes://x',
  ])('%j is nobody', (name) => expect(parseResourceName(name)).toBeUndefined());

  test('that are unknown are counted, the newest last, and no more of them kept than there is room', () => {
    const names = new UnknownNames();
    expect(names.add('a')).toBe(true);
    names.add('b');
    expect(names.add('a')).toBe(false);
    expect(names.list()).toEqual([
      { name: 'b', count: 1 },
      { name: 'a', count: 2 },
    ]);
    for (let index = 0; index < LIMITS.unknownNames * 2; index += 1)
      names.add('x'.repeat(1_000) + index);
    expect(names.list().length).toBeLessThanOrEqual(LIMITS.unknownNames);
    expect(Math.max(...names.list().map(({ name }) => name.length))).toBeLessThan(
      LIMITS.shownName + 10,
    );
  });
});

test('a budget of log lines tells how many it withheld, and begins anew every minute', () => {
  let now = 0;
  const budget = new LogRateLimit({ ...new TestClock(), now: () => now } as TestClock, 2);
  const written: (number | undefined)[] = [];
  const spend = () => budget.spend((withheld) => written.push(withheld));
  for (let times = 0; times < 5; times += 1) spend();
  now += 60_000;
  spend();
  now -= 3_600_000;
  spend();
  expect(written).toEqual([undefined, undefined, 3, undefined]);
});

test('codes of errors become codes of gRPC, and what is not the client’s fault tells it nothing', async () => {
  const { grpcStatus } = await import('../../../sds/grpc/status');
  const { AgentError } = await import('../../../agent/base/errors');
  expect(grpcStatus(new AgentError('ERR_PARSE', 'a: b'))).toEqual({
    code: status.INVALID_ARGUMENT,
    details: 'a: b',
  });
  expect(grpcStatus(new Error('/secret/path'))).toMatchObject({
    code: status.INTERNAL,
    details: expect.not.stringContaining('secret'),
  });
});
