import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { type RunningAgent, runAgent } from '../support/agent';
import { keyturn } from '../support/command-line';
import { until } from '../support/until';

/** Runs a command against an agent of this process, found by its environment. */
function ask(running: RunningAgent, ...argv: string[]) {
  const env = {
    KEYTURN_CONTROL_SOCKET: join(running.dir, 'control.sock'),
    KEYTURN_SDS_SOCKET: running.socket,
  };
  return keyturn(argv, { cwd: running.dir, env });
}

const ID = 'spiffe://cluster.local/ns/default/sa/default';
const serialOf = (running: RunningAgent) => running.workload().certificate!.serial;

/** An agent that has its certificate. */
async function readyAgent(): Promise<RunningAgent> {
  const running = await runAgent();
  await running.client.get('default');
  return running;
}

test('status shows people the facts that its JSON has', async () => {
  const running = await readyAgent();
  const { code, stdout, stderr } = await ask(running, 'status');
  const json = JSON.parse((await ask(running, 'status', '--output', 'json')).stdout);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const [{ certificate, sds, roots }] = json.workloads;
  for (const fact of [
    json.version,
    String(json.pid),
    ID,
    certificate.serial,
    certificate.keyAlgorithm,
    certificate.issuer,
    sds.socket,
  ]) {
    expect(stdout).toContain(fact);
  }
  for (const at of [
    certificate.notBefore,
    certificate.notAfter,
    certificate.renewAt,
    roots[0].notAfter,
  ]) {
    expect(stdout).toContain(at.slice(0, 19).replace('T', ' '));
  }
});

