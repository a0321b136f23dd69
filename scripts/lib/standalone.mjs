// Makes one executable of agent/main.ts, everything that it imports, and Bun. Same sources, same bytes, wherever it is built and for whom.
// Usage: node standalone.mjs BUN BUN-OF-TARGET TARGET OUT      TARGET as Bun names it, e.g. linux-x64
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageLicences } from './package-licences.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const [bun, bunOfTarget, target, out] = process.argv.slice(2);
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));

const work = await mkdtemp(join(tmpdir(), 'keyturn-'));
const compiled = join(work, 'keyturn');
try {
  const inputs = JSON.parse(
    run(bun, [
      join(root, 'scripts/lib/compile.mjs'),
      version,
      resolve(bunOfTarget),
      target,
      compiled,
    ]),
  );
  await mkdir(dirname(out), { recursive: true });
  await writeFile(`${out}.LICENSES.txt`, await licences(inputs));
  // Renamed into place: who starts it meanwhile must not read half a file.
  await writeFile(`${out}.new`, await readFile(compiled), { mode: 0o755 });
  await rename(`${out}.new`, out);
} finally {
  await rm(work, { recursive: true });
}
const { size } = await stat(out);
process.stdout.write(
  `${relative(root, out)}: version ${version}, ${(size / 1024 / 1024).toFixed(0)} MiB\n`,
);

function run(program, args) {
  // Without the settings of whoever builds: they must not be in what is built.
  const env = { PATH: process.env.PATH, HOME: work, TMPDIR: work };
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    cwd: root,
    env,
    encoding: 'utf8',
  });
  if (status === 0) return stdout;
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}${error ? `${error.message}\n` : ''}`);
  process.exit(1);
}

async function licences(inputs) {
  const { stdout: bunVersion } = spawnSync(bun, ['--version'], { encoding: 'utf8' });
  return `keyturn ${version} as an executable contains Bun, and code of the packages below.

Bun ${bunVersion.trim()} (MIT), https://github.com/oven-sh/bun

Bun links JavaScriptCore of WebKit (LGPL-2.0), TinyCC (LGPL-2.1), BoringSSL and other libraries. LICENSE.md of that version at the address
above names each with its licence, and tells how to build Bun with a JavaScriptCore of your own. scripts/build --standalone makes this
executable of it then.

${'-'.repeat(80)}

${await packageLicences(root, inputs)}`;
}
