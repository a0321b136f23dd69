import { link, lstat, open, rename, unlink } from 'node:fs/promises';
import { AgentError, errorText, systemCode } from '../base/errors';

/**
 * Writes a whole file or none. With `force` it replaces a regular file, and never a device, a link or a directory; without, nothing.
 *
 * @throws AgentError ERR_OUTPUT naming the file.
 */
export async function writeNew(path: string, bytes: Uint8Array, mode: number, force: boolean): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    // A link fails where the name is taken; a rename replaces.
    if (force) await replace(temporary, path);
    else await link(temporary, path);
  } catch (caught) {
    const exists = systemCode(caught) === 'EEXIST';
    throw new AgentError('ERR_OUTPUT', `write ${path}: ${exists ? 'the file exists' : errorText(caught)}`, {
      ...(exists ? { hint: 'give another name, or --force to replace it' } : { cause: caught }),
    });
  } finally {
    await unlink(temporary).catch(() => undefined);
  }
}

async function replace(temporary: string, path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() === false) throw new AgentError('ERR_OUTPUT', 'only a regular file is replaced, and this is none');
  await rename(temporary, path);
}