test('status shows each stream with what it has acknowledged, and names that nobody serves', async () => {
  const running = await readyAgent();
  const stream = running.client.openStream();
  stream.request(['default', 'nope'], { node: 'sidecar~10.0.0.1' });
  await stream.next();
  const before = (await ask(running, 'status')).stdout;
  expect(before).toMatch(/sotw +sidecar~10\.0\.0\.1 +default .* not yet$/m);
  expect(before).toMatch(/unknown name +nope \(asked for/);
  stream.nack('no such\x1b[31m luck');
  await until('the refusal', async () =>
    (await ask(running, 'status')).stdout.includes('REFUSED: no such\\u001b[31m luck'),
  );
});

test('plan shows when and why', async () => {
  const running = await readyAgent();
  const { code, stdout } = await ask(running, 'plan');
  const json = JSON.parse((await ask(running, 'plan', '-o', 'json')).stdout);
  expect(code).toBe(0);
  expect(json.workloads[0].plan.length).toBeGreaterThan(0);
  for (const step of json.workloads[0].plan) expect(stdout).toContain(step.rule);
});

test('rotate turns the key, and with --wait says how many streams have it', async () => {
  const running = await readyAgent();
  const old = serialOf(running);
  const { code, stdout } = await ask(running, 'rotate');
  expect(code).toBe(0);
  expect(serialOf(running)).not.toBe(old);
  expect(stdout).toContain(`serial       ${serialOf(running)}\n`);
  expect(stdout).toContain(`was          ${old}\n`);
  const json = JSON.parse((await ask(running, 'rotate', '--wait', '--output', 'json')).stdout);
  expect(json.workloads[0]).toMatchObject({ id: ID, serial: serialOf(running), acknowledged: 0 });
});

test('rotate --wait ends with 75 when a stream does not acknowledge', async () => {
  const running = await readyAgent();
  const stream = running.client.openStream();
  stream.request(['default'], { node: 'sluggish' });
  await stream.next();
  const { code, stdout, stderr } = await ask(running, 'rotate', '--wait', '--timeout', '300ms');
  expect({ code, stdout }).toEqual({ code: 75, stdout: '' });
  expect(stderr).toMatch(/^keyturn: error: rotate: .*\nkeyturn: hint: .*\n$/);
});

test('secret get shows certificate and roots, and never the key unless asked', async () => {
  const running = await readyAgent();
  const { code, stdout } = await ask(running, 'secret', 'get');
  expect(code).toBe(0);
  expect(stdout).toMatch(/^default: certificate and key, version [0-9a-f]{32}\n/);
  expect(stdout).toContain(`serial       ${serialOf(running)}\n`);
  expect(stdout).toMatch(/^ROOTCA: roots to trust, version [0-9a-f]{32}$/m);
  for (const argv of [[], ['--pem'], ['--output', 'json'], ['--pem', '--output', 'json']]) {
    expect((await ask(running, 'secret', 'get', 'default', ...argv)).stdout).not.toContain(
      'PRIVATE KEY',
    );
  }
  expect((await ask(running, 'secret', 'get', 'default', '--show-private-key')).stdout).toContain(
    '-----BEGIN PRIVATE KEY-----',
  );
  const json = JSON.parse(
    (await ask(running, 'secret', 'get', 'default', '--show-private-key', '-o', 'json')).stdout,
  );
  expect(json.secrets[0]).toMatchObject({
    name: 'default',
    kind: 'certificate',
    privateKeyPem: expect.stringContaining('PRIVATE KEY'),
  });
});

test('cert show reads what secret get --pem prints', async () => {
  const running = await readyAgent();
  const pem = (await ask(running, 'secret', 'get', '--pem')).stdout;
  const { code, stdout } = await keyturn(['cert', 'show', '-'], { cwd: running.dir, stdin: pem });
  expect(code).toBe(0);
  expect(stdout).toMatch(
    /^certificate 1 of 2\n {2}identity {5}spiffe:\/\/cluster\.local\/ns\/default\/sa\/default\n/,
  );
  writeFileSync(join(running.dir, 'chain.pem'), pem);
  const json = JSON.parse(
    (await keyturn(['cert', 'show', 'chain.pem', '--output', 'json'], { cwd: running.dir })).stdout,
  );
  expect(json.certificates).toMatchObject([
    {
      serial: serialOf(running),
      uris: [ID],
      ca: false,
      key: 'ECDSA P-256',
      keyUsage: ['digitalSignature'],
      extendedKeyUsage: ['serverAuth', 'clientAuth'],
    },
    { ca: true, keyUsage: ['keyCertSign', 'cRLSign'] },
  ]);
  expect(
    (await keyturn(['cert', 'show', '--full', 'chain.pem'], { cwd: running.dir })).stdout,
  ).toContain('Subject Alternative Name');
});

test('an unknown secret is an error with its own exit code, whatever else was asked for', async () => {
  const running = await readyAgent();
  const { code, stdout, stderr } = await ask(running, 'secret', 'get', 'default', 'nope');
  expect({ code, stdout }).toEqual({ code: 66, stdout: '' });
  expect(stderr).toMatch(
    /^keyturn: error: secret nope: the agent does not serve that name\nkeyturn: hint: /,
  );
});

test('secret watch prints a line for each change', async () => {
  const running = await readyAgent();
  const watching = ask(running, 'secret', 'watch', 'default', '--count', '2', '--output', 'json');
  await until(
    'the watcher to have the first',
    async () => running.workload().sds.streams[0]?.names[0]?.acknowledgedVersion !== undefined,
  );
  const first = serialOf(running);
  await running.agent.view.rotate({ wait: true, reason: 'test' }, new AbortController().signal);
  const { code, stdout } = await watching;
  expect(code).toBe(0);
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines.map((line) => line.certificates[0].serial)).toEqual([first, serialOf(running)]);
  expect(stdout).not.toContain('PRIVATE KEY');
});

test('bootstrap names the socket of the agent by its absolute path', async () => {
  const { stdout } = await keyturn(
    ['bootstrap', '--sds-socket', './run/sds', '--peer', '10.0.0.7:8443', '--peer-id', ID],
    {
      cwd: '/srv/app',
    },
  );
  const bootstrap = JSON.parse(stdout);
  expect(stdout).toContain('"/srv/app/run/sds"');
  expect(bootstrap.static_resources.listeners).toHaveLength(1);
});

test('healthcheck exits by whether the agent is ready, and wait returns when it is', async () => {
  const running = await readyAgent();
  expect(await ask(running, 'healthcheck')).toMatchObject({ code: 0, stdout: '', stderr: '' });
  expect(await ask(running, 'wait', '--timeout', '10s')).toMatchObject({ code: 0, stderr: '' });
  await running.close();
  const none = await ask(running, 'healthcheck');
  expect(none.code).toBe(69);
  const late = await ask(running, 'wait', '--timeout', '300ms');
  expect(late.code).toBe(75);
  expect(late.stderr).toMatch(/^not ready: control socket .*control\.sock/);
});

test('wait waits for an agent that is yet to start', async () => {
  let waiting: ReturnType<typeof keyturn> | undefined;
  await runAgent((dir) => {
    const env = { KEYTURN_CONTROL_SOCKET: join(dir, 'control.sock') };
    waiting = keyturn(['wait', '--timeout', '20s'], { cwd: dir, env });
    return {};
  });
  expect(await waiting).toMatchObject({ code: 0, stderr: '' });
});
