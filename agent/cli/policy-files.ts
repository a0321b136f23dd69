import { readdir, realpath } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { AgentError, invalid } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { MAX_FILE_BYTES, type PolicyFile } from '../policy/read-policies';
import { readInput } from './input';
import type { Terminal } from './terminal';

const POLICY_FILE = /\.(ya?ml|json)$/;
const MAX_NAMES = 100_000;

/**
 * Reads policies from directories, their sub-directories and files; `-` is standard input. Names that
 * begin with a dot are passed over, as kubelet's `..data` is, and links that lead out are refused.
 *
 * @throws AgentError ERR_POLICY or ERR_INPUT naming the file.
 */
export async function readPolicyFiles(
  paths: readonly string[],
  terminal: Terminal,
): Promise<PolicyFile[]> {
  const files: PolicyFile[] = [];
  for (const path of paths) {
    if (path === '-')
      files.push({ name: '-', bytes: await readInput(path, terminal, MAX_FILE_BYTES) });
    else files.push(...(await readTree(resolve(terminal.cwd, path), path)));
  }
  return files;
}

async function readTree(path: string, name: string): Promise<PolicyFile[]> {
  const root = await realpath(path).catch((cause) => {
    throw new AgentError(
      'ERR_INPUT',
      `${name}: ${cause.code === 'ENOENT' ? 'not found' : cause.message}`,
      {
        cause,
        hint: 'give a directory of policies, a file, or - for standard input',
      },
    );
  });
  const names = await namesBelow(root, root);
  if (!names) return [{ name, bytes: await read(root, name) }];
  const files: PolicyFile[] = [];
  for (const each of names.sort()) {
    const shown = join(name, each);
    const real = await realpath(join(root, each));
    if (!real.startsWith(root + sep))
      throw invalid('ERR_POLICY', shown, `leads out of ${name}, to ${real}`, {
        hint: 'put the file itself there',
      });
    files.push({ name: shown, bytes: await read(real, shown) });
  }
  return files;
}

function read(path: string, name: string): Promise<Buffer> {
  return readSmallFile(path, { field: name, code: 'ERR_INPUT', maxBytes: MAX_FILE_BYTES });
}

/** Paths of policies below a directory; undefined where it is none. */
async function namesBelow(dir: string, root: string): Promise<string[] | undefined> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((caught) => {
    if (caught.code === 'ENOTDIR') return undefined;
    throw new AgentError('ERR_INPUT', `${dir}: ${caught.message}`, { cause: caught });
  });
  if (!entries) return undefined;
  const found: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const path = join(dir, entry.name);
    if (entry.isDirectory()) found.push(...((await namesBelow(path, root)) ?? []));
    else if (POLICY_FILE.test(entry.name)) found.push(path.slice(root.length + 1));
    if (found.length > MAX_NAMES)
      throw invalid('ERR_POLICY', root, `must not hold more than ${MAX_NAMES} files`);
  }
  return found;
}
