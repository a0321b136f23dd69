import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { FORM, programCommand } from '../support/program';
import { tempDir } from '../support/temp-dir';

/** Runs a shell line in which `keyturn` is the built program. */
function shell(line: string, cwd = '/') {
  const program = `program=("$@"); keyturn() { "\${program[@]}" "$@"; }; ${line}`;
  const env = { PATH: process.env.PATH };
  return spawnSync('bash', ['--norc', '-c', program, 'bash', ...programCommand()], {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 20_000,
  });
}

test('G8 a command whose reader goes away ends quietly', () => {
  const { stdout, stderr } = shell('{ keyturn run --help; echo "exit $?" >&2; } | true');
  expect({ stdout, stderr }).toEqual({ stdout: '', stderr: 'exit 0\n' });
});

test('G8 a command whose answer cannot be written says so and fails', () => {
  const { status, stderr } = shell('keyturn run --help > /dev/full');
  expect(stderr).toMatch(/^keyturn: error: write standard output: .*ENOSPC/);
  expect(status).toBe(73);
});

test('G8 a command with closed standard output and error does its work', () => {
  const dir = tempDir();
  const { status } = shell(
    'keyturn csr create --spiffe-id spiffe://td/a --key-out key.pem --out cart.csr >&- 2>&-',
    dir,
  );
  expect(status).toBe(0);
  expect(readdirSync(dir).sort()).toEqual(['cart.csr', 'key.pem']);
});

test('csr create makes a key of mode 0600 whatever the umask, and openssl accepts both', () => {
  const dir = tempDir();
  const made = shell(
    'umask 0000; keyturn csr create --spiffe-id spiffe://td/ns/shop/sa/cart --key-out key.pem > cart.csr',
    dir,
  );
  expect({ status: made.status, stderr: made.stderr }).toEqual({ status: 0, stderr: '' });
  expect(statSync(join(dir, 'key.pem')).mode & 0o777).toBe(0o600);
  const verified = shell(
    'openssl req -in cart.csr -noout -verify -text 2>&1 && openssl pkey -in key.pem -noout -text',
    dir,
  );
  expect(verified.status).toBe(0);
  expect(verified.stdout).toContain('URI:spiffe://td/ns/shop/sa/cart');
});

test('the exit code of a failure reaches the shell', () => {
  expect(shell('keyturn run').status).toBe(78);
  expect(shell('keyturn rnu').status).toBe(64);
  expect(shell('keyturn status', tempDir()).status).toBe(69);
});

test('in a directory that has been removed a command says so, and help needs none', () => {
  const dir = tempDir();
  const { stdout, stderr } = shell(
    'mkdir gone; cd gone; rmdir ../gone; keyturn --version; keyturn status; echo "exit $?"',
    dir,
  );
  if (FORM === 'standalone') {
    // Bun ends there before it runs anything.
    expect({ stdout, stderr }).toEqual({
      stdout: 'exit 1\n',
      stderr: expect.stringContaining('working directory was deleted'),
    });
    return;
  }
  expect(stdout).toMatch(/^keyturn \S+\nexit 66\n$/);
  expect(stderr).toContain(
    'keyturn: error: the working directory has been removed\nkeyturn: hint: cd to one that exists\n',
  );
});
