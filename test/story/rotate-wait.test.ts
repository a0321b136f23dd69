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
  expect((await answer).workloads[0]).toMatchObject({ acknowledged: 1, previousSerial: expect.any(String) });
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
