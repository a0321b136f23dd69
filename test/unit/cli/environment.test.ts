import { describe, expect, test } from '@jest/globals';
import { neutraliseEnvironment, refuseDangerousEnvironment } from '../../../agent/cli/environment';
import { outcome } from '../../support/outcome';
import { testDeps } from '../../support/test-deps';

describe('G9 the environment of a process that holds keys', () => {
  test.each([
    ['LD_PRELOAD', '/tmp/x.so', 'must not be set: its library runs inside a process that holds keys'],
    ['LD_AUDIT', '/tmp/x.so', 'must not be set: its library runs inside a process that holds keys'],
    ['NODE_OPTIONS', '--inspect', 'must not have --inspect in a process that holds keys'],
    ['NODE_OPTIONS', '--max-old-space-size=64 --inspect-brk=0.0.0.0:9229', 'must not have --inspect-brk in a process that holds keys'],
    ['NODE_OPTIONS', '--require /tmp/x.js', 'must not have --require in a process that holds keys'],
    ['NODE_OPTIONS', '-r /tmp/x.js', 'must not have -r in a process that holds keys'],
    ['NODE_OPTIONS', '"--import=/tmp/x.mjs"', 'must not have --import in a process that holds keys'],
    ['NODE_OPTIONS', '--experimental-loader=x', 'must not have --experimental-loader in a process that holds keys'],
    ['NODE_OPTIONS', '--tls-keylog=/tmp/keys', 'must not have --tls-keylog in a process that holds keys'],
    ['NODE_OPTIONS', '--tls-min-v1.0', 'must not have --tls-min-v1.0 in a process that holds keys'],
    ['NODE_OPTIONS', '--heapsnapshot-signal=SIGUSR2', 'must not have --heapsnapshot-signal in a process that holds keys'],
  ])('%s=%s is refused: it cannot be undone', (name, value, rule) => {
    expect(outcome(() => refuseDangerousEnvironment({ [name]: value }))).toEqual({ field: `environment ${name}`, rule });
  });

  test.each([
    {},
    { LD_PRELOAD: '' },
    { NODE_OPTIONS: '--max-old-space-size=64 --disable-sigusr1 --no-warnings' },
    { NODE_OPTIONS: '--max-semi-space-size=1', HTTPS_PROXY: 'http://proxy:3128', LD_LIBRARY_PATH: '/opt/lib' },
  ])('%j is left alone', (env) => {
    const before = { ...env };
    refuseDangerousEnvironment(env);
    neutraliseEnvironment(env, testDeps().log);
    expect(env).toEqual(before);
  });

  test.each([
    ['NODE_TLS_REJECT_UNAUTHORIZED', '0', 'warn'],
    ['SSLKEYLOGFILE', '/tmp/keys', 'warn'],
    ['NODE_EXTRA_CA_CERTS', '/etc/ssl/extra.pem', 'info'],
  ])('%s=%s is taken away and told of, without its value', (name, value, level) => {
    const deps = testDeps();
    const env: NodeJS.ProcessEnv = { [name]: value, PATH: '/bin' };
    neutraliseEnvironment(env, deps.log);
    expect(env).toEqual({ PATH: '/bin' });
    expect(deps.events).toEqual([{ level, event: expect.stringMatching(/^environment variable ignored: /), facts: { variable: name } }]);
  });

  test('NODE_TLS_REJECT_UNAUTHORIZED=1 says what is so anyway: nobody is told', () => {
    const deps = testDeps();
    neutraliseEnvironment({ NODE_TLS_REJECT_UNAUTHORIZED: '1' }, deps.log);
    expect(deps.events).toEqual([]);
  });
});
