import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { version } from '../../package.json';
import { programCommand } from '../support/program';
import { END_STREAM, message, openCall, PREFACE, rawConnect } from '../support/raw-http2';
import { sotwRequest } from '../support/sds-client';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

// Only `scripts/test --standalone` runs what is in this folder.

const ROOT = resolve(__dirname, '../..');
const [executable] = programCommand('standalone');

/** Runs a command of the executable with nothing around it that it could need. */
function keyturn(args: readonly string[], cwd = '/', env: Readonly<Record<string, string>> = {}) {
  const { status, stdout, stderr } = spawnSync(executable, args, {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 20_000,
  });
  return { status, stdout, stderr };
}

test('the executable needs no Node.js and no files, and says what it is made of', () => {
  const { status, stdout, stderr } = keyturn(['version', '--output', 'json']);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({
    version,
    runtime: expect.stringMatching(/^bun \d+\.\d+\.\d+$/),
    crypto: expect.stringMatching(/^BoringSSL [0-9a-f]{12}$/),
    platform: `${process.platform} ${process.arch}`,
  });
});

test('it has the same bytes wherever it is built', () => {
  const elsewhere = tempDir();
  for (const each of [
    'agent',
    'sds',
    'ca-client',
    'scripts',
    'package.json',
    'package-lock.json',
    'tsconfig.json',
    '.npmrc',
  ]) {
    cpSync(join(ROOT, each), join(elsewhere, each), { recursive: true });
  }
  const packages = readFileSync(`${executable}.LICENSES.txt`, 'utf8').matchAll(
    /^(\S+) \d+\.\d+\.\d+ \(/gm,
  );
  for (const name of ['.package-lock.json', ...[...packages].map(([, name]) => name!)].filter(
    (name) => name !== 'Bun',
  )) {
    cpSync(join(ROOT, 'node_modules', name), join(elsewhere, 'node_modules', name), {
      recursive: true,
    });
  }
  for (const name of ['.bin', 'node'])
    symlinkSync(join(ROOT, 'node_modules', name), join(elsewhere, 'node_modules', name));
  // Older than what is installed, or it would be installed anew.
  utimesSync(join(elsewhere, 'package-lock.json'), 0, 0);
  const { status, stdout, stderr } = spawnSync(join(elsewhere, 'scripts/build'), ['--standalone'], {
    encoding: 'utf8',
  });
  expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  expect(readFileSync(stdout.trim()).equals(readFileSync(executable))).toBe(true);
});

test('its licences name Bun and every package in it', () => {
  const licences = readFileSync(`${executable}.LICENSES.txt`, 'utf8');
  for (const name of [
    'Bun',
    '@grpc/grpc-js',
    '@peculiar/x509',
    'chokidar',
    'commander',
    'prom-client',
    'yaml',
  ]) {
    expect(licences).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(.+\\)`, 'm'));
  }
  expect(licences).not.toContain('@grpc/proto-loader');
});

describe('it takes nothing from the directory that it is started in', () => {
  test('no code and no settings of a runtime', () => {
    const dir = tempDir();
    writeFileSync(join(dir, 'code.js'), 'console.log("I am inside"); process.exit(3);');
    const bunfig = 'preload = ["./code.js"]\n[run]\npreload = ["./code.js"]\n';
    for (const name of ['bunfig.toml', '.bunfig.toml']) writeFileSync(join(dir, name), bunfig);
    writeFileSync(
      join(dir, 'package.json'),
      '{"type":"module","imports":{"#x":"./code.js"},"main":"./code.js"',
    );
    writeFileSync(join(dir, 'tsconfig.json'), '{"compilerOptions":{"paths":{"*":["./code.js"]}}');
    const { status, stdout, stderr } = keyturn(['--version'], dir, {
      HOME: dir,
      XDG_CONFIG_HOME: dir,
    });
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: `keyturn ${version}\n`,
      stderr: '',
    });
  });

  test('no environment', () => {
    const dir = tempDir();
    for (const name of ['.env', '.env.local', '.env.production', '.env.development']) {
      writeFileSync(join(dir, name), 'KEYTURN_TRUST_DOMAIN=evil.example\nKEYTURN_CA=builtin\n');
    }
    const { status, stdout } = keyturn(['config', 'show', '--ca', 'file'], dir);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^trust-domain +cluster\.local +default$/m);
  });
});

describe('G9 the environment of its runtime', () => {
  test.each([
    ['BUN_OPTIONS', '--preload ./nothing.cjs'],
    ['BUN_INSPECT', '127.0.0.1:0'],
    ['BUN_INSPECT_PRELOAD', './nothing.cjs'],
    ['BUN_CRASH_REPORT_URL', 'http://127.0.0.1:9'],
    ['BUN_CONFIG_VERBOSE_FETCH', 'curl'],
    ['BUN_JSC_configFile', './nothing.cjs'],
    ['BUN_RUNTIME_TRANSPILER_CACHE_PATH', '.'],
    ['BUN_A_VARIABLE_OF_NEXT_YEAR', '1'],
  ])('with %s is refused', (name, value) => {
    const dir = tempDir();
    writeFileSync(join(dir, 'nothing.cjs'), '');
    const { status, stderr } = keyturn(['run', '--ca', 'builtin'], dir, { [name]: value });
    expect(status).toBe(78);
    expect(stderr).toContain(`environment ${name}:`);
  });
});

test('a client that has asked once may be quiet for as long as it likes', async () => {
  const daemon = testDaemon({ dir: tempDir() });
  await daemon.ready();
  const client = await rawConnect(daemon.sdsSocket);
  client.send(
    PREFACE,
    openCall(1, 'FetchSecrets'),
    message(1, sotwRequest(['default']), { flags: END_STREAM }),
  );
  await until('the answer', async () => client.ended(1));
  await new Promise((done) => setTimeout(done, 10_000));
  expect(client.socket.destroyed).toBe(false);
  client.destroy();
});
