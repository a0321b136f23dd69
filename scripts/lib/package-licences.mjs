import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * The name, version and licence text of every package whose code went into a program.
 *
 * @param root    The folder of package.json.
 * @param inputs  Paths of source files below it, as a bundler names them.
 */
export async function packageLicences(root, inputs) {
  const folders = new Set(
    inputs.map((input) => packageFolder(root, input)).filter((folder) => folder !== undefined),
  );
  const texts = [];
  for (const folder of [...folders].sort()) {
    const { name, version, license } = JSON.parse(
      await readFile(join(root, folder, 'package.json'), 'utf8'),
    );
    const files = (await readdir(join(root, folder)))
      .filter((file) => /^(licen[cs]e|notice)(\.|$)/i.test(file))
      .sort();
    const bodies = await Promise.all(
      files.map((file) => readFile(join(root, folder, file), 'utf8')),
    );
    texts.push(
      `${name} ${version} (${license})\n\n${bodies.map((body) => body.trim()).join('\n\n')}\n`,
    );
  }
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

function packageFolder(root, input) {
  const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
  return match && existsSync(join(root, match[1], 'package.json')) ? match[1] : undefined;
}
