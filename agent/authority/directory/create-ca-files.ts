import { randomBytes } from 'node:crypto';
import { link, lstat, readdir, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { syncDirectory, writeDurably } from '../../base/durable-files';
import { AgentError, errorText, systemCode } from '../../base/errors';
import { makeDirectory } from '../../base/make-directory';
import { assertTrustedPath } from '../../base/open-directory';
import type { Secret } from '../../base/secret';
import { assertPrivateDir, CA_FILES, incomplete, missingCaFiles } from './ca-files';

/** A new CA, ready to be written. A self-signed root, so one certificate stands in three files. */
export interface NewCa {
  readonly keyPem: Secret<Buffer>;
  readonly rootPem: Buffer;
}

const DRAFT = /^\.draft-[0-9a-f]{32}$/;
const ALL = Object.values(CA_FILES);
/** Each round is lost only to another process's progress, which ends after four links. */
const MAX_ROUNDS = 20;

/**
 * Makes sure that the directory holds a CA: uses what is there, or makes one. Any number of processes may do so at once; one makes it and
 * all use it.
 *
 * A new CA is first written whole into a draft directory inside (never renamed as a whole: the directory may be a mount). Then the key is
 * hard-linked to its place: that succeeds for one process only and is the decision. The other three follow; whoever finds a decided but
 * unfinished set finishes it from the draft that the key belongs to, so it does not matter who dies when. Drafts are swept by whoever
 * next finds a complete set.
 *
 * @param make  Called at most once, and only where none of the four files is there.
 * @returns     Whether this process's CA is the one.
 * @throws      AgentError ERR_CA_STATE: some of the files are missing, the directory is too open or cannot be written.
 */
export async function ensureCaFiles(dir: string, make: () => Promise<NewCa>): Promise<boolean> {
  try {
    await makeCaDirectory(dir);
    const readOnly = await assertPrivateDir(dir);
    return await decide(dir, make, readOnly);
  } catch (caught) {
    if (caught instanceof AgentError) throw caught;
    throw new AgentError(
      'ERR_CA_STATE',
      `make CA directory ${resolve(dir)}: ${errorText(caught)}`,
      {
        cause: caught,
        hint: 'it must be writable for the user that keyturn runs as, and on a file system with hard links, for the first start',
      },
    );
  }
}

async function decide(
  dir: string,
  make: () => Promise<NewCa>,
  readOnly: boolean,
): Promise<boolean> {
  let ours: NewCa | undefined;
  const ourKeys: string[] = [];
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const missing = await missingCaFiles(dir);
    if (missing.length === 0) {
      ours?.keyPem.reveal().fill(0);
      if (!readOnly) await sweepDrafts(dir);
      return ourKeys.includes((await inode(join(dir, CA_FILES.key))) ?? '');
    }
    if (missing.length === ALL.length) {
      ours ??= await make();
      const key = await publish(dir, ours);
      if (key !== undefined) ourKeys.push(key);
    } else if (!(await finish(dir))) {
      // The draft may be gone because the set was finished a moment ago.
      const still = await missingCaFiles(dir);
      if (still.length > 0) throw incomplete(dir, still);
    }
  }
  throw incomplete(dir, await missingCaFiles(dir));
}

async function makeCaDirectory(dir: string): Promise<void> {
  const parent = dirname(resolve(dir));
  assertTrustedPath(parent, 'parent of the CA directory', 'ERR_CA_STATE');
  await makeDirectory(parent);
  await makeDirectory(dir, 0o700);
}

/** Writes a draft and offers its key as the CA's. Returns the key file's inode, or undefined where the draft was swept away under us. */
async function publish(dir: string, ca: NewCa): Promise<string | undefined> {
  const draft = join(dir, `.draft-${randomBytes(16).toString('hex')}`);
  let key: string | undefined;
  try {
    await writeDraft(draft, ca);
    key = await inode(join(draft, CA_FILES.key));
    await linkAll(draft, dir);
  } catch (cause) {
    // A finished set was found by another process, which sweeps every draft. Else the draft stays where its key may be in place already.
    if (systemCode(cause) !== 'ENOENT') throw cause;
  }
  await rm(draft, { recursive: true, force: true }).catch(() => undefined);
  return key;
}

async function writeDraft(draft: string, ca: NewCa): Promise<void> {
  await makeDirectory(draft, 0o700);
  try {
    await Promise.all([
      writeDurably(join(draft, CA_FILES.key), ca.keyPem.reveal(), 0o600),
      ...[CA_FILES.cert, CA_FILES.chain, CA_FILES.root].map((name) =>
        writeDurably(join(draft, name), ca.rootPem, 0o644),
      ),
    ]);
    await syncDirectory(draft);
  } catch (cause) {
    await rm(draft, { recursive: true, force: true }).catch(() => undefined);
    throw cause;
  }
}

/** Completes a set whose key is in place, from the draft that holds the same file. False where there is no such draft. */
async function finish(dir: string): Promise<boolean> {
  const key = await inode(join(dir, CA_FILES.key));
  if (key === undefined) return false;
  for (const draft of await drafts(dir)) {
    if ((await inode(join(draft, CA_FILES.key))) !== key) continue;
    await linkAll(draft, dir).catch((cause) => {
      if (systemCode(cause) !== 'ENOENT') throw cause;
    });
    return true;
  }
  return false;
}

/** Links the key, then the rest, and makes that durable. Does nothing where another draft's key is in place. */
async function linkAll(draft: string, dir: string): Promise<void> {
  const made = await linkOnce(join(draft, CA_FILES.key), join(dir, CA_FILES.key));
  if (!made && (await inode(join(draft, CA_FILES.key))) !== (await inode(join(dir, CA_FILES.key))))
    return;
  for (const name of [CA_FILES.cert, CA_FILES.chain, CA_FILES.root])
    await linkOnce(join(draft, name), join(dir, name));
  await syncDirectory(dir);
}

/** False where the name is taken. */
async function linkOnce(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return false;
    throw cause;
  }
}

async function sweepDrafts(dir: string): Promise<void> {
  for (const draft of await drafts(dir))
    await rm(draft, { recursive: true, force: true }).catch(() => undefined);
}

async function drafts(dir: string): Promise<string[]> {
  return (await readdir(dir)).filter((name) => DRAFT.test(name)).map((name) => join(dir, name));
}

async function inode(path: string): Promise<string | undefined> {
  const found = await lstat(path, { bigint: true }).catch(() => undefined);
  return found && `${found.dev}:${found.ino}`;
}
