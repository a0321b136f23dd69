import { X509Certificate } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { runAgent } from '../support/agent';

const within = (ms: number) => AbortSignal.timeout(ms);

test('rotate with wait answers when every stream that watches the certificate has acknowledged it', async () => {
  const { client, agent } = await runAgent();
  const stream = client.openStream();
  stream.request(['default']);
  await stream.next();
  stream.ack();
  const answer = agent.view.rotate({ wait: true, reason: 'test' }, within(5_000));
  await stream.next();
  stream.ack();
  expect((await answer).workloads[0]).toMatchObject({
    acknowledged: 1,
    previousSerial: expect.any(String),
  });
});

test('rotate with wait names the stream that is behind, in the words of its refusal, and the certificate stays in service', async () => {
  const { client, agent, workload } = await runAgent();
  const stream = client.openStream();
  stream.request(['default']);
  await stream.next();
  stream.ack();
  const answer = agent.view.rotate({ wait: true, reason: 'test' }, within(700));
  await stream.next();
  stream.nack('no room for another key');
  await expect(answer).rejects.toMatchObject({
    code: 'ERR_TIMEOUT',
    message: expect.stringMatching(/stream \d+ \(test, refused: no room for another key\)/),
  });
  expect(workload()).toMatchObject({ state: 'current', renewals: 2 });
});

test('H9 a key that may be known to others is replaced at every stream within seconds, by another key', async () => {
  const { client, agent } = await runAgent();
  const stream = client.openStream();
  stream.request(['default']);
  const before = (await stream.next()).secrets[0]!;
  stream.ack();
  const answer = agent.view.rotate({ wait: true, reason: 'key compromised' }, within(10_000));
  const after = (await stream.next()).secrets[0]!;
  stream.ack();
  expect((await answer).workloads[0]).toMatchObject({ acknowledged: 1 });
  expect(after.keyPem).not.toBe(before.keyPem);
  expect(publicKeyOf(after.chainPem!)).not.toBe(publicKeyOf(before.chainPem!));
  expect((await client.get('default')).keyPem).toBe(after.keyPem);
});

function publicKeyOf(chainPem: string): string {
  return new X509Certificate(chainPem).publicKey
    .export({ type: 'spki', format: 'der' })
    .toString('hex');
}
