import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type Daemon, startDaemon } from '../support/daemon';
import { fetchText } from '../support/fetch-text';
import { freePort } from '../support/free-port';
import { underLoad } from '../support/load';
import { processCpuMs } from '../support/process-cpu';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

const CROWD = 1_000;
/** What the port may hold; the rest of the process takes some dozens. */
const MOST_DESCRIPTORS = 256 + 64;
/** Where a parser sees all requests that one read has brought, it was close to 1 GB. */
const MOST_MEMORY = 256 * 1024 * 1024;

let daemon: Daemon;
let address: string;
let crowd: Socket[] = [];

/** A crowd of connections, each of which says one of the texts and reads nothing. */
function gather(texts: readonly string[], size = CROWD): void {
  const [host, port] = address.split(':');
  crowd = Array.from({ length: size }, (_, at) => {
    const socket = connect(Number(port), host!, () => socket.write(texts[at % texts.length]!));
    return socket.on('error', () => undefined).pause();
  });
}

const descriptors = () => readdirSync(`/proc/${daemon.pid}/fd`).length;

describe.each([
  ['run', ['run', '--ca', 'builtin']],
  ['ca serve', ['ca', 'serve', '--trust-domain', 'example.org']],
])('at the HTTP port of keyturn %s', (name, command) => {
  beforeAll(async () => {
    address = `127.0.0.1:${await freePort()}`;
    const listen = name === 'run' ? [] : ['--listen', `127.0.0.1:${await freePort()}`];
    daemon = startDaemon({
      dir: tempDir(),
      args: [...command, ...listen, '--admin-address', address, '--log-format', 'json'],
    });
    const live = () => fetchText(`http://${address}/healthz/live`).catch(() => undefined);
    await until('the port to answer', async () => (await live())?.status === 200);
  });
  afterAll(() => daemon.kill('SIGKILL'));

  test.each([
    ['say nothing or half a header', '', 'GET /healthz/live HTTP/1.1\r\nHost: x\r\nX: '],
    ['send half a body', 'POST /healthz/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{'],
    [
      'ask fifty times at once and read nothing',
      'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(50),
    ],
  ])(
    'a thousand strangers who %s keep nobody from an answer, and are gone in time',
    async (_, ...texts) => {
      const before = { memory: daemon.rssAnon(), descriptors: descriptors() };
      gather(texts);
      await until('the crowd to be there', async () =>
        crowd.every(({ connecting }) => !connecting),
      );
      for (let probe = 0; probe < 5; probe += 1) {
        expect(await fetchText(`http://${address}/healthz/live`)).toMatchObject({ status: 200 });
        expect(descriptors()).toBeLessThan(MOST_DESCRIPTORS);
      }
      expect(daemon.rssAnon() - before.memory).toBeLessThan(MOST_MEMORY);
      await until(
        'them to be gone',
        async () => descriptors() <= before.descriptors + 8,
        underLoad(15_000),
      );
      for (const socket of crowd) socket.destroy();
    },
  );

  test('two hundred requests at once cost what the first of them costs', async () => {
    const request = 'GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n';
    const ask = async (text: string) => {
      const before = processCpuMs(daemon.pid);
      for (let round = 0; round < 5; round += 1) {
        gather([text], 200);
        await Promise.all(
          crowd.map((socket) => once(socket.resume(), 'close').catch(() => undefined)),
        );
      }
      return processCpuMs(daemon.pid) - before;
    };
    await ask(request);
    const first = await ask(request);
    // As a parser's objects they cost thirty times as much: 5 s of processor for these connections.
    expect(await ask(request.repeat(200))).toBeLessThan(3 * first + 500);
  });
});
