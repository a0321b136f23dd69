import { randomBytes } from 'node:crypto';
import { chmod, lstat, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { syncDirectory, writeDurably } from '../base/durable-files';
import { systemCode } from '../base/errors';
import { makeDirectory } from '../base/make-directory';
import { readSmallFile } from '../base/read-file';
import { type Certificate, parseCertificates } from '../identity/certificate';
import { type KeyPair, readPrivateKey } from '../identity/keys';
import { CA_FILES, type CaFiles, readCaFiles } from './directory/ca-files';

/** Below the CA directory: signers that may be made to sign, one directory each, with the files of a CA directory. */
const SIGNERS_DIR = 'signers';
/** What a signer's directory is called: the beginning of the SHA-256 of its certificate. */
const ID = /^[0-9a-f]{16}$/;
const DRAFT = '.draft-';
const LITTER_MS = 60_000;
/** Since when the signer's root is in root-cert.pem, epoch milliseconds in digits. */
const SINCE_FILE = 'since';
/** When it was activated last, likewise. */
const ACTIVE_FILE = 'active-since';

/** A signer with its key, and what stands above it. */
export interface Signer {
  readonly id: string;
  readonly certificate: Certificate;
  readonly key: KeyPair;
  /** The intermediates above it, and roots where its files name them. */
  readonly above: readonly Certificate[];
}

/** A certificate's name for people: long enough to be its own, short enough to be typed. */
export function certificateId(certificate: Certificate): string {
  return certificate.sha256.slice(0, 16);
}

export function signersDir(dir: string): string {
  return join(resolve(dir), SIGNERS_DIR);
}

export function signerDir(dir: string, id: string): string {
  return join(signersDir(dir), id);
}

/** The signer of a CA directory as it stands, whether or not it would be accepted. @throws AgentError ERR_CA_STATE, ERR_PARSE. */
export async function readSigner(dir: string): Promise<Signer> {
  const files = await readCaFiles(dir);
  try {
    const [certificate] = parseCertificates(files.certPem, CA_FILES.cert);
    const above =
      files.chainPem.length === 0 ? [] : parseCertificates(files.chainPem, CA_FILES.chain);
    return {
      id: certificateId(certificate!),
      certificate: certificate!,
      key: readPrivateKey(files.keyPem.reveal(), CA_FILES.key),
      above,
    };
  } finally {
    files.keyPem.reveal().fill(0);
  }
}

/** The ids of the signers that are kept, in order; none where none ever was. */
export async function stagedIds(dir: string): Promise<string[]> {
  try {
    return (await readdir(signersDir(dir))).filter((name) => ID.test(name)).sort();
  } catch (caught) {
    if (systemCode(caught) === 'ENOENT') return [];
    throw caught;
  }
}

/** Keeps a signer, unless it is kept already: written whole beside its place, then renamed there in one step. */
export async function keepSigner(
  dir: string,
  id: string,
  files: Omit<CaFiles, 'dir'>,
): Promise<void> {
  const place = signerDir(dir, id);
  await makeSignersDir(dir);
  if (await exists(place)) return;
  const draft = join(signersDir(dir), `${DRAFT}${randomBytes(8).toString('hex')}`);
  await mkdir(draft, { mode: 0o700 });
  await chmod(draft, 0o700);
  await writeDurably(join(draft, CA_FILES.key), files.keyPem.reveal(), 0o600);
  await writeDurably(join(draft, CA_FILES.cert), files.certPem, 0o644);
  await writeDurably(join(draft, CA_FILES.chain), files.chainPem, 0o644);
  await writeDurably(join(draft, CA_FILES.root), files.rootPem, 0o644);
  await syncDirectory(draft);
  await rename(draft, place);
  await syncDirectory(signersDir(dir));
}

/** The files of a kept signer. @throws AgentError ERR_CA_STATE. */
export function readKeptFiles(dir: string, id: string): Promise<CaFiles> {
  return readCaFiles(signerDir(dir, id));
}

/** Forgets a signer and its key. */
export async function dropSigner(dir: string, id: string): Promise<void> {
  // Out of sight in one step: half a directory must not be taken for a signer.
  const gone = join(signersDir(dir), `${DRAFT}${randomBytes(8).toString('hex')}`);
  await rename(signerDir(dir, id), gone);
  await syncDirectory(signersDir(dir));
  await rm(gone, { recursive: true });
}

/** Notes since when a signer's root is told to everybody. */
export const noteSince = (dir: string, id: string, at: number): Promise<void> =>
  noteTime(dir, id, SINCE_FILE, at);

/** Undefined where it was not told yet. */
export const readSince = (dir: string, id: string): Promise<number | undefined> =>
  readTime(dir, id, SINCE_FILE);

/** Notes since when a signer signs. */
export const noteActive = (dir: string, id: string, at: number): Promise<void> =>
  noteTime(dir, id, ACTIVE_FILE, at);

/** When it was activated last; undefined where it never was, such as the first signer. */
export const readActive = (dir: string, id: string): Promise<number | undefined> =>
  readTime(dir, id, ACTIVE_FILE);

/** Whether a kept signer was the active one before. The first signer of a directory was never activated: it is kept as told at time 0. */
export const hasSigned = async (dir: string, id: string): Promise<boolean> =>
  (await readActive(dir, id)) !== undefined || (await readSince(dir, id)) === 0;

async function noteTime(dir: string, id: string, name: string, at: number): Promise<void> {
  const path = join(signerDir(dir, id), name);
  await rm(path, { force: true });
  await writeDurably(path, Buffer.from(String(at)), 0o644);
  await syncDirectory(signerDir(dir, id));
}

async function readTime(dir: string, id: string, name: string): Promise<number | undefined> {
  const path = join(signerDir(dir, id), name);
  if (!(await exists(path))) return undefined;
  const digits = (
    await readSmallFile(path, { field: path, code: 'ERR_CA_STATE', maxBytes: 64 })
  ).toString('latin1');
  return /^\d{1,15}$/.test(digits) ? Number(digits) : undefined;
}

/** Removes what killed commands left. */
export async function sweepSigners(dir: string, now: number): Promise<void> {
  for (const name of await readdir(signersDir(dir))) {
    if (!name.startsWith(DRAFT)) continue;
    const path = join(signersDir(dir), name);
    const found = await lstat(path).catch(() => undefined);
    if (found && now - found.mtimeMs > LITTER_MS) await rm(path, { recursive: true, force: true });
  }
}

export async function makeSignersDir(dir: string): Promise<void> {
  const made = await makeDirectory(signersDir(dir), 0o700);
  if (made === undefined) return;
  await chmod(signersDir(dir), 0o700);
  await syncDirectory(resolve(dir));
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (caught) => {
      if (systemCode(caught) === 'ENOENT') return false;
      throw caught;
    },
  );
}
