import { spawnSync } from 'node:child_process';
import { chmodSync, lstatSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { AgentStatus, AgentView, RotateResult } from '../../../agent/admin/agent-view';
import { callControl } from '../../../agent/admin/control-client';
import {
  createControlServer,
  type PlanAnswer,
  parseRotateRequest,
} from '../../../agent/admin/control-server';
import { systemClock } from '../../../agent/base/clock';
import { AgentError } from '../../../agent/base/errors';
import { noLog } from '../../../agent/base/log';
import { noMetrics } from '../../../agent/base/metrics';
import { fakeView } from '../../support/fake-view';
import { tempDir } from '../../support/temp-dir';

const deps = { clock: systemClock, random: () => 0, log: noLog, metrics: noMetrics };
const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

async function start(view: AgentView = fakeView()): Promise<string> {
  const path = join(tempDir(), 'run/control.sock');
  open.push(await createControlServer({ path, view }, deps));
  return path;
}

function post(
  socketPath: string,
  body: string,
): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method: 'POST', path: '/rotate' }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, body: text }));
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

describe('the control socket', () => {
  test('is the owner only to use', async () => {
    expect(lstatSync(await start()).mode & 0o777).toBe(0o600);
  });

  test('tells status, plan and settings', async () => {
    const path = await start();
    expect(await callControl<AgentStatus>(path, 'GET', '/status')).toEqual(fakeView().status());
    const plan = await callControl<PlanAnswer>(path, 'GET', '/plan');
    expect(plan.workloads[0]).toMatchObject({
      state: 'current',
      plan: [{ rule: 'half of the remaining validity' }],
    });
    expect(await callControl(path, 'GET', '/settings')).toEqual([
      { name: 'ttl', value: '24h', origin: 'default' },
    ]);
  });

  test('tells of one workload of a list what it tells of all, its reasons only, and which there is not', async () => {
    const workload = (name: string) => ({ ...fakeView().status().workloads[0]!, name });
    const refused = [
      {
        name: 'bad',
        file: 'bad.yaml',
        code: 'ERR_CONFIG',
        message: 'workload bad: no',
        outcome: 'refused' as const,
        inService: false,
      },
    ];
    const status = {
      workloads: [workload('cart'), workload('till')],
      ready: false,
      reasons: ['workload till: gone', 'workload bad: no'],
      refused,
    };
    const path = await start(fakeView({ status }));
    const ask = (name: string) => callControl<AgentStatus>(path, 'GET', `/status?workload=${name}`);
    expect(await ask('cart')).toMatchObject({
      ready: true,
      reasons: [],
      workloads: [{ name: 'cart' }],
    });
    expect(await ask('till')).toMatchObject({ ready: false, reasons: ['workload till: gone'] });
    expect(await ask('bad')).toMatchObject({ ready: false, workloads: [], refused });
    expect((await ask('cart')).refused).toBeUndefined();
    const plan = await callControl<PlanAnswer>(path, 'GET', '/plan?workload=till');
    expect(plan.workloads.map(({ name }) => name)).toEqual(['till']);
    await expect(ask('nobody')).rejects.toMatchObject({
      code: 'ERR_USAGE',
      message: 'workload: "nobody" is not in the list',
    });
  });

  test('rotates with what was asked, and with defaults', async () => {
    const asked: unknown[] = [];
    const view = fakeView({
      rotate: async (how) => {
        asked.push(how);
        return { workloads: [] };
      },
    });
    const path = await start(view);
    expect(
      await callControl<RotateResult>(path, 'POST', '/rotate', {
        wait: true,
        reason: 'drill',
        timeoutMs: 1_000,
      }),
    ).toEqual({
      workloads: [],
    });
    await callControl(path, 'POST', '/rotate');
    expect(asked).toEqual([
      { wait: true, reason: 'drill' },
      { wait: false, reason: 'requested over the control socket' },
    ]);
  });

  test("hands the agent's error through as it was", async () => {
    const error = new AgentError('ERR_CA_UNAVAILABLE', 'sign: the CA is away', {
      hint: 'wait',
      cause: new Error('secret cause'),
    });
    const path = await start(fakeView({ rotate: () => Promise.reject(error) }));
    await expect(callControl(path, 'POST', '/rotate', {})).rejects.toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      message: 'sign: the CA is away',
      hint: 'wait',
    });
    const reply = await post(path, '{}');
    expect(reply.status).toBe(502);
    expect(reply.body).not.toContain('secret cause');
  });

  test('at its deadline gives the agent the last word, and ends even an agent that says none', async () => {
    const heeds = fakeView({
      rotate: (_, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () =>
            setTimeout(() => reject(new AgentError('ERR_TIMEOUT', 'stream 7 is behind')), 20),
          );
        }),
    });
    await expect(
      callControl(await start(heeds), 'POST', '/rotate', { timeoutMs: 30 }),
    ).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: 'stream 7 is behind',
    });
    const path = await start(fakeView({ rotate: () => new Promise(() => undefined) }));
    await expect(callControl(path, 'POST', '/rotate', { timeoutMs: 30 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: 'rotate: not done within 0.03 s',
    });
  });

  test('tells the agent when whoever waited has gone', async () => {
    let aborted: (value: unknown) => void;
    const heard = new Promise((resolve) => {
      aborted = resolve;
    });
    const view = fakeView({
      rotate: (_, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            aborted(signal.reason);
            reject(signal.reason);
          });
        }),
    });
    const path = await start(view);
    const leaving = new AbortController();
    const call = callControl(path, 'POST', '/rotate', { wait: true }, { signal: leaving.signal });
    setTimeout(() => leaving.abort(), 50);
    await expect(call).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(await heard).toMatchObject({ code: 'ERR_ABORTED' });
  });

  test.each([
    ['GET', '/rotate'],
    ['POST', '/status'],
    ['GET', '/'],
    ['GET', '/status/../settings'],
    ['GET', '/constructor'],
  ] as const)('does not know %s %s', async (method, path) => {
    await expect(callControl(await start(), method, path)).rejects.toMatchObject({
      code: 'ERR_USAGE',
    });
  });

  test.each([
    ['rotate request: must be JSON', 'not json'],
    ['rotate request: must be a JSON object', '[]'],
    ['rotate request: must be a JSON object', 'null'],
    ['wait: must be true or false', '{"wait":"yes"}'],
    ['timeoutMs: must be a whole number from 1 to 3600000', '{"timeoutMs":0}'],
    ['timeoutMs: must be a whole number from 1 to 3600000', '{"timeoutMs":1.5}'],
    ['timeoutMs: must be a whole number from 1 to 3600000', '{"timeoutMs":1e99}'],
    ['reason: must be text of at most 200 characters', `{"reason":"${'x'.repeat(201)}"}`],
    ['rotate request: has an unknown field "force"', '{"force":true}'],
    ['control request: must not be longer than 65536 bytes', 'x'.repeat(70_000)],
  ])('refuses: %s', async (message, body) => {
    const reply = await post(await start(), body);
    expect(reply.status).toBe(400);
    expect(JSON.parse(reply.body).error).toMatchObject({ code: 'ERR_USAGE', message });
  });

  test('a rotate request is either refused with a typed error or within its limits, whatever the text', () => {
    const member = fc.record(
      {
        wait: fc.jsonValue(),
        timeoutMs: fc.oneof(fc.jsonValue(), fc.integer()),
        reason: fc.jsonValue(),
        __proto__: fc.jsonValue(),
      },
      { requiredKeys: [] },
    );
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      member.map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(text, (given) => {
        try {
          const { wait, timeoutMs, reason } = parseRotateRequest(given);
          return (
            typeof wait === 'boolean' &&
            timeoutMs >= 1 &&
            timeoutMs <= 3_600_000 &&
            reason.length <= 200
          );
        } catch (err) {
          return (
            err instanceof AgentError &&
            err.code === 'ERR_USAGE' &&
            err.field !== undefined &&
            err.rule !== undefined
          );
        }
      }),
      { numRuns: 10_000 },
    );
  });

  test('survives garbage, silence and more connections than it takes', async () => {
    const path = await start();
    const garbage = connect(path, () => garbage.write('\x00\xff\x16garbage\r\n\r\n'));
    await new Promise((resolve) =>
      garbage
        .on('close', resolve)
        .on('error', () => undefined)
        .resume(),
    );
    const silent = Array.from({ length: 40 }, () => connect(path).on('error', () => undefined));
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const socket of silent) socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await callControl(path, 'GET', '/settings')).toHaveLength(1);
  });

  test('goes away at close, with a rotation still waiting', async () => {
    const path = await start(fakeView({ rotate: () => new Promise(() => undefined) }));
    const call = callControl(path, 'POST', '/rotate', {}).catch((err) => err);
    await new Promise((resolve) => setTimeout(resolve, 30));
    await open.pop()!.close();
    expect(await call).toMatchObject({ code: 'ERR_CONTROL' });
    expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });
});

