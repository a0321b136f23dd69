import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { systemClock, withDeadline } from '../../../agent/base/clock';
import { loadKubeConfig } from '../../../agent/kube/kube-config';
import { outcomeOf } from '../../support/outcome';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const signal = new AbortController().signal;

/** A kubeconfig with one context, changed as told, in a folder of its own. */
function write(
  parts: { cluster?: object; user?: object; context?: object; top?: object } = {},
): string {
  const path = join(tempDir(), 'kubeconfig');
  const file = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    contexts: [
      { name: 'elsewhere', context: { cluster: 'none', user: 'none' } },
      { name: 'here', context: { cluster: 'c', user: 'u', namespace: 'shop', ...parts.context } },
    ],
    clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:6443', ...parts.cluster } }],
    users: [{ name: 'u', user: { ...parts.user } }],
    ...parts.top,
  };
  writeFileSync(path, JSON.stringify(file));
  return path;
}

const load = (
  kubeconfig: string | undefined,
  env: Record<string, string | undefined> = {},
  serviceAccountDir = '/nowhere',
) => loadKubeConfig({ kubeconfig, env, serviceAccountDir }, testDeps());

/** Credentials as text. */
async function credentialsOf(kubeconfig: string, env: Record<string, string | undefined> = {}) {
  const { caPem, token, client } = await (await load(kubeconfig, env)).credentials(false, signal);
  return {
    ca: caPem?.toString(),
    token: token?.reveal(),
    certificate: client?.certificatePem.toString(),
    key: client?.keyPem.reveal().toString(),
  };
}

