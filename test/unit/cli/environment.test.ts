import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import {
  neutraliseEnvironment,
  refuseDangerousSurroundings,
  tellOfIgnored,
} from '../../../agent/cli/environment';
import { keyturn } from '../../support/command-line';
import { outcome } from '../../support/outcome';
import { testDeps } from '../../support/test-deps';

const judge = (env: NodeJS.ProcessEnv, runtimeSwitches: readonly string[] = []) =>
  refuseDangerousSurroundings({ env, runtimeSwitches });

/** Spellings that Node.js takes of switches that are none of those that pass. */
const FOREIGN = [
  '--inspect',
  '--inspect-brk=0.0.0.0:9229',
  '--require=/tmp/x.js',
  '-r',
  '--import=/tmp/x.mjs',
  '--experimental-loader=x',
  '--tls-keylog=/tmp/keys',
  '--tls_keylog=/tmp/keys',
  '--tls-min-v1.0',
  '--tls_min_v1.0',
  '--tls-cipher-list=NULL',
  '--openssl-config=/tmp/x.cnf',
  '--use-openssl-ca',
  '--use_system_ca',
  '--heapsnapshot-signal=SIGUSR2',
  '--heapsnapshot_near_heap_limit=3',
  '--report_on_signal',
  '--trace-env',
  '--cpu-prof',
  '--env-file=x',
  '--a-switch-of-next-year',
  '--max-old-space-size=/tmp/x',
  '--no-warnings=x',
  '/tmp/x.js',
];

describe('G9 the environment of a process that holds keys', () => {
  test.each(FOREIGN)(
    '%s is refused in NODE_OPTIONS, whatever stands beside it, and on the command line',
    (word) => {
      const rule = `must not have ${word.split('=')[0]} in a process that holds keys`;
      for (const options of [
        word,
        `--no-warnings ${word}`,
        `"${word}"`,
        `--max-old-space-size=64 "${word}`,
        `  ${word}  `,
      ]) {
        expect(outcome(() => judge({ NODE_OPTIONS: options }))).toEqual({
          field: 'environment NODE_OPTIONS',
          rule,
        });
      }
      expect(outcome(() => judge({}, ['--no-warnings', word]))).toEqual({
        field: 'command line of Node.js',
        rule,
      });
    },
  );

  test.each([
    ['LD_PRELOAD', 'its library runs inside a process that holds keys'],
    ['LD_AUDIT', 'its library runs inside a process that holds keys'],
    ['OPENSSL_CONF', 'its file changes TLS and can load libraries'],
    ['OPENSSL_MODULES', 'libraries are loaded from there'],
    ['OPENSSL_ENGINES', 'libraries are loaded from there'],
    ['NODE_COMPILE_CACHE', 'compiled code is loaded from there'],
    ['NODE_DEBUG', 'it writes tokens to the log'],
    ['NODE_DEBUG_NATIVE', 'it writes to the log what the runtime does with keys'],
    ['NODE_ICU_DATA', 'tables of the runtime are read from there'],
    ['NODE_REDIRECT_WARNINGS', 'the runtime writes to that file'],
    ['NODE_V8_COVERAGE', 'the runtime opens its inspector and writes files there'],
    ['NODE_USE_ENV_PROXY', 'no connection goes through a proxy'],
  ])('%s is refused: it cannot be undone', (name, why) => {
    expect(outcome(() => judge({ [name]: 'x' }))).toEqual({
      field: `environment ${name}`,
      rule: `must not be set: ${why}`,
    });
    judge({ [name]: '' });
  });

  test.each([
    {},
    { NODE_OPTIONS: '' },
    { NODE_OPTIONS: '--max-old-space-size=64 --disable-sigusr1 --no-warnings' },
    { NODE_OPTIONS: ' "--max_old_space_size=64"  --dns-result-order=ipv4first ' },
    {
      NODE_OPTIONS: '--max-semi-space-size=1',
      HTTPS_PROXY: 'http://proxy:3128',
      LD_LIBRARY_PATH: '/opt/lib',
      NODE_NAME: 'worker-1',
    },
  ])('%j is left alone', (env) => {
    const before = { ...env };
    judge(env);
    expect(neutraliseEnvironment(env)).toEqual([]);
    expect(env).toEqual(before);
  });

  test('docs/supported-platforms.md names the switches that pass', async () => {
    const page = readFileSync(join(__dirname, '../../../docs/supported-platforms.md'), 'utf8');
    const { stderr } = await keyturn(['version'], { cwd: '/', runtimeSwitches: ['--inspect'] });
    const names = stderr.trim().split('permitted are ')[1]!.split(', ');
    expect(names.length).toBeGreaterThan(5);
    for (const name of names) expect(page).toContain(`\`${name}\``);
  });

  test('switches that pass may be on the command line too', () =>
    judge({}, ['--max-old-space-size=64', '--trace_warnings']));

  test.each([
    ['NODE_TLS_REJECT_UNAUTHORIZED', '0', 'warn'],
    ['SSLKEYLOGFILE', '/tmp/keys', 'warn'],
    ['GRPC_TRACE', 'all', 'warn'],
    ['GRPC_NODE_TRACE', 'all', 'warn'],
    ['GRPC_SSL_CIPHER_SUITES', 'NULL', 'warn'],
    ['LOG_TOKENS', '1', 'info'],
    ['LOG_STREAM', '1', 'info'],
    ['NODE_EXTRA_CA_CERTS', '/etc/ssl/extra.pem', 'info'],
  ])('%s=%s is taken away and told of, without its value', (name, value, level) => {
    const { log, events } = testDeps();
    const env: NodeJS.ProcessEnv = { [name]: value, PATH: '/bin' };
    tellOfIgnored(neutraliseEnvironment(env), log);
    expect(env).toEqual({ PATH: '/bin' });
    expect(events).toEqual([
      {
        level,
        event: expect.stringMatching(/^environment variable ignored: /),
        facts: { variable: name },
      },
    ]);
  });

  test('NODE_TLS_REJECT_UNAUTHORIZED=1 says what is so anyway: nobody is told', () => {
    expect(neutraliseEnvironment({ NODE_TLS_REJECT_UNAUTHORIZED: '1' })).toEqual([]);
  });

  test.each([
    ['ca init'],
    ['ca token create --spiffe-id spiffe://example.org/a'],
    ['csr create --spiffe-id spiffe://a/b --key-out k'],
    ['status'],
    ['vm join x'],
    ['secret get'],
  ])('keyturn %s is refused as the daemons are, by name and with what passes', async (line) => {
    const { code, stderr } = await keyturn(line.split(' '), {
      cwd: '/nonexistent',
      env: { NODE_OPTIONS: '--tls_keylog=keys' },
    });
    expect(code).toBe(78);
    expect(stderr).toBe(
      'keyturn: error: environment NODE_OPTIONS: must not have --tls_keylog in a process that holds keys\nkeyturn: hint: start keyturn without it, e.g. env -u NODE_OPTIONS keyturn ...; permitted are --max-old-space-size, --max-semi-space-size, --stack-trace-limit, --dns-result-order, --disable-warning, --no-warnings, --trace-warnings, --disable-sigusr1, --disable-wasm-trap-handler\n',
    );
    const onCommandLine = await keyturn(line.split(' '), {
      cwd: '/nonexistent',
      runtimeSwitches: ['--inspect'],
    });
    expect(onCommandLine).toMatchObject({
      code: 78,
      stderr: expect.stringContaining('command line of Node.js: must not have --inspect'),
    });
  });
});
