import { spawnSync } from 'node:child_process';
import { appendFileSync, copyFileSync, cpSync, existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { tempDir } from '../../support/temp-dir';

const ROOT = resolve(__dirname, '../../..');
const NODE = 'node_modules/node/bin/node';

let tree: string;

/** A tree that packages are made from, with a Node.js that runs and has a byte more than the pinned one. */
beforeAll(() => {
  tree = tempDir();
  cpSync(join(ROOT, 'scripts'), join(tree, 'scripts'), { recursive: true });
  mkdirSync(join(tree, dirname(NODE)), { recursive: true });
  copyFileSync(join(ROOT, NODE), join(tree, NODE));
  appendFileSync(join(tree, NODE), '\n');
  mkdirSync(join(tree, 'node_modules/.bin'));
  symlinkSync(join(tree, NODE), join(tree, 'node_modules/.bin/node'));
});

const source = 'source scripts/lib/common.sh; source scripts/lib/package.sh';

test.each([
  ['package', `${source}; package_tree out node dist/keyturn`],
  ['image', 'scripts/lib/image-root.sh node out'],
  ['new installation', `npm() { :; }; ${source}; install`],
])('a Node.js that is not the pinned one gets into no %s', (_, script) => {
  const { status, stderr } = spawnSync('bash', ['-c', script], { cwd: tree, encoding: 'utf8' });
  expect(stderr).toContain(`${NODE} is not the Node.js that scripts/lib/common.sh pins by SHA-256`);
  expect(status).toBe(1);
  expect(existsSync(join(tree, 'out/usr'))).toBe(false);
});

test('the one that the tests run on is the pinned one', () => {
  const { stdout, status } = spawnSync('bash', ['-c', `${source}; pinned_node`], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  expect({ status, stdout }).toEqual({ status: 0, stdout: `${join(ROOT, NODE)}\n` });
});