describe('where the Kubernetes API is', () => {
  test('is read from the current context', async () => {
    const config = await load(
      write({
        cluster: { 'tls-server-name': 'kubernetes', server: 'https://api.example:6443/prefix/' },
      }),
    );
    expect(config).toMatchObject({
      server: 'https://api.example:6443/prefix',
      serverName: 'kubernetes',
      namespace: 'shop',
    });
    expect(config.origin).toMatch(/^kubeconfig \//);
  });

  test('is read from YAML as kubectl writes it', async () => {
    const path = join(tempDir(), 'config');
    writeFileSync(
      path,
      `apiVersion: v1
kind: Config
preferences: {}
current-context: "here"
contexts:
- context:
    cluster: c
    user: u
  name: here
clusters:
- cluster:
    server: https://[::1]:6443
  name: c
users:
- name: u
  user:
    token: abc # of a robot
`,
    );
    expect(await load(path)).toMatchObject({ server: 'https://[::1]:6443', namespace: undefined });
    expect(await credentialsOf(path)).toEqual({
      ca: undefined,
      token: 'abc',
      certificate: undefined,
      key: undefined,
    });
  });

  test('is the file that is named, else KUBECONFIG, else that of the pod', async () => {
    const [named, other] = [
      write({ context: { namespace: 'named' } }),
      write({ context: { namespace: 'environment' } }),
    ];
    const pod = { KUBERNETES_SERVICE_HOST: '10.0.0.1' };
    expect((await load(named, { ...pod, KUBECONFIG: other })).namespace).toBe('named');
    expect((await load(undefined, { ...pod, KUBECONFIG: other })).namespace).toBe('environment');
    expect((await load(undefined, pod)).server).toBe('https://10.0.0.1');
    await expect(load(undefined, { HOME: dirname(named) })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      hint: expect.stringContaining('--kubeconfig'),
    });
  });

  test('in a pod comes from its environment and its service account, whose token is read anew each time', async () => {
    const dir = tempDir();
    const files = { token: 'first\n', 'ca.crt': 'root', namespace: 'shop' };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
    const config = await load(
      undefined,
      { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' },
      dir,
    );
    expect(config).toMatchObject({
      server: 'https://[fd00::1]:6443',
      namespace: 'shop',
      origin: 'in-cluster configuration',
    });
    const read = async () => (await config.credentials(false, signal)).token?.reveal();
    expect(await read()).toBe('first');
    writeFileSync(join(dir, 'token'), 'second');
    expect(await read()).toBe('second');
    expect((await config.credentials(false, signal)).caPem?.toString()).toBe('root');
  });

  test.each([
    [
      'no current context',
      { top: { 'current-context': '' } },
      'current-context',
      'must name a context',
    ],
    [
      'a context that is not there',
      { top: { 'current-context': 'gone' } },
      'contexts',
      'must hold "gone"',
    ],
    [
      'a cluster that is not there',
      { context: { cluster: 'gone' } },
      'clusters',
      'must hold "gone"',
    ],
    ['a user that is not there', { context: { user: 'gone' } }, 'users', 'must hold "gone"'],
    ['clusters that are no list', { top: { clusters: {} } }, 'clusters', 'must be a list'],
    [
      'no server',
      { cluster: { server: '' } },
      'clusters "c": cluster: server',
      'must not be empty',
    ],
    [
      'a server in the clear',
      { cluster: { server: 'http://127.0.0.1:8080' } },
      'cluster: server',
      'must be an https URL, not http://127.0.0.1:8080',
    ],
    [
      'a server that is none',
      { cluster: { server: 'here' } },
      'cluster: server',
      'must be an https URL, not here',
    ],
    [
      'no verification',
      { cluster: { 'insecure-skip-tls-verify': true } },
      'insecure-skip-tls-verify',
      'must not be set',
    ],
    ['a proxy', { cluster: { 'proxy-url': 'http://proxy' } }, 'proxy-url', 'is not supported'],
    ['impersonation', { user: { as: 'admin' } }, 'user: as', 'is not supported'],
    [
      'a password',
      { user: { username: 'u', password: 'p' } },
      'user: username',
      'is not supported',
    ],
    [
      'a plugin of old',
      { user: { 'auth-provider': { name: 'gcp' } } },
      'user: auth-provider',
      'is not supported',
    ],
    [
      'a certificate without its key',
      { user: { 'client-certificate': 'c.pem' } },
      'user: client-certificate',
      'must come with client-key',
    ],
    [
      'damaged data',
      { cluster: { 'certificate-authority-data': '%%%' } },
      'certificate-authority-data',
      'must be base64',
    ],
    ['a token that is a number', { user: { token: 5 } }, 'user: token', 'must be a string'],
    [
      'a plugin of another version',
      { user: { exec: { apiVersion: 'v0', command: 'x' } } },
      'exec: apiVersion',
      'must be client.authentication.k8s.io/v1',
    ],
    [
      'a plugin that asks a person',
      {
        user: {
          exec: {
            apiVersion: 'client.authentication.k8s.io/v1',
            command: 'x',
            interactiveMode: 'Always',
          },
        },
      },
      'exec: interactiveMode',
      'must not be Always',
    ],
    [
      'a plugin without a name',
      { user: { exec: { apiVersion: 'client.authentication.k8s.io/v1' } } },
      'exec: command',
      'must not be empty',
    ],
  ])('is refused with %s', async (_, parts, field, rule) => {
    const refusal = await outcomeOf(load(write(parts)));
    expect(refusal).toMatchObject({
      field: expect.stringContaining(field),
      rule: expect.stringContaining(rule),
    });
  });

  test.each([
    ['not there', undefined, 'there is no such file'],
    ['a list of paths', '/a:/b', 'must be one file'],
    ['not YAML', '{', 'is not YAML'],
    ['a list', '[]', 'must be a mapping'],
    ['full of aliases', 'a: &a [x]\nb: *a\n', 'aliases are not allowed'],
  ])('is refused in a file that is %s', async (_, text, rule) => {
    const path = text?.startsWith('/') ? text : join(tempDir(), 'config');
    if (text !== undefined && path !== text) writeFileSync(path, text);
    await expect(load(path)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining(rule),
    });
  });
});

