import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { runAgent } from '../support/agent';
import { writeCaDir } from '../support/ca-dir';
import { issueCa } from '../support/sds-world';
import { until } from '../support/until';

test('a CA directory that goes bad is told in status while the last good CA still signs, and forgotten once it is mended', async () => {
  const root = await issueCa();
  const { agent, dir, workload } = await runAgent((base) => {
    writeCaDir(join(base, 'ca'), { signer: root, roots: [root] });
    return {};
  });
  expect(workload().sourceProblem).toBeUndefined();
  writeFileSync(join(dir, 'ca', 'root-cert.pem'), 'garbage');
  const problem = await until('the bad directory to be told', async () => workload().sourceProblem);
  expect(problem).toMatchObject({
    code: 'ERR_CA_STATE',
    message: expect.stringContaining('root-cert.pem'),
  });
  await agent.view.rotate({ wait: false, reason: 'test' }, new AbortController().signal);
  expect(workload()).toMatchObject({ state: 'current', renewals: 2 });
  writeCaDir(join(dir, 'ca'), { roots: [root] });
  await until(
    'the mended directory to be taken up',
    async () => workload().sourceProblem === undefined,
  );
});
