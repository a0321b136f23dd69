import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { loadConfig } from '../../../agent/config/load';
import { tempDir } from '../../support/temp-dir';

const message = (flags: Record<string, string>, env: Record<string, string>, cwd = tempDir()) =>
  loadConfig({ flags, env, cwd }).then(
    () => 'accepted',
    (caught: Error) => caught.message,
  );

test('a settings file that cannot be read is refused with the name of what named it, and with nothing else', async () => {
  expect(await message({ config: '/nowhere/keyturn.yaml' }, {})).toBe(
    'flag --config: read /nowhere/keyturn.yaml: there is no such file',
  );
  expect(await message({}, { KEYTURN_CONFIG: '/dev' })).toBe(
    'environment KEYTURN_CONFIG: file /dev: must be a regular file (/dev)',
  );
});

test('what a damaged settings file may have said is not called missing', async () => {
  const cwd = tempDir();
  writeFileSync(join(cwd, 'keyturn.yaml'), 'ca: builtin\nttl: 1h\nttl: 2h\n');
  expect(await message({ config: 'keyturn.yaml' }, {}, cwd)).toBe(
    'file keyturn.yaml line 3: "ttl" is given twice',
  );
});
