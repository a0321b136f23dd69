import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { Connections } from '../../../agent/authority/server/connections';
import { LIMITS } from '../../../agent/authority/server/limits';
import { boundConnections, evictIdlest } from '../../../agent/base/connection-bound';
import { until } from '../../support/until';

const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const each of cleanUp.splice(0)) each();
});

/** A listener on every address of this machine, and what it took in. */
async function listen() {
  const server = createServer();
  const taken: Socket[] = [];
  server.on('connection', (socket) => {
    taken.push(socket);
    socket.on('error', () => undefined);
  });
  server.listen(0, '0.0.0.0');
  await once(server, 'listening');
  cleanUp.push(() => {
    for (const socket of taken) socket.destroy();
    server.close();
  });
  const { port } = server.address() as { port: number };
  const open = async (host: string, localPort?: number) => {
    const socket = connect({
      host,
      port,
      localAddress: '127.0.0.1',
      ...(localPort && { localPort }),
    });
    socket.on('error', () => undefined);
    socket.resume();
    cleanUp.push(() => socket.destroy());
    await once(socket, 'connect');
    return socket;
  };
  /** Two connections from one address and port, to two addresses of this machine. */
  const openTwins = async () => {
    const one = await open('127.0.0.1');
    const other = await open('127.0.0.2', one.localPort);
    expect([one.remoteAddress, other.remoteAddress, other.localPort]).toEqual([
      '127.0.0.1',
      '127.0.0.2',
      one.localPort,
    ]);
    await until('both', async () => taken.length === 2);
    return [one, other] as const;
  };
  return { server, taken, open, openTwins };
}

test('connections of one client port to two of our addresses both count towards the bound', async () => {
  const { server, openTwins, open } = await listen();
  evictIdlest(server, 2, 1 / 2);
  const [one, other] = await openTwins();
  const third = await open('127.0.0.1');
  await until('the first to make room', async () => one.destroyed);
  expect([other.destroyed, third.destroyed]).toEqual([false, false]);
});

test('so they do where what comes beyond the bound is hung up on', async () => {
  const { server, openTwins, open } = await listen();
  boundConnections(server, 2, 1 / 2);
  const [one, other] = await openTwins();
  const third = await open('127.0.0.1');
  await until('the third to go', async () => third.destroyed);
  expect([one.destroyed, other.destroyed]).toEqual([false, false]);
});

test('so they do at ca serve, which makes room by the oldest that has asked nothing', async () => {
  const connections = new Connections();
  const { server, openTwins, open, taken } = await listen();
  server.on('connection', (socket) => connections.accept(socket));
  await openTwins();
  expect(connections.size).toBe(2);
  while (taken.length < LIMITS.connections + 1) await open('127.0.0.1');
  await until('one to make room', async () => connections.size === LIMITS.connections);
  await until('the first to go', async () => taken[0]!.destroyed);
});