describe('what proves us to the Kubernetes API', () => {
  test('is a client certificate, from data or from files beside the kubeconfig that are read anew each time', async () => {
    const data = (text: string) => Buffer.from(text).toString('base64');
    const inline = write({
      cluster: { 'certificate-authority-data': data('root') },
      user: {
        'client-certificate-data': data('cert'),
        'client-key-data': data('key'),
        token: 'ignored',
      },
    });
    expect(await credentialsOf(inline)).toEqual({
      ca: 'root',
      token: undefined,
      certificate: 'cert',
      key: 'key',
    });
    const files = write({
      cluster: { 'certificate-authority': 'pki/ca' },
      user: { 'client-certificate': 'pki/c', 'client-key': 'pki/k' },
    });
    const dir = join(dirname(files), 'pki');
    mkdirSync(dir);
    const config = await load(files);
    await expect(config.credentials(false, signal)).rejects.toMatchObject({
      code: 'ERR_TOKEN',
      retry: 'soon',
    });
    for (const [name, text] of [
      ['ca', 'root'],
      ['c', 'cert'],
      ['k', 'key'],
    ] as const)
      writeFileSync(join(dir, name), text);
    expect((await config.credentials(false, signal)).client?.certificatePem.toString()).toBe(
      'cert',
    );
  });

  test('is a token file before a token', async () => {
    const path = write({ user: { tokenFile: 'token', token: 'stale' } });
    writeFileSync(join(dirname(path), 'token'), 'fresh\n');
    expect((await credentialsOf(path)).token).toBe('fresh');
  });
});

