import { link, lstat, open, rename, unlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { AgentError, errorText, systemCode } from '../base/errors';
import { type OpenDirectory, openDirectory, type Refusal } from '../base/open-directory';

/**
 * Writes a whole file or none. With `force` it replaces a regular file, and never a device, a link or a directory; without, nothing.
 *
 * @param refuse  Where root does not write: `all` that another user could exchange, for secrets; `links` of other users only, for files that
 *                lie among theirs anyway.
 * @throws        AgentError ERR_OUTPUT naming the file.
 */
export async function writeNew(
  path: string,
  bytes: Uint8Array,
  mode: number,
  force: boolean,
  refuse: Refusal['of'] = 'all',
): Promise<void> {
  let dir: OpenDirectory | undefined;
  try {
    dir = openDirectory(dirname(path), {
      refuse: { what: `write ${path}`, code: 'ERR_OUTPUT', of: refuse },
    });
    await writeIn(dir, basename(path), bytes, mode, force);
  } catch (caught) {
    if (caught instanceof AgentError) throw caught;
    const exists = systemCode(caught) === 'EEXIST';
    throw new AgentError(
      'ERR_OUTPUT',
      `write ${path}: ${exists ? 'the file exists' : (dir?.text(caught) ?? errorText(caught))}`,
      {
        ...(exists ? { hint: 'give another name, or --force to replace it' } : { cause: caught }),
      },
    );
  } finally {
    dir?.close();
  }
}

async function writeIn(
  dir: OpenDirectory,
  name: string,
  bytes: Uint8Array,
  mode: number,
  force: boolean,
): Promise<void> {
  const temporary = dir.at(`${name}.${process.pid}.new`);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    // A link fails where the name is taken; a rename replaces.
    if (force) await replace(temporary, dir.at(name));
    else await link(temporary, dir.at(name));
  } finally {
    await unlink(temporary).catch(() => undefined);
  }
}

async function replace(temporary: string, path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() === false)
    throw new Error('only a regular file is replaced, and this is none');
  await rename(temporary, path);
}
