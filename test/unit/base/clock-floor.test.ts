import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { assertClockIsSet, SOURCES_FROM } from '../../../agent/base/clock-floor';
import { programCommand, UNSEEN } from '../../support/program';
import { tempDir } from '../../support/temp-dir';

test('what lives for long is made from the day on from which the sources are', () => {
  const floor = Date.parse(SOURCES_FROM);
  expect(() => assertClockIsSet('make a root', floor, floor)).not.toThrow();
  expect(() => assertClockIsSet('make a root', 0, floor)).toThrow(
    `make a root: the clock is wrong: it shows 1970-01-01T00:00:00.000Z, before this keyturn was built (${SOURCES_FROM}`,
  );
});

/** The built program, with a clock that shows `at`. */
function runAt(at: string, args: readonly string[]) {
  const shifted = `${UNSEEN}const now=Date.now,by=now()-Date.parse('${at}');Date.now=()=>now()-by`;
  const [node, ...program] = programCommand('node', [
    `--import=data:text/javascript,${encodeURIComponent(shifted)}`,
  ]);
  return spawnSync(node, [...program, ...args], {
    encoding: 'utf8',
    timeout: 60_000,
    cwd: tempDir(),
    env: { PATH: process.env.PATH },
  });
}

describeBuilt('a machine that starts in 1970', '1970-01-01T00:05:00Z');
describeBuilt('a machine whose clock stands where its battery died', '2024-02-29T12:00:00Z');

function describeBuilt(name: string, at: string): void {
  test(`${name} makes no authority, no key for JWT-SVIDs and no token, and says what to do`, () => {
    const dir = join(tempDir(), 'ca');
    const id = 'spiffe://cluster.local/ns/default/sa/db';
    for (const args of [
      ['ca', 'init', '--ca-dir', dir],
      ['ca', 'serve', '--ca-dir', dir, '--listen', '127.0.0.1:0'],
      ['run', '--ca', 'builtin', '--ca-dir', dir, '--sds-socket', join(tempDir(), 's')],
      ['ca', 'token', 'create', '--ca-dir', dir, '--spiffe-id', id],
    ]) {
      const { status, stderr } = runAt(at, args);
      expect(stderr).toContain(`the clock is wrong: it shows ${at.slice(0, 13)}`);
      expect(stderr).toContain('set the clock');
      expect(status).toBe(75);
      expect(existsSync(join(dir, 'ca-key.pem'))).toBe(false);
    }
  });
}
