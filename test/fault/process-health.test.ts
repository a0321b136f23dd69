import { spawnSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { callControl } from '../../agent/admin/control-client';
import type { Daemon } from '../support/daemon';
import { parseExposition } from '../support/exposition';
import { startHttpsServer } from '../support/https-server';
import { underLoad } from '../support/load';
import { FORM, programCommand } from '../support/program';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { makeTokenIssuer, TEST_ISSUER } from '../support/tokens';
import { until } from '../support/until';

const controlSocket = (daemon: Daemon) => join(daemon.dir, 'var/run/keyturn/control.sock');

describe('G7 a bug', () => {
  test.each([
    ['uncaught exception', "setTimeout(() => { throw new Error('injected') }, 700)"],
    ['unhandled rejection', "setTimeout(() => { Promise.reject(new Error('injected')) }, 700)"],
  ])(
    'that ends in an %s ends the agent at once, loudly, with the exit code of a bug',
    async (event, bug) => {
      const dir = tempDir();
      const daemon = testDaemon({ dir, preload: bug });
      const seen = await daemon.event(event);
      const before = performance.now();
      const ended = await daemon.finished;
      expect(performance.now() - before).toBeLessThan(underLoad(1_000));
      expect(ended).toMatchObject({ code: 70, signal: null });
      expect(seen).toMatchObject({ level: 'error', code: 'ERR_BUG', cause: 'injected' });
      // What it left is what SIGKILL leaves: the next agent takes it over.
      const next = testDaemon({ dir });
      await next.ready();
      expect((await next.stop()).code).toBe(0);
    },
  );
});

describe('G9 the environment', () => {
  test.each([
    ['LD_PRELOAD', { LD_PRELOAD: '/nonexistent.so' }],
    ['NODE_OPTIONS', { NODE_OPTIONS: '--inspect=127.0.0.1:0' }],
    ['NODE_OPTIONS', { NODE_OPTIONS: '--require ./nothing.cjs' }],
    ['NODE_OPTIONS', { NODE_OPTIONS: '--tls-keylog=keys.log' }],
    ['NODE_OPTIONS', { NODE_OPTIONS: '--tls_keylog=keys.log' }],
    ['NODE_DEBUG', { NODE_DEBUG: 'http,tls' }],
    ['OPENSSL_CONF', { OPENSSL_CONF: './nothing.cnf' }],
  ] as const)('with %s is refused: %j', async (name, env) => {
    const dir = tempDir();
    writeFileSync(join(dir, 'nothing.cjs'), '');
    const ended = await testDaemon({ dir, env }).finished;
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain(`environment ${name}:`);
  });

  test.each([
    ['NODE_TLS_REJECT_UNAUTHORIZED', '0'],
    ['SSLKEYLOGFILE', './keys.log'],
    ['NODE_EXTRA_CA_CERTS', './more.pem'],
    ['GRPC_SSL_CIPHER_SUITES', 'NULL'],
    ['LOG_TOKENS', '1'],
  ])('with %s=%s is neutralised, and the agent says so', async (name, value) => {
    const daemon = testDaemon({ dir: tempDir(), env: { [name]: value } });
    expect(await daemon.event(/^environment variable ignored/)).toMatchObject({ variable: name });
    await daemon.ready();
    expect((await daemon.stop()).code).toBe(0);
  });

  test('with a trace of gRPC shows no token', async () => {
    const dir = tempDir();
    const traced = {
      GRPC_TRACE: 'all',
      GRPC_NODE_TRACE: 'all',
      GRPC_VERBOSITY: 'DEBUG',
      GRPC_NODE_VERBOSITY: 'DEBUG',
    };
    const args = [
      'ca',
      'serve',
      '--ca-dir',
      './ca',
      '--listen',
      '127.0.0.1:0',
      '--admin-address',
      '127.0.0.1:0',
      '--log-format',
      'json',
    ];
    const ca = testDaemon({ dir, args, env: traced });
    const { address } = await ca.event('ca server started');
    writeFileSync(join(dir, 'token'), 'a-token-of-no-form');
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
    const agent = testDaemon({ dir, source, env: traced });
    await until(
      'the refusal',
      async () => (await agent.status().catch(() => undefined))?.workloads[0]?.lastError,
    );
    expect([...ca.strayLines, ...agent.strayLines]).toEqual([]);
    expect(JSON.stringify([ca.events, agent.events])).not.toContain('a-token-of-no-form');
  });

  test('with more roots believes no server that these vouch for', async () => {
    const [dir, issuer] = [tempDir(), makeTokenIssuer()];
    const keys = await startHttpsServer((_, response) => response.end(issuer.jwks()));
    writeFileSync(join(dir, 'token'), issuer.token());
    writeFileSync(join(dir, 'more.pem'), keys.caPem);
    const ports = [
      '--listen',
      '127.0.0.1:0',
      '--admin-address',
      '127.0.0.1:0',
      '--log-format',
      'json',
    ];
    const believed = ['--authenticators', 'oidc', '--oidc-issuer', TEST_ISSUER, '--jwks', keys.url];
    const env = {
      NODE_EXTRA_CA_CERTS: join(dir, 'more.pem'),
      SSL_CERT_FILE: join(dir, 'more.pem'),
      NODE_USE_SYSTEM_CA: '1',
    };
    const ca = testDaemon({
      dir,
      args: ['ca', 'serve', '--ca-dir', './ca', ...ports, ...believed],
      env,
    });
    const { address } = await ca.event('ca server started');
    testDaemon({
      dir,
      source: [
        '--ca',
        'istiod',
        '--ca-address',
        String(address),
        '--ca-root',
        './ca/root-cert.pem',
        '--token',
        './token',
      ],
    });
    expect(await ca.event('fetching token keys failed')).toMatchObject({
      hint: expect.stringContaining('--jwks-ca'),
    });
    await keys.close();
  });

  test('with proxies that lead nowhere changes nothing', async () => {
    const nowhere = 'http://127.0.0.1:9';
    const env = {
      HTTP_PROXY: nowhere,
      HTTPS_PROXY: nowhere,
      http_proxy: nowhere,
      https_proxy: nowhere,
      grpc_proxy: nowhere,
      ALL_PROXY: nowhere,
    };
    const daemon = testDaemon({ dir: tempDir(), env });
    await daemon.ready();
    expect((await daemon.stop()).code).toBe(0);
  });
});

/** All that docs/supported-platforms.md says may be set. */
const PERMITTED = {
  node: {
    NODE_OPTIONS:
      '--max-old-space-size=64 --max_semi_space_size=1 --stack-trace-limit=20 --dns-result-order=verbatim --disable-warning=DEP0190 --no-warnings --trace-warnings --disable-sigusr1 --disable-wasm-trap-handler',
  },
  standalone: {
    BUN_JSC_forceRAMSize: '67108864',
    BUN_JSC_useJIT: '0',
    BUN_INSTALL: '/opt/bun',
    BUN_SERVICE_HOST: '10.0.0.1',
  },
};

describe('G9 switches of the runtime', () => {
  test('that the page permits are taken', async () => {
    const daemon = testDaemon({ dir: tempDir(), env: PERMITTED[FORM] });
    await daemon.ready();
    expect((await daemon.stop()).code).toBe(0);
  });

  test.each(['--tls_keylog=keys.log', '--tls-min-v1.0', '--require=./nothing.cjs'])(
    '%s before the program is refused, and nothing is written',
    (flag) => {
      const dir = tempDir();
      writeFileSync(join(dir, 'nothing.cjs'), '');
      const [program, ...args] = programCommand('node', [flag]);
      const { status, stderr } = spawnSync(program, [...args, 'run', '--ca', 'builtin'], {
        cwd: dir,
        encoding: 'utf8',
      });
      expect({ status, stderr }).toEqual({
        status: 78,
        stderr: expect.stringContaining(
          `command line of Node.js: must not have ${flag.split('=')[0]}`,
        ),
      });
      expect(readdirSync(dir).sort()).toEqual(['nothing.cjs']);
    },
  );
});

describe('G11 health', () => {
  test('is live but not ready while there is no certificate, ready with one, also when its files go bad, not once it has expired, and again with the next', async () => {
    const dir = tempDir();
    const waiting = testDaemon({
      dir,
      source: ['--ca', 'file'],
      flags: ['--credentials-dir', './certs'],
    });
    const ready = async () => (await waiting.http('/healthz/ready')).status;
    expect(await waiting.http('/healthz/ready')).toMatchObject({
      status: 503,
      body: expect.stringContaining('no certificate yet'),
    });
    expect((await waiting.http('/healthz/live')).status).toBe(200);
    expect(
      parseExposition((await waiting.http('/metrics')).body).get('keyturn_ready')?.samples[0]
        ?.value,
    ).toBe(0);

    const maker = () =>
      testDaemon({
        dir,
        flags: [
          '--output-certs',
          './certs',
          '--ttl',
          '5s',
          '--sds-socket',
          './var/m/socket',
          '--control-socket',
          './var/m/control',
        ],
      });
    const first = maker();
    await until('readiness', async () => (await ready()) === 200);
    await first.stop();
    writeFileSync(join(dir, 'certs/key.pem'), 'nonsense');
    await until(
      'the bad read',
      async () => (await waiting.status()).workloads[0]?.state === 'overdue',
    );
    expect(await ready()).toBe(200);
    const gone = await until('the expiry', async () => {
      const answer = await waiting.http('/healthz/ready');
      return answer.status === 503 && answer;
    });
    expect(gone.body).toMatch(/certificate [0-9a-f]+ expired at \d{4}-/);
    expect((await waiting.http('/healthz/live')).status).toBe(200);

    const second = maker();
    await until('readiness again', async () => (await ready()) === 200);
    await second.stop();
    expect((await waiting.stop()).code).toBe(0);
  });
});

test('G12 health flooded in the middle of a burst of renewals answers within a second', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  await daemon.ready();
  const tookMs: number[] = [];
  let [renewals, done] = [0, false];
  const burst = Array.from({ length: 8 }, async () => {
    while (!done) {
      await callControl(controlSocket(daemon), 'POST', '/rotate');
      renewals += 1;
    }
  });
  const flood = Array.from({ length: 16 }, async () => {
    while (!done) {
      const started = performance.now();
      expect((await daemon.http('/healthz/ready')).status).toBe(200);
      tookMs.push(performance.now() - started);
    }
  });
  await new Promise((resolve) =>
    setTimeout(resolve, process.env.KEYTURN_TEST === 'full' ? 30_000 : 2_000),
  );
  await until('a burst and a flood', async () => tookMs.length > 100 && renewals > 10);
  done = true;
  await Promise.all([...burst, ...flood]);
  // 99 of 100: the rest may have waited for this process, which asks 24 things at a time.
  expect(tookMs.sort((a, b) => a - b)[Math.floor(tookMs.length * 0.99)]).toBeLessThan(
    underLoad(1_000),
  );
  expect((await daemon.stop()).code).toBe(0);
});
