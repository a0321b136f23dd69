// Run by Bun: compiles agent/main.ts, everything that it imports, and a Bun into one executable. Prints the names of all that went into it,
// as a JSON list.
// Usage: bun compile.mjs VERSION BUN-OF-TARGET TARGET OUT      in the folder of the sources; TARGET as Bun names it, e.g. linux-x64
import { leftOut } from './left-out.mjs';

const [version, bunOfTarget, target, out] = process.argv.slice(2);
const { metafile } = await Bun.build({
  entrypoints: ['agent/main.ts'],
  compile: {
    outfile: out,
    target: `bun-${target}`,
    executablePath: bunOfTarget,
    // A process that holds keys takes nothing from the directory that it happens to be started in.
    autoloadDotenv: false,
    autoloadBunfig: false,
    autoloadTsconfig: false,
    autoloadPackageJson: false,
    // An agent runs most of its code a few times and then hardly any: what is compiled late, or never, takes no time and no memory.
    // `ca serve` sets it back.
    jitPolicy: 100,
  },
  // The parser's work is done here instead of at each start: 90 ms of 300 are left.
  bytecode: true,
  format: 'esm',
  // What is behind an import() is a file of its own inside, which is read when it is asked for.
  splitting: true,
  // Names are kept, so that a stack in a bug report says something.
  minify: { syntax: true, whitespace: true },
  // Packages that look for files beside them would find none; and the bytes must not depend on where they were built.
  define: { __KEYTURN_VERSION__: JSON.stringify(version), __dirname: '"/"' },
  plugins: [leftOut()],
  metafile: true,
});
process.stdout.write(JSON.stringify(Object.keys(metafile.inputs)));
