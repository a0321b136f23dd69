// Bundles agent/main.ts and everything that it imports into one executable file. Same sources, same bytes.
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const out = join(root, 'dist/keyturn');
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));

/** Runs before anything else in the file, in a language that every Node.js that can parse the rest understands. */
const head = `#!/usr/bin/env node
(function () {
  if (parseInt(process.versions.node, 10) >= 22) return;
  process.stderr.write('keyturn: needs Node.js 22 or newer, this is ' + process.version + ' (' + process.execPath + ')\\n');
  process.exit(78);
})();`;

const result = await build({
  entryPoints: [join(root, 'agent/main.ts')],
  absWorkingDir: root,
  outfile: out,
  bundle: true,
  write: false,
  metafile: true,
  platform: 'node',
  format: 'cjs',
  // A language level that Node.js 14 parses: an older runtime has to get as far as the head to say that it is too old.
  target: 'node14.6',
  minify: true,
  sourcemap: 'external',
  sourcesContent: false,
  legalComments: 'none',
  banner: { js: head },
  define: { __KEYTURN_VERSION__: JSON.stringify(version) },
  logLevel: 'warning',
});

await mkdir(dirname(out), { recursive: true });
for (const file of result.outputFiles) {
  const path = file.path.endsWith('.map') ? `${out}.map` : out;
  // Renamed into place: a running agent that loads the rest of itself later must not read half of another file.
  await writeFile(`${path}.new`, file.contents);
  if (path === out) await chmod(`${path}.new`, 0o755);
  await rename(`${path}.new`, path);
}
await writeFile(`${out}.LICENSES.txt`, await licences(Object.keys(result.metafile.inputs)));
const size = result.outputFiles.find((file) => !file.path.endsWith('.map')).contents.length;
process.stdout.write(`dist/keyturn: version ${version}, ${(size / 1024).toFixed(0)} KiB\n`);

/** The name, version and licence text of every package whose code is in the bundle. */
async function licences(inputs) {
  const folders = new Set(inputs.map(packageFolder).filter((folder) => folder !== undefined));
  const texts = [];
  for (const folder of [...folders].sort()) {
    const { name, version: packageVersion, license } = JSON.parse(await readFile(join(root, folder, 'package.json'), 'utf8'));
    const files = (await readdir(join(root, folder))).filter((file) => /^(licen[cs]e|notice)(\.|$)/i.test(file)).sort();
    const bodies = await Promise.all(files.map((file) => readFile(join(root, folder, file), 'utf8')));
    texts.push(`${name} ${packageVersion} (${license})\n\n${bodies.map((body) => body.trim()).join('\n\n')}\n`);
  }
  return `keyturn ${version} contains code of these packages.\n\n${texts.join(`\n${'-'.repeat(80)}\n\n`)}`;
}

function packageFolder(input) {
  const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
  return match && existsSync(join(root, match[1], 'package.json')) ? match[1] : undefined;
}
