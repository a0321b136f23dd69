import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { loadConfig } from '../../../agent/config/load';
import { tempDir } from '../../support/temp-dir';

const load = (flags: Record<string, string>, env: Record<string, string> = {}, cwd = tempDir()) =>
  loadConfig({ flags, env, cwd });

test.each([
  ['output-certs', 'ca-dir'],
  ['output-certs', 'state-dir'],
  ['state-dir', 'ca-dir'],
])(
  '--%s cannot be the directory of --%s, for each would overwrite the files of the other',
  async (one, other) => {
    const flags = { ca: 'builtin', [one]: './same', [other]: 'x/../same/' };
    await expect(load(flags)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: `flag --${one}: "./same" must be another directory than ${other}`,
      hint: `${other} is x/../same/ (flag --${other})`,
    });
  },
);

test('mounted certificates cannot be the output, also under another name', async () => {
  const cwd = tempDir();
  mkdirSync(join(cwd, 'mounted'));
  symlinkSync('mounted', join(cwd, 'out'));
  await expect(
    load({ ca: 'file', 'credentials-dir': 'mounted' }, { OUTPUT_CERTS: './out' }, cwd),
  ).rejects.toMatchObject({
    message: 'environment OUTPUT_CERTS: "./out" must be another directory than credentials-dir',
  });
});

test('a directory that nothing of this agent uses may be named', async () => {
  const loaded = await load({
    ca: 'builtin',
    'output-certs': './same',
    'credentials-dir': './same',
  });
  expect(loaded.config.outputCerts).toBe('./same');
});
