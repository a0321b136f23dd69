import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { version } from '../../package.json';
import { tempDir } from '../support/temp-dir';

const BUNDLER = join(__dirname, '../../scripts/lib/bundle.mjs');

const made = mkdtempSync(join(tmpdir(), 'keyturn-test-'));
const keyturn = join(made, 'keyturn');
beforeAll(() => bundle(keyturn));
afterAll(() => rmSync(made, { recursive: true }));

function bundle(out: string): void {
  const { status, stderr } = spawnSync(process.execPath, [BUNDLER, out], { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
}

describe('the one file that ships', () => {
  test('has the same bytes whenever and wherever it is built', () => {
    const again = join(tempDir(), 'elsewhere');
    bundle(again);
    expect(readFileSync(again).equals(readFileSync(keyturn))).toBe(true);
    expect(statSync(again).mode & 0o777).toBe(0o755);
  });

  test('stands alone and knows its version', () => {
    const { stdout } = spawnSync(process.execPath, [keyturn, 'version'], {
      encoding: 'utf8',
      cwd: '/',
    });
    expect(stdout).toContain(`keyturn ${version} `);
  });

  test('says in one line that the runtime is too old', () => {
    const dir = tempDir();
    const pretend = join(dir, 'pretend.js');
    writeFileSync(
      pretend,
      `Object.defineProperty(process, 'versions', { value: { node: '20.20.2' } });
       Object.defineProperty(process, 'version', { value: 'v20.20.2' });`,
    );
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['-r', pretend, keyturn, 'run'],
      { encoding: 'utf8' },
    );
    expect({ status, stdout }).toEqual({ status: 78, stdout: '' });
    expect(stderr).toBe(
      `keyturn: needs Node.js 22 or newer, this is v20.20.2 (${process.execPath})\n`,
    );
  });

  test('names the licence of every package in it', () => {
    const licences = readFileSync(`${keyturn}.LICENSES.txt`, 'utf8');
    for (const name of [
      '@grpc/grpc-js',
      '@peculiar/x509',
      'chokidar',
      'commander',
      'prom-client',
      'yaml',
    ]) {
      expect(licences).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(.+\\)$`, 'm'));
    }
    expect(licences).not.toContain('@grpc/proto-loader');
  });
});
