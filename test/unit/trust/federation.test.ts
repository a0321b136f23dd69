import { renameSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { firstValue } from '../../../agent/base/watched';

import { certificatesPem } from '../../../agent/identity/certificate';
import type { FederatedBundles } from '../../../agent/identity/spiffe-bundle';
import { type Federation, followFederation } from '../../../agent/trust/federation';
import { httpGet } from '../../../agent/trust/http-get';
import { createSharedCas } from '../../../agent/workload/shared-cas';
import { makeTestCa, type TestCa, uriAltName } from '../../support/certs';
import { startHttpsServer } from '../../support/https-server';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { until } from '../../support/until';

const TD = 'other.example';
const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const documentOf = (cas: readonly TestCa[], more: object = {}) =>
  JSON.stringify({
    keys: cas.map((ca) => ({
      use: 'x509-svid',
      kty: 'EC',
      x5c: [Buffer.from(ca.certificateDer).toString('base64')],
    })),
    ...more,
  });

const follow = (place: string, options: { stateDir?: string; clock?: TestClock } = {}) => {
  const deps = testDeps(options.clock ? { clock: options.clock } : {});
  const federation = followFederation(
    new Map([[TD, place]]),
    options.stateDir,
    createSharedCas(deps).bundle,
    deps,
  );
  closing.push(() => federation.close());
  return { federation, deps };
};
const serve = async (listener: (request: IncomingMessage, response: ServerResponse) => void) => {
  const server = createServer(listener);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  closing.push(() => new Promise((done) => server.close(done).closeAllConnections()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/bundle`;
};
const rootsBecome = ({ bundles }: Federation, cas: readonly TestCa[] | undefined) => {
  const wanted =
    cas === undefined
      ? undefined
      : cas.map((ca) => Buffer.from(ca.certificateDer).toString('hex')).sort();
  const rootsOf = (all: FederatedBundles) =>
    all
      .get(TD)
      ?.roots?.rootsDer.map((der) => Buffer.from(der).toString('hex'))
      .sort();
  return firstValue(
    bundles,
    (all) => all.get(TD) !== undefined && rootsOf(all)?.join() === wanted?.join(),
    AbortSignal.timeout(8_000),
  );
};

describe('a file', () => {
  test('is followed; a bad one leaves the last good one, an empty one takes all back', async () => {
    const [one, two] = [await makeTestCa(), await makeTestCa()];
    const path = join(tempDir(), 'bundle.json');
    const write = (text: string | Buffer) => {
      writeFileSync(`${path}.new`, text);
      renameSync(`${path}.new`, path);
    };
    const { federation, deps } = follow(path);
    expect(federation.bundles.value).toEqual(new Map([[TD, undefined]]));
    await until('the first complaint', async () => federation.problems().has(TD));
    write(certificatesPem([one.certificateDer]));
    await rootsBecome(federation, [one]);
    write('{"keys": 1}');
    await until('the complaint', async () =>
      federation.problems().get(TD)?.message.includes('keys: must be a list'),
    );
    expect(federation.bundles.value.get(TD)?.roots).toEqual(one.bundle);
    write(documentOf([two]));
    await rootsBecome(federation, [two]);
    await until('the all-clear', async () => federation.problems().size === 0);
    write('{"keys": []}');
    await rootsBecome(federation, undefined);
    expect(deps.events.map(({ event }) => event)).toContain(
      'federated bundle is empty, trusting no peer of that trust domain',
    );
  });

  test('with a root of another trust domain is refused, saying which', async () => {
    const path = join(tempDir(), 'bundle.json');
    writeFileSync(
      path,
      documentOf([await makeTestCa({ extraExtensions: [uriAltName('spiffe://cluster.local')] })]),
    );
    const { federation } = follow(path);
    await until('the complaint', async () => federation.problems().has(TD));
    expect(federation.problems().get(TD)?.message).toBe(
      '--federated-bundle other.example keys[0].x5c: must be of trust domain other.example, not cluster.local',
    );
    expect(federation.bundles.value.get(TD)).toBeUndefined();
  });
});

describe('a URL', () => {
  test.each([
    [60, 60_000],
    [0, 300_000],
    [undefined, 300_000],
    [1, 5_000],
    [10 ** 9, 86_400_000],
  ])('is asked again after a hint of %p s: %i ms', async (hint, wantMs) => {
    const ca = await makeTestCa();
    let asked = 0;
    const url = await serve((_, response) => {
      asked += 1;
      response.end(documentOf([ca], hint === undefined ? {} : { spiffe_refresh_hint: hint }));
    });
    const clock = new TestClock();
    const { federation } = follow(url, { clock });
    await rootsBecome(federation, [ca]);
    await until('the sleep', async () => clock.nextWakeAt() === clock.now() + wantMs);
    expect(asked).toBe(1);
    await clock.advanceBy(wantMs);
    await until('the second look', async () => asked === 2);
  });

  test('that fails leaves the last good bundle, and what it gave is there after a restart', async () => {
    const ca = await makeTestCa();
    const stateDir = tempDir();
    let answer: (response: ServerResponse) => void = (response) => response.end(documentOf([ca]));
    const url = await serve((_, response) => answer(response));
    const first = follow(url, { stateDir });
    await rootsBecome(first.federation, [ca]);
    await first.federation.close();
    answer = (response) => response.writeHead(503).end();
    const second = follow(url, { stateDir });
    await rootsBecome(second.federation, [ca]);
    await until('the complaint', async () =>
      second.federation.problems().get(TD)?.message.includes('status 503'),
    );
    // What is kept for one trust domain is nobody else's.
    const other = followFederation(
      new Map([['another.example', url]]),
      stateDir,
      createSharedCas(testDeps()).bundle,
      testDeps(),
    );
    closing.push(() => other.close());
    await until('its complaint', async () => other.problems().size === 1);
    expect(other.bundles.value.get('another.example')).toBeUndefined();
  });

  test.each<[string, (response: ServerResponse) => void, RegExp]>([
    [
      'redirects',
      (response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
      /status 302/,
    ],
    [
      'answers with more than 1 MiB',
      (response) => response.end(Buffer.alloc(2 * 1024 * 1024, 32)),
      /more than 1048576 bytes/,
    ],
    ['never ends its answer, and grows', (response) => flood(response), /more than 1048576 bytes/],
    [
      'breaks off',
      (response) =>
        response.writeHead(200, { 'content-length': '100' }).write('{', () => response.destroy()),
      /aborted/,
    ],
    [
      'answers with a page',
      (response) => response.end('<html>'),
      /must be a SPIFFE bundle \(JSON\) or PEM certificates/,
    ],
  ])('that %s is refused', async (_, answer, want) => {
    const url = await serve((_request, response) => answer(response));
    const { federation } = follow(url);
    await until('the complaint', async () => federation.problems().has(TD));
    expect(federation.problems().get(TD)?.message).toMatch(want);
  });

  test('that hangs is given up after a minute, and its end does not wait for it', async () => {
    const url = await serve(() => undefined);
    const clock = new TestClock();
    const { federation } = follow(url, { clock });
    await until('the deadline', async () => clock.nextWakeAt() === clock.now() + 60_000);
    await clock.advanceBy(60_000);
    await until('the complaint', async () => federation.problems().get(TD)?.code === 'ERR_TIMEOUT');
    await federation.close();
  });

  test('of https is believed only where its roots vouch for the server', async () => {
    const server = await startHttpsServer((_, response) => response.end('ok'));
    closing.push(() => server.close());
    const get = (ca: Buffer | undefined) =>
      httpGet(
        new URL(server.url),
        { etag: undefined, maxBytes: 10, ca },
        new AbortController().signal,
      );
    expect((await get(server.caPem))?.bytes.toString()).toBe('ok');
    await expect(get(certificatesPem([(await makeTestCa()).certificateDer]))).rejects.toMatchObject(
      { code: 'ERR_CA_UNAVAILABLE' },
    );
    const { federation } = follow(server.url);
    await until('the complaint', async () => federation.problems().has(TD));
    expect(federation.bundles.value.get(TD)).toBeUndefined();
  });

  test.each([
    ['http://other.example/bundle', /must be a file or an https URL/],
    ['https://user:secret@other.example/bundle', /must not have a user in its URL/],
    ['ftp://other.example/bundle', /must be a file or an https URL/],
  ])('like %s is no place for a bundle', (place, want) => {
    expect(() => follow(place)).toThrow(want);
  });
});

test('a trust domain called .. or as long as they get keeps its bundle in a place of its own', async () => {
  const ca = await makeTestCa();
  const url = await serve((_, response) => response.end(documentOf([ca])));
  const stateDir = tempDir();
  const names = ['..', '.', 'a'.repeat(255)];
  const first = followFederation(
    new Map(names.map((name) => [name, url])),
    stateDir,
    createSharedCas(testDeps()).bundle,
    testDeps(),
  );
  await firstValue(first.bundles, (all) =>
    names.every((name) => all.get(name)?.roots !== undefined),
  );
  await until(
    'what is kept',
    async () => (await import('node:fs')).readdirSync(join(stateDir, 'federated')).length === 3,
  );
  await first.close();
});

test("many workloads ask a server once; what one has kept is nobody else's, and the last to go ends the asking", async () => {
  const ca = await makeTestCa();
  let asked = 0;
  let answers = true;
  const url = await serve((_, response) => {
    asked += 1;
    if (answers) response.end(documentOf([ca]));
    else response.writeHead(503).end();
  });
  const clock = new TestClock();
  const start = (shared: ReturnType<typeof createSharedCas>, stateDir: string | undefined) => {
    const federation = followFederation(
      new Map([[TD, url]]),
      stateDir,
      shared.bundle,
      testDeps({ clock }),
    );
    closing.push(() => federation.close());
    return federation;
  };
  const first = createSharedCas(testDeps({ clock }));
  const stateDir = tempDir();
  const three = [start(first, stateDir), start(first, undefined), start(first, undefined)];
  for (const each of three) await rootsBecome(each, [ca]);
  expect(asked).toBe(1);
  await three[0]!.close();
  await until('the sleep', async () => clock.nextWakeAt() === clock.now() + 300_000);
  await clock.advanceBy(300_000);
  await until('the second look', async () => asked === 2);
  await Promise.all(three.map((each) => each.close()));
  expect(clock.nextWakeAt()).toBeUndefined();

  answers = false;
  const second = createSharedCas(testDeps({ clock }));
  const [kept, bare] = [start(second, stateDir), start(second, undefined)];
  await rootsBecome(kept, [ca]);
  await until('both complaints', async () => kept.problems().size + bare.problems().size === 2);
  expect(bare.bundles.value.get(TD)).toBeUndefined();
});

function flood(response: ServerResponse): void {
  if (response.destroyed) return;
  response.write(Buffer.alloc(64 * 1024, 32), () => flood(response));
}