describe('whoever calls the control socket', () => {
  const hint = expect.stringContaining('is keyturn run running?');

  test('is told that no agent runs: no file, no directory, a dead socket, a plain file', async () => {
    const dir = tempDir();
    await expect(callControl(join(dir, 'none'), 'GET', '/status')).rejects.toMatchObject({
      code: 'ERR_CONTROL',
      hint,
    });
    const dead = join(dir, 'dead');
    const script = `require('net').createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    await expect(callControl(dead, 'GET', '/status')).rejects.toMatchObject({
      code: 'ERR_CONTROL',
      hint,
    });
    const file = join(dir, 'file');
    writeFileSync(file, '');
    await expect(callControl(file, 'GET', '/status')).rejects.toMatchObject({
      code: 'ERR_CONTROL',
      hint,
    });
    await expect(callControl(join(file, 'below'), 'GET', '/status')).rejects.toMatchObject({
      code: 'ERR_CONTROL',
      hint,
    });
  });

  test('is told that the socket is another user’s', async () => {
    const path = await start();
    chmodSync(path, 0o000);
    const user = process.geteuid!();
    // Root passes every mode, so for one call we are nobody.
    if (user === 0) process.seteuid!(65_534);
    try {
      await expect(callControl(path, 'GET', '/status')).rejects.toMatchObject({
        code: 'ERR_CONTROL',
        message: expect.stringContaining('permission denied'),
        hint: expect.stringContaining('as root or as the user'),
      });
    } finally {
      if (user === 0) process.seteuid!(user);
    }
  });

  test('is told when something else answers there', async () => {
    const path = join(tempDir(), 'other');
    for (const [status, text] of [
      [200, 'hello'],
      [500, '{}'],
      [500, '{"error":{"code":"nonsense","message":"x"}}'],
      [404, 'null'],
    ] as const) {
      const other = createServer((_, response) => response.writeHead(status).end(text));
      await new Promise<void>((resolve) => other.listen(path, resolve));
      await expect(callControl(path, 'GET', '/status')).rejects.toMatchObject({
        code: 'ERR_CONTROL',
        hint: expect.stringContaining('something other than keyturn'),
      });
      other.closeAllConnections();
      await new Promise((resolve) => other.close(resolve));
    }
  });

  test('does not wait for ever', async () => {
    const path = join(tempDir(), 'mute');
    const mute = createServer(() => undefined);
    await new Promise<void>((resolve) => mute.listen(path, resolve));
    await expect(
      callControl(path, 'GET', '/status', undefined, { timeoutMs: 50 }),
    ).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    mute.closeAllConnections();
    await new Promise((resolve) => mute.close(resolve));
  });
});
