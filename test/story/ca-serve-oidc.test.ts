import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { makeTokenIssuer, TEST_ISSUER } from '../support/tokens';
import { until } from '../support/until';

test('a token that died is refused, explained offline by csr lint, and its replacement recovers the agent by itself', async () => {
  const dir = tempDir();
  const issuer = makeTokenIssuer();
  const write = (exp: number) =>
    writeFileSync(
      join(dir, 'token'),
      issuer.token({ claims: { exp: Math.floor(Date.now() / 1_000) + exp } }),
    );
  writeFileSync(join(dir, 'keys.json'), issuer.jwks());
  write(-3_600);
  const ports = ['--listen', '127.0.0.1:0', '--admin-address', '127.0.0.1:0'];
  const believed = [
    '--authenticators',
    'oidc',
    '--oidc-issuer',
    TEST_ISSUER,
    '--jwks',
    './keys.json',
  ];
  const ca = testDaemon({
    dir,
    args: ['ca', 'serve', '--ca-dir', './ca', '--log-format', 'json', ...ports, ...believed],
  });
  const { address } = await ca.event('ca server started');

  const source = [
    '--ca',
    'istiod',
    '--ca-address',
    String(address),
    '--ca-root',
    './ca/root-cert.pem',
    '--token',
    './token',
  ];
  const agent = testDaemon({ dir, source });
  const stuck = await until('the refusal', async () => {
    const [workload] = (await agent.status().catch(() => undefined))?.workloads ?? [];
    return workload?.lastError && workload;
  });
  expect(stuck).toMatchObject({
    state: 'unavailable',
    lastError: { code: 'ERR_TOKEN', message: expect.stringContaining('expired at') },
  });

  const asked = [
    'csr',
    'lint',
    '--for',
    'builtin',
    '--token',
    'token',
    '--namespace',
    'shop',
    '--service-account',
    'cart',
  ];
  expect(await agent.command(...asked)).toMatchObject({
    code: 65,
    stdout: expect.stringMatching(/^error +token-expired +the token expired at /m),
  });
  expect(await agent.command(...asked, '--issuer', 'https://another.example')).toMatchObject({
    stdout: expect.stringContaining(
      `the token is issued by ${TEST_ISSUER}, not by https://another.example`,
    ),
  });

  write(3_600);
  expect((await agent.ready()).workloads[0]).toMatchObject({ state: 'current', source: 'istiod' });
  expect(await agent.command(...asked)).toMatchObject({
    code: 0,
    stdout: 'no rule of builtin is broken\n',
  });
});
