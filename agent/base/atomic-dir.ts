import { randomBytes } from 'node:crypto';
import { constants, mkdirSync, type Stats, statSync } from 'node:fs';
import {
  type FileHandle,
  lstat,
  open,
  readdir,
  readlink,
  rename,
  rmdir,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, writeDurably, writeHint } from './durable-files';
import { AgentError, errorText, invalid, systemCode } from './errors';
import {
  type DirectoryRisk,
  type OpenDirectory,
  openDirectory,
  removeDirectory,
} from './open-directory';
import { readSmallFile } from './read-file';
import { withUmask } from './umask';

export interface OutputFile {
  /** A plain name, not starting with two dots. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Exact mode, whatever the umask, e.g. 0o600. */
  readonly mode: number;
}

/** The link through which every name is read, as in a Kubernetes volume. */
const DATA = '..data';
/** Ours are told from a stranger's by their shape. */
const VERSION = /^\.\.\d{4}(_\d\d){5}\.\d{3}_[0-9a-f]{16}$/;
const TEMPORARY = /^\.\.(?:data|link)_tmp_[0-9a-f]{16}$/;
/** What nobody links to and is older belongs to a writer that was killed; a living one needs milliseconds. */
const LITTER_MS = 60_000;

/**
 * Replaces several files of a directory as one. The names are symbolic links through `dir/..data`, which is exchanged in one step for a
 * new, complete and synced version. So a reader that resolves `..data` once reads files that belong together, even if the writer is killed,
 * and several writers cannot mix their files. Regular files of these names found in the directory are taken over: they are copied
 * to a version of their own and linked through `..data` first, so no reader sees an old file beside a new one. Nothing that exists is ever
 * written to or through.
 *
 * @param dir  Made with mode 0700 when missing; an existing directory keeps its mode.
 * @returns    Why the directory cannot be trusted to keep them: others may exchange its files.
 * @throws     AgentError ERR_OUTPUT (retry soon): nothing has changed for readers.
 *
 * @example
 *   await publishDir('/run/certs', [
 *     { name: 'key.pem', bytes: keyPem, mode: 0o600 },
 *     { name: 'cert-chain.pem', bytes: chainPem, mode: 0o644 },
 *   ]);
 */
export async function publishDir(
  dir: string,
  files: readonly OutputFile[],
): Promise<DirectoryRisk | undefined> {
  for (const { name } of files) {
    if (name.includes('/') || name.startsWith('..') || name === '.' || name === '')
      throw invalid('ERR_OUTPUT', 'file name', `"${name}" is not plain`);
  }
  let opened: OpenDirectory | undefined;
  try {
    opened = openToWrite(dir, 0o700);
    const root = opened.at('');
    const names = files.map((file) => file.name);
    await adoptFiles(root, names, dir);
    await exchange(root, files);
    await linkNames(root, names);
    await syncDirectory(root);
    await sweep(root);
    return opened.risk;
  } catch (caught) {
    if (caught instanceof AgentError && caught.code === 'ERR_OUTPUT') throw caught;
    const hint = writeHint(caught);
    throw new AgentError(
      'ERR_OUTPUT',
      `write ${dir}: ${opened?.text(caught) ?? errorText(caught)}`,
      {
        retry: 'soon',
        cause: caught,
        ...(hint && { hint }),
      },
    );
  } finally {
    opened?.close();
  }
}

/** By descriptors only, for a directory may belong to another user; a link of such a user on the way to it is not followed. */
function openToWrite(dir: string, make?: number): OpenDirectory {
  return openDirectory(dir, {
    make,
    refuse: { what: `write ${dir}`, code: 'ERR_OUTPUT', of: 'links' },
  });
}

/** Whether there is a file under each name. */
export function isPublished(dir: string, names: readonly string[]): boolean {
  try {
    return names.every(
      (name) => statSync(join(dir, name), { throwIfNoEntry: false }) !== undefined,
    );
  } catch {
    // Something else has the name of the directory, or it may not be looked into: writing there says which.
    return false;
  }
}

