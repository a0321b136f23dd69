import { describe, expect, test } from '@jest/globals';
import { runAgent } from '../support/agent';
import { createSdsClient } from '../support/sds-client';

// Numbers are those of upstream's conformance list: istio-agent's sdsservice tests. Where ours differs, the title says what ours does.

const rotate = (agent: Awaited<ReturnType<typeof runAgent>>['agent']) =>
  agent.view.rotate({ wait: false, reason: 'test' }, new AbortController().signal);

describe("upstream's SDS service, numbers 21 to 33", () => {
  test('21 and behaviour 4: a name added on a live stream is answered alone', async () => {
    const { client } = await runAgent();
    const stream = client.openStream();
    stream.request(['default']);
    expect((await stream.next()).names).toEqual(['default']);
    stream.request(['default', 'ROOTCA']);
    expect((await stream.next()).names).toEqual(['ROOTCA']);
    stream.ack();
    await stream.silence();
  });

  test('22 the root first, then the certificate with an empty nonce: both are answered', async () => {
    const { client } = await runAgent();
    const stream = client.openStream();
    stream.request(['ROOTCA']);
    expect((await stream.next()).names).toEqual(['ROOTCA']);
    stream.request(['default'], { nonce: '', version: '' });
    expect((await stream.next()).names).toEqual(['default']);
  });

  test('23 and behaviour 5: the same initial request twice is answered twice', async () => {
    const { client } = await runAgent();
    const stream = client.openStream();
    stream.request(['default'], { nonce: '', version: '' });
    const first = await stream.next();
    stream.request(['default'], { nonce: '', version: '' });
    expect((await stream.next()).secrets).toEqual(first.secrets);
  });

  test('24, 30 streams and connections, in parallel or in turn, do not disturb each other', async () => {
    const { client, socket } = await runAgent();
    const streams = Array.from({ length: 5 }, () => client.openStream());
    for (const stream of streams) stream.request(['default']);
    const parallel = await Promise.all(streams.map((stream) => stream.next()));
    const others = Array.from({ length: 5 }, () => createSdsClient(socket));
    const connected = await Promise.all(others.map((other) => other.get('default')));
    for (const other of others) other.close();
    const serial = await client.get('default');
    for (const secret of [...parallel.map(({ secrets }) => secrets[0]), ...connected])
      expect(secret).toEqual(serial);
  });

  test('25 an unknown name is no secret and no error: upstream ends the stream, ours is silent, keeps it, and serves the others', async () => {
    const { client, workload } = await runAgent();
    const stream = client.openStream();
    stream.request(['nobody']);
    await stream.silence();
    stream.request(['nobody', 'default']);
    expect((await stream.next()).names).toEqual(['default']);
    expect(workload().sds.unknownNames).toEqual([{ name: 'nobody', count: 1 }]);
    expect((await client.get('default')).name).toBe('default');
  });

  test('26 a push without a secret ends no stream: upstream ends it with an error, ours holds it until there is one', async () => {
    const { client, agent } = await runAgent();
    const stream = client.openStream();
    stream.request(['nobody', 'default']);
    await stream.next();
    stream.ack();
    await rotate(agent);
    expect((await stream.next()).names).toEqual(['default']);
  });

  test('27 and behaviour 7: a push reaches only the streams that watch the name', async () => {
    const { client, agent } = await runAgent();
    const [leaf, roots] = [client.openStream(), client.openStream()];
    leaf.request(['default']);
    roots.request(['ROOTCA']);
    for (const stream of [leaf, roots]) {
      await stream.next();
      stream.ack();
    }
    await rotate(agent);
    expect((await leaf.next()).names).toEqual(['default']);
    await roots.silence();
  });

  test('28, 29 and behaviour 5: nonce and version of an earlier agent on a new stream are answered, also for many at once', async () => {
    const { client, socket } = await runAgent();
    const old = {
      nonce: 'b1a5a1b6-0000-4000-8000-000000000000',
      version: '2026-01-01T00:00:00Z/7',
    };
    const stream = client.openStream();
    stream.request(['default'], old);
    expect((await stream.next()).names).toEqual(['default']);
    const clients = Array.from({ length: 20 }, () => createSdsClient(socket));
    const answers = await Promise.all(
      clients.map((each) => {
        const reconnected = each.openStream();
        reconnected.request(['default', 'ROOTCA'], old);
        return reconnected.next();
      }),
    );
    for (const each of clients) each.close();
    for (const { names } of answers) expect(names).toEqual(['ROOTCA', 'default']);
  });

  test('31 and behaviour 6: after unsubscribing there is silence, through a rotation too', async () => {
    const { client, agent } = await runAgent();
    const stream = client.openStream();
    stream.request(['default']);
    await stream.next();
    stream.request([]);
    await stream.silence();
    await rotate(agent);
    await stream.silence();
  });

  test("32 and behaviour 6: an ACK and a NACK are answered with silence; the NACK's words are kept, and the next certificate is sent", async () => {
    const { client, agent, workload } = await runAgent();
    const stream = client.openStream();
    stream.request(['default']);
    await stream.next();
    stream.ack();
    await stream.silence();
    await rotate(agent);
    const refused = await stream.next();
    stream.nack('cannot load it');
    await stream.silence();
    expect(workload().sds.streams[0]!.names[0]).toMatchObject({
      nack: { message: 'cannot load it' },
    });
    await rotate(agent);
    expect((await stream.next()).secrets[0]!.chainPem).not.toBe(refused.secrets[0]!.chainPem);
  });

  test('33 the key is always inline: a private key provider (cryptomb, qat) cannot be configured and is never sent', async () => {
    const { client } = await runAgent();
    expect((await client.get('default')).keyPem).toContain('BEGIN PRIVATE KEY');
  });
});
