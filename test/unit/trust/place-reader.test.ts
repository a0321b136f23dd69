import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import { openPlace } from '../../../agent/trust/place-reader';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

test('field: a URL that answers after 12 s is waited for; one that does not answer is given up after a minute', async () => {
  const waiting: ServerResponse[] = [];
  const server = createServer((_, response) => void waiting.push(response));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const clock = new TestClock();
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/bundle.json`;
  const place = openPlace(
    url,
    { field: '--federated-bundle', maxBytes: 1_024 },
    testDeps({ clock }),
  );
  const slow = place.read(new AbortController().signal);
  await until('the request', async () => waiting.length === 1);
  await clock.advanceBy(12_000);
  waiting[0]!.end('late');
  expect(Buffer.from((await slow)!).toString()).toBe('late');
  const never = place.read(new AbortController().signal);
  await until('the next request', async () => waiting.length === 2);
  const given = expect(never).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  await clock.advanceBy(60_000);
  await given;
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
});
