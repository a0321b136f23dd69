// Bundles agent/main.ts and everything that it imports into one executable file, dist/keyturn unless another path is given. Same sources,
// same bytes.
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deflateRawSync } from 'node:zlib';
import { build, transform } from 'esbuild';
import { leftOut } from './left-out.mjs';
import { packageLicences } from './package-licences.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const out = process.argv[2] ?? join(root, 'dist/keyturn');
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));

/** Characters from which a late chunk is deflated: inflating takes some 3 ms a megabyte. */
const PACKED_FROM = 32 * 1024;

/** Runs before anything else in the file, in a language that every Node.js that can parse the rest understands. */
const head = `#!/usr/bin/env node
(function () {
  if (parseInt(process.versions.node, 10) >= 22) return;
  process.stderr.write('keyturn: needs Node.js 22 or newer, this is ' + process.version + ' (' + process.execPath + ')\\n');
  process.exit(78);
})();`;

/**
 * A language level that Node.js 14 parses: an older runtime has to get as far as the head to say that it is too old. Names are kept, so
 * that a stack in a bug report says something.
 */
const language = {
  target: 'node14.6',
  platform: 'node',
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: 'none',
  logLevel: 'warning',
};

const bundle = await build({
  ...language,
  entryPoints: [join(root, 'agent/main.ts')],
  absWorkingDir: root,
  outdir: join(root, 'dist'),
  bundle: true,
  splitting: true,
  format: 'esm',
  write: false,
  metafile: true,
  define: { __KEYTURN_VERSION__: JSON.stringify(version) },
  plugins: [leftOut()],
}).catch(() => process.exit(1)); // It has said what is wrong.

const program = await link(bundle);
await mkdir(dirname(out), { recursive: true });
// Renamed into place: who starts it meanwhile must not read half a file.
await writeFile(`${out}.new`, program);
await chmod(`${out}.new`, 0o755);
await rename(`${out}.new`, out);
const licences = await packageLicences(root, Object.keys(bundle.metafile.inputs));
await writeFile(
  `${out}.LICENSES.txt`,
  `keyturn ${version} contains code of these packages.\n\n${licences}`,
);
process.stdout.write(
  `${relative(root, out)}: version ${version}, ${(Buffer.byteLength(program) / 1024).toFixed(0)} KiB\n`,
);

/**
 * Makes one file of esbuild's chunks. What the start needs is code; every chunk that is reached only through `import()` is a string until
 * then: V8 reads 1 MB of a program in 40 ms and 10 MB of memory, and 1 MB of a string in next to none.
 */
async function link({ outputFiles, metafile }) {
  const outputs = Object.entries(metafile.outputs);
  const [main] = outputs.find(([, output]) => output.entryPoint === 'agent/main.ts');
  const eager = new Set();
  const reach = (name) => {
    if (eager.has(name)) return;
    eager.add(name);
    for (const each of metafile.outputs[name].imports)
      if (each.kind === 'import-statement' && !each.external) reach(each.path);
  };
  reach(main);
  const chunks = [];
  for (const [name, output] of outputs.sort(([a], [b]) => (a < b ? -1 : 1))) {
    const { text } = outputFiles.find((file) => file.path === join(root, name));
    const transformed = await transform(text, {
      ...language,
      format: 'cjs',
      supported: { 'dynamic-import': false },
    });
    const code = isCommonJsPackage(output)
      ? `${transformed.code}module.exports=module.exports.default;`
      : transformed.code;
    const body = eager.has(name)
      ? `function(exports,require,module,__filename,__dirname){${code}}`
      : JSON.stringify(packed(code));
    chunks.push(`${JSON.stringify(chunkId(name))}:${body}`);
  }
  return `${head}
(function (chunks) {
  var made = {};
  function load(id) {
    if (made[id]) return made[id].exports;
    var module = (made[id] = { exports: {} });
    var chunk = chunks[id];
    var parameters = ['exports', 'require', 'module', '__filename', '__dirname'];
    if (Array.isArray(chunk)) chunk = require('zlib').inflateRawSync(Buffer.from(chunk[0], 'base64')).toString();
    var run = typeof chunk === 'string' ? require('vm').compileFunction(chunk, parameters, { filename: __filename + ':' + id }) : chunk;
    chunks[id] = undefined;
    run(module.exports, find, module, __filename, __dirname);
    return module.exports;
  }
  function find(id) {
    return Object.prototype.hasOwnProperty.call(chunks, id) ? load(id) : require(id);
  }
  load(${JSON.stringify(chunkId(main))});
})({
${chunks.join(',\n')}
});
`;
}

/** A large chunk is deflated: the file stays in memory as a string, and each process would pay for what most never load. */
function packed(code) {
  return code.length < PACKED_FROM ? code : [deflateRawSync(code, { level: 9 }).toString('base64')];
}

/** `import()` of a CommonJS package: esbuild leaves its names inside `default`, where no importer looks for them. */
function isCommonJsPackage({ entryPoint, exports: names }) {
  return (
    entryPoint?.includes('node_modules/') === true && names.length === 1 && names[0] === 'default'
  );
}

/** How chunks name one another: they all lie in one folder. */
function chunkId(name) {
  return `./${basename(name)}`;
}