describe('an exec plugin', () => {
  const API = 'client.authentication.k8s.io/v1';

  /** A kubeconfig whose plugin is a shell script beside it; `runs` counts. */
  function plugin(script: string, exec: object = {}, cluster: object = {}) {
    const path = write({
      cluster,
      user: { exec: { apiVersion: API, command: './plugin', ...exec } },
    });
    const dir = dirname(path);
    writeFileSync(join(dir, 'plugin'), `#!/bin/sh\necho x >> ${join(dir, 'runs')}\n${script}\n`);
    chmodSync(join(dir, 'plugin'), 0o755);
    return { path, dir, runs: () => readFileSync(join(dir, 'runs'), 'utf8').length / 2 };
  }
  const says = (status: object, kind = 'ExecCredential') =>
    `cat <<'END'\n${JSON.stringify({ apiVersion: API, kind, status })}\nEND`;
  const env = { PATH: process.env.PATH };

  test('is run with its arguments as they are, its environment and what it asks to know, and answers a token', async () => {
    const script = `printf '%s|' "$@" "$MODE" "$KUBERNETES_EXEC_INFO" > "$OUT"\n${says({ token: 'from-plugin' })}`;
    const out = join(tempDir(), 'seen');
    const { path } = plugin(
      script,
      {
        args: ['a b', '$(id)', "'"],
        env: [
          { name: 'MODE', value: 'robot' },
          { name: 'OUT', value: out },
        ],
        provideClusterInfo: true,
      },
      { 'certificate-authority-data': Buffer.from('root').toString('base64') },
    );
    expect((await credentialsOf(path, env)).token).toBe('from-plugin');
    const [first, second, third, mode, info] = readFileSync(out, 'utf8').split('|');
    expect([first, second, third, mode]).toEqual(['a b', '$(id)', "'", 'robot']);
    expect(JSON.parse(info!)).toEqual({
      apiVersion: API,
      kind: 'ExecCredential',
      spec: {
        interactive: false,
        cluster: {
          server: 'https://127.0.0.1:6443',
          'certificate-authority-data': Buffer.from('root').toString('base64'),
        },
      },
    });
  });

  test('answers a client certificate', async () => {
    const { path } = plugin(says({ clientCertificateData: 'cert', clientKeyData: 'key' }));
    expect(await credentialsOf(path, env)).toEqual({
      ca: undefined,
      token: undefined,
      certificate: 'cert',
      key: 'key',
    });
  });

  test('is not run again before its answer expires, but then, and after a refusal', async () => {
    const clock = new TestClock();
    const expires = new Date(clock.now() + 60_000).toISOString();
    const { path, runs } = plugin(says({ token: 'one', expirationTimestamp: expires }));
    const config = await loadKubeConfig({ kubeconfig: path, env }, testDeps({ clock }));
    await Promise.all([config.credentials(false, signal), config.credentials(false, signal)]);
    await config.credentials(false, signal);
    expect(runs()).toBe(1);
    await config.credentials(true, signal);
    expect(runs()).toBe(2);
    await clock.advanceTo(clock.now() + 60_000);
    await expect(config.credentials(false, signal)).rejects.toMatchObject({
      code: 'ERR_TOKEN',
      field: expect.stringContaining('expirationTimestamp'),
    });
    expect(runs()).toBe(3);
  });

  test.each([
    ['fails', 'echo hidden-token; echo hidden-token >&2; exit 3', 'it ended with status 3'],
    ['says nothing', 'true', 'output: must be a JSON object'],
    ['says something else', 'echo hidden-token', 'output: must be a JSON object'],
    [
      'is of another kind',
      says({ token: 'hidden-token' }, 'Other'),
      'kind: must be ExecCredential',
    ],
    ['has nothing to give', says({}), 'status: must hold a token or a client certificate'],
    [
      'gives half a pair',
      says({ clientCertificateData: 'cert' }),
      'status.clientKeyData: must come with clientCertificateData',
    ],
    [
      'gives a token of two lines',
      says({ token: 'hidden-token\nx' }),
      'status.token: must be one word of ASCII',
    ],
    [
      'gives a time that is none',
      says({ token: 'x', expirationTimestamp: 'tomorrow' }),
      'expirationTimestamp: must be an RFC 3339 time',
    ],
    [
      'talks without end',
      'while :; do echo 0123456789012345678901234567890123456789; done',
      'ERR_CHILD_PROCESS_STDIO_MAXBUFFER',
    ],
  ])('that %s is refused, without quoting it', async (_, script, message) => {
    const { path } = plugin(script);
    const error = await (await load(path, env))
      .credentials(false, signal)
      .catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      code: 'ERR_TOKEN',
      retry: 'slow',
      message: expect.stringContaining(message),
    });
    expect(String(error)).not.toContain('hidden-token');
  });

  test('that is not there is named', async () => {
    const path = write({ user: { exec: { apiVersion: API, command: 'no-such-helper' } } });
    await expect((await load(path, env)).credentials(false, signal)).rejects.toMatchObject({
      code: 'ERR_TOKEN',
      message: 'run no-such-helper for a Kubernetes credential: ENOENT',
    });
  });

  test('field: that takes longer than a request may goes on for the next one', async () => {
    const { path, dir, runs } = plugin(
      `while [ ! -e "$GO" ]; do sleep 0.05; done\n${says({ token: 'late' })}`,
    );
    const go = join(dir, 'go');
    const config = await load(path, { ...env, GO: go });
    const ask = (ms: number) =>
      withDeadline(systemClock, ms, 'ask', signal, (bounded) => config.credentials(false, bounded));
    for (const _ of ['first', 'second'])
      await expect(ask(300)).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    writeFileSync(go, '');
    expect((await ask(20_000)).token?.reveal()).toBe('late');
    expect(runs()).toBe(1);
  });

  test('that hangs ends with the last who waits for it', async () => {
    const { path, runs } = plugin('exec sleep 60');
    const config = await load(path, env);
    const [first, second] = [AbortSignal.timeout(150), AbortSignal.timeout(500)];
    const startedAt = Date.now();
    const waiting = [config.credentials(false, first), config.credentials(false, second)];
    await expect(waiting[0]).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(waiting[1]).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(450);
    expect(runs()).toBe(1);
  });
});
