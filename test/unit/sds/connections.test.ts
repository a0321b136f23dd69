import { status } from '@grpc/grpc-js';
import { afterEach, describe, expect, test } from '@jest/globals';
import { LIMITS } from '../../../sds/grpc/limits';
import { openCall, PREFACE, type RawClient, rawConnect } from '../../support/raw-http2';
import { type SdsWorld, startSdsWorld } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { until } from '../../support/until';

let world: SdsWorld;
const raw: RawClient[] = [];
afterEach(async () => {
  for (const each of raw.splice(0)) each.destroy();
  await world.close();
});

/** A server that sweeps nobody away, with a secret. */
async function start(options: { readonly sockets?: () => number } = {}) {
  world = await startSdsWorld(tempDir(), options, { clock: new TestClock(Date.now()) });
  await world.rotate();
}

async function connect(): Promise<RawClient> {
  const client = await rawConnect(world.socketPath);
  raw.push(client);
  return client;
}

describe('at the bound of connections', () => {
  /** One socket of so many that it gets the least. */
  const startSmall = () => start({ sockets: () => 1_000_000 });
  const watchDefault = async (count: number) => {
    const streams = Array.from({ length: count }, () => world.client().openStream());
    for (const stream of streams) {
      stream.request(['default']);
      await stream.next();
      stream.ack();
    }
    return streams;
  };

  test('a storm takes the place of idle clients, never of one with a live stream', async () => {
    await startSmall();
    const streams = await watchDefault(LIMITS.leastConnections - 1);
    for (let count = 0; count < 2 * LIMITS.leastConnections; count += 1) await connect();
    await until('the idle ones to go', async () =>
      raw.slice(0, -1).every(({ socket }) => socket.destroyed),
    );
    await world.rotate();
    for (const stream of streams) expect((await stream.next()).names).toEqual(['default']);
  });

  test('where all have live streams the newcomer is hung up on, and they are served on', async () => {
    await startSmall();
    const streams = await watchDefault(LIMITS.leastConnections);
    const late = await connect();
    late.send(PREFACE);
    await until('an answer', async () => late.socket.destroyed || late.received() > 0);
    expect(late.received()).toBe(0);
    await world.rotate();
    for (const stream of streams) expect((await stream.next()).names).toEqual(['default']);
  });
});

describe('at the bound of streams', () => {
  /** One client for each number, with that many open streams. */
  const fill = async (...counts: readonly number[]) => {
    const clients: RawClient[] = [];
    for (const count of counts) {
      const client = await connect();
      client.send(PREFACE, ...Array.from({ length: count }, (_, index) => openCall(2 * index + 1)));
      clients.push(client);
    }
    const total = counts.reduce((sum, count) => sum + count, 0);
    await until('the streams', async () => world.server.streams().length === total);
    return clients;
  };
  const endedOf = (client: RawClient) =>
    Array.from({ length: LIMITS.streams }, (_, index) => 2 * index + 1).filter(client.ended);

  test('many clients of few streams each keep theirs, and one more stream is refused with the reason', async () => {
    await start();
    const clients = await fill(
      ...Array<number>(LIMITS.streams / LIMITS.modestStreams).fill(LIMITS.modestStreams),
    );
    const stream = world.client().openStream();
    stream.request(['default']);
    expect(await stream.ended).toEqual({
      code: status.RESOURCE_EXHAUSTED,
      details: `more than ${LIMITS.streams} streams`,
    });
    expect(clients.flatMap(endedOf)).toEqual([]);
    expect(world.server.streams()).toHaveLength(LIMITS.streams);
  });

  test('a newcomer gets the place of the busiest client’s last stream, which is ended; one with many gets none', async () => {
    await start();
    const [busiest, busy] = await fill(
      LIMITS.streamsPerConnection,
      LIMITS.streams - LIMITS.streamsPerConnection - 1,
      1,
    );
    const stream = world.client().openStream();
    stream.request(['default']);
    expect((await stream.next()).names).toEqual(['default']);
    await until('the displaced stream', async () => endedOf(busiest!).length > 0);
    const next = 2 * (LIMITS.streams - LIMITS.streamsPerConnection) + 1;
    busy!.send(openCall(next));
    await until('a refusal', async () => busy!.ended(next));
    expect(endedOf(busiest!)).toEqual([2 * LIMITS.streamsPerConnection - 1]);
    expect(endedOf(busy!)).toEqual([next]);
  });
});
