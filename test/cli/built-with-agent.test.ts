import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { runKeyturn } from '../support/daemon';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';

// The bundle loads most of itself late, so each command has to be run from it once: unbuilt sources prove nothing about that.

test('every command of the built program finds what it loads late', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'keyturn.yaml'), 'ttl: 1h\noutput-certs: ./out\n');
  const daemon = testDaemon({ dir, flags: ['--config', 'keyturn.yaml', '--state-dir', './state'] });
  await daemon.event('certificate issued', ({ scope }) => scope === 'keeper');
  await daemon.ready();

  const answers: readonly (readonly [args: readonly string[], answer: RegExp])[] = [
    [['status'], /spiffe:\/\/cluster\.local\/ns\/shop\/sa\/cart/],
    [['plan'], /share of the usable validity/],
    [['rotate', '--wait'], /acknowledged by/],
    [['secret', 'get'], /ROOTCA: roots to trust/],
    [['secret', 'get', 'default', '--output', 'json'], /"serial"/],
    [['cert', 'show', 'out/cert-chain.pem'], /certificate 1 of 1/],
    [
      ['csr', 'create', '--spiffe-id', 'spiffe://td/a', '--key-out', 'key.pem'],
      /BEGIN CERTIFICATE REQUEST/,
    ],
    [['bootstrap'], /initial_fetch_timeout/],
    [['config', 'show', '--config', 'keyturn.yaml', '--ca', 'builtin'], /ttl +1h +file/],
    [['completion', 'bash'], /complete/],
    [['version', '--output', 'json'], /"runtime"/],
  ];
  for (const [args, answer] of answers) {
    const { code, stdout, stderr } = await runKeyturn(args, { dir });
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    expect(stdout).toMatch(answer);
  }
});

test.each(['webcrypto', 'peculiar'])(
  'the built program issues and renews with the %s engine, which it loads only when chosen',
  async (engine) => {
    const daemon = testDaemon({ dir: tempDir(), flags: ['--crypto', engine, '--ttl', '4s'] });
    await daemon.event('certificate renewed');
  },
);