/**
 * Takes away what `publishDir` has made in a directory, and the directory where nothing else is in it. The names go first, so no reader finds
 * half of them for longer than a moment. A directory that is not there is no error.
 *
 * @throws AgentError ERR_OUTPUT (retry soon).
 */
export async function unpublishDir(dir: string): Promise<void> {
  let opened: OpenDirectory | undefined;
  try {
    opened = openToWrite(dir);
    const root = opened.at('');
    for (const name of await readdir(root)) {
      const target = await readlink(join(root, name)).catch(() => undefined);
      if (target === `${DATA}/${name}`) await unlink(join(root, name));
    }
    if ((await readlink(join(root, DATA)).catch(() => undefined)) !== undefined)
      await unlink(join(root, DATA));
    for (const name of await readdir(root)) await removeVersion(root, name);
    removeDirectory(dir);
  } catch (caught) {
    // Somebody else's files are in it: it stays for them.
    if (['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(systemCode(caught) ?? '')) return;
    throw new AgentError(
      'ERR_OUTPUT',
      `delete what is in ${dir}: ${opened?.text(caught) ?? errorText(caught)}`,
      {
        retry: 'soon',
        cause: caught,
      },
    );
  } finally {
    opened?.close();
  }
}

/** Makes every name that exists a link through `..data`, without changing what is read under any of them. */
async function adoptFiles(root: string, names: readonly string[], dir: string): Promise<void> {
  const unlinked = (
    await Promise.all(names.map(async (name) => [name, await entryKind(root, name)] as const))
  ).filter(([, kind]) => kind !== 'linked');
  const directory = unlinked.find(([, kind]) => kind === 'other');
  if (directory)
    throw invalid('ERR_OUTPUT', join(dir, directory[0]), 'must be a file or missing', {
      hint: 'move it away',
    });
  if (unlinked.some(([, kind]) => kind === 'file'))
    await exchange(root, await snapshot(root, names, dir));
  const present = unlinked.filter(([, kind]) => kind !== 'missing').map(([name]) => name);
  await linkNames(root, present);
  if (present.length > 0) await syncDirectory(root);
}

type EntryKind = 'linked' | 'file' | 'stranger' | 'missing' | 'other';

async function entryKind(root: string, name: string): Promise<EntryKind> {
  const entry = await lstatOf(join(root, name));
  if (!entry) return 'missing';
  if (entry.isSymbolicLink())
    return (await readlink(join(root, name))) === `${DATA}/${name}` ? 'linked' : 'stranger';
  return entry.isFile() ? 'file' : 'other';
}

/** What a reader finds now under each name that is a file or a link of ours; another writer's exchange in between is noticed. */
async function snapshot(
  root: string,
  names: readonly string[],
  dir: string,
): Promise<OutputFile[]> {
  for (let round = 0; round < 10; round += 1) {
    const before = await print(root, names);
    const files: OutputFile[] = [];
    for (const name of names) {
      const kind = await entryKind(root, name);
      if (kind !== 'file' && kind !== 'linked') continue;
      const bytes = await readSmallFile(join(root, name), {
        field: name,
        code: 'ERR_OUTPUT',
      }).catch(() => undefined);
      if (bytes) files.push({ name, bytes, mode: 0o600 });
    }
    if ((await print(root, names)) === before) return files;
  }
  throw new AgentError('ERR_OUTPUT', `write ${dir}: its files keep changing`, {
    retry: 'soon',
    hint: 'is another program writing there?',
  });
}

async function print(root: string, names: readonly string[]): Promise<string> {
  const entries = await Promise.all(
    [DATA, ...names].map((name) =>
      lstat(join(root, name), { bigint: true }).catch(() => undefined),
    ),
  );
  return entries
    .map((entry) => (entry ? `${entry.ino}:${entry.mtimeNs}:${entry.size}` : '-'))
    .join(' ');
}

/** Writes a complete new version and makes `..data` lead to it. */
async function exchange(root: string, files: readonly OutputFile[]): Promise<void> {
  const version = versionName();
  const replaced = await readlink(join(root, DATA)).catch(() => undefined);
  try {
    await writeVersion(join(root, version), files);
    await placeLink(root, version, DATA, 'data');
    await syncDirectory(root);
    await checkCurrent(root, version, files);
  } catch (caught) {
    if (!(await isCurrent(root, version)))
      await removeVersion(root, version).catch(() => undefined);
    throw caught;
  }
  if (replaced !== undefined && replaced !== version) await removeVersion(root, replaced);
}

/** Had another writer's sweep, with another clock, taken the version for litter, its links would lead nowhere. */
async function checkCurrent(
  root: string,
  version: string,
  files: readonly OutputFile[],
): Promise<void> {
  try {
    for (const { name } of files) await stat(join(root, version, name));
  } catch (caught) {
    // Another writer has replaced it since: then it was right to go.
    if (await isCurrent(root, version)) throw caught;
  }
}

async function isCurrent(root: string, version: string): Promise<boolean> {
  return (await readlink(join(root, DATA)).catch(() => undefined)) === version;
}

async function writeVersion(path: string, files: readonly OutputFile[]): Promise<void> {
  withUmask(0, () => mkdirSync(path, { mode: 0o700 }));
  const version = await openOwn(path);
  try {
    for (const { name, bytes, mode } of files)
      await writeDurably(`/proc/self/fd/${version.fd}/${name}`, bytes, mode);
    await version.sync();
  } finally {
    await version.close();
  }
}

/** A directory of ours, whatever a user who owns the one around it has put in its place. */
async function openOwn(path: string): Promise<FileHandle> {
  const opened = await open(
    path,
    constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
  );
  try {
    const { uid } = await opened.stat();
    if (uid !== process.geteuid?.())
      throw new AgentError('ERR_OUTPUT', `write: user ${uid} exchanges directories`, {
        retry: 'soon',
      });
    return opened;
  } catch (caught) {
    await opened.close();
    throw caught;
  }
}

async function linkNames(root: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if ((await entryKind(root, name)) !== 'linked')
      await placeLink(root, `${DATA}/${name}`, name, 'link');
  }
}

/** A link in one step, over whatever file or link has that name. */
async function placeLink(
  root: string,
  target: string,
  name: string,
  kind: 'data' | 'link',
): Promise<void> {
  const temporary = join(root, `..${kind}_tmp_${randomBytes(8).toString('hex')}`);
  await symlink(target, temporary);
  try {
    await rename(temporary, join(root, name));
  } catch (caught) {
    await unlink(temporary).catch(() => undefined);
    throw caught;
  }
}

/** Removes what writers that were killed have left behind. */
async function sweep(root: string): Promise<void> {
  const current = await readlink(join(root, DATA));
  for (const name of await readdir(root)) {
    if (name === current || !(VERSION.test(name) || TEMPORARY.test(name))) continue;
    const entry = await lstatOf(join(root, name));
    if (!entry || Date.now() - entry.mtimeMs < LITTER_MS) continue;
    if (entry.isSymbolicLink()) await unlink(join(root, name)).catch(() => undefined);
    else await removeVersion(root, name).catch(() => undefined);
  }
}

async function removeVersion(root: string, name: string): Promise<void> {
  if (!VERSION.test(name)) return;
  const path = join(root, name);
  const entry = await lstatOf(path);
  if (!entry?.isDirectory() || entry.uid !== process.geteuid?.()) return;
  try {
    const version = await openOwn(path);
    try {
      const files = `/proc/self/fd/${version.fd}/`;
      for (const each of await readdir(files)) await unlink(join(files, each));
    } finally {
      await version.close();
    }
    await rmdir(path);
  } catch (caught) {
    // Another writer removes it too.
    if (systemCode(caught) !== 'ENOENT') throw caught;
  }
}

function versionName(): string {
  const time = new Date().toISOString().replace(/[-T:]/g, '_').replace('Z', '');
  return `..${time}_${randomBytes(8).toString('hex')}`;
}

async function lstatOf(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (caught) {
    if (systemCode(caught) === 'ENOENT') return undefined;
    throw caught;
  }
}
