import { createHash, createPublicKey, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, writeDurably } from '../../base/durable-files';
import { AgentError, invalid, systemCode } from '../../base/errors';
import { iso } from '../../base/iso';
import { makeDirectory } from '../../base/make-directory';
import {
  generateKeyPair,
  type KeyAlgorithm,
  type KeyPair,
  privateKeyPem,
  readPrivateKey,
} from '../../identity/keys';
import type { JwtKey } from '../../identity/spiffe-bundle';
import { assertPrivate } from '../directory/private-files';
import type { KeyTerm } from './jwt-key-plan';

/** A key of JWT-SVIDs with both its halves. It signs nothing else, and no certificate is signed with it. */
export interface JwtSigningKey extends KeyTerm {
  readonly pair: KeyPair;
  /** The public half; its name is the key's thumbprint (RFC 7638). */
  readonly jwk: JwtKey;
}

/** Below the CA directory. */
const DIR = 'jwt-keys';
const NAME = /^key-(\d{1,9})\.json$/;
const DRAFT = /^\.draft-[0-9a-f]{32}$/;
const MAX_FILES = 32;
const MAX_BYTES = 16 * 1024;

/** Where the keys of a CA directory lie. */
export function jwtKeysDir(caDir: string): string {
  return join(caDir, DIR);
}

/**
 * Reads every key of the directory; none where there is no directory.
 *
 * @throws AgentError ERR_CA_STATE: damaged, open to others or somebody else's, naming the file.
 */
export async function readJwtKeys(dir: string): Promise<JwtSigningKey[]> {
  const names = await readdir(dir).catch((cause) => {
    if (systemCode(cause) === 'ENOENT') return [];
    throw failed(`read ${dir}`, cause);
  });
  const found = names.flatMap((name) => {
    const number = NAME.exec(name)?.[1];
    return number === undefined ? [] : [{ path: join(dir, name), number: Number(number) }];
  });
  if (found.length > MAX_FILES)
    throw invalid('ERR_CA_STATE', dir, `must not hold more than ${MAX_FILES} keys`);
  if (found.length > 0) assertPrivate('directory', dir, await stat(dir), false);
  const keys = await Promise.all(found.map(({ path, number }) => readKey(path, number)));
  return keys.filter((key) => key !== undefined);
}

/**
 * Makes a key of that number, unless somebody has made one meanwhile: hard links decide, as for the CA itself, so a key appears whole or not
 * at all, and all processes have the same.
 *
 * @throws AgentError ERR_CA_STATE where the directory cannot be written.
 */
export async function makeJwtKey(
  dir: string,
  { number, activeAt }: KeyTerm,
  algorithm: KeyAlgorithm,
): Promise<void> {
  const pair = await generateKeyPair(algorithm);
  const pem = privateKeyPem(pair, 'pkcs8');
  const bytes = Buffer.from(
    `${JSON.stringify({ activeAt: iso(activeAt), privateKey: pem.toString('latin1') })}\n`,
  );
  pem.fill(0);
  const draft = join(dir, `.draft-${randomBytes(16).toString('hex')}`);
  try {
    await makeDirectory(dir, 0o700);
    await writeDurably(draft, bytes, 0o600);
    await link(draft, join(dir, `key-${number}.json`));
    await syncDirectory(dir);
  } catch (cause) {
    if (systemCode(cause) !== 'EEXIST') throw failed(`make a key for JWT-SVIDs in ${dir}`, cause);
  } finally {
    bytes.fill(0);
    await rm(draft, { force: true }).catch(() => undefined);
  }
}

/** Removes keys that nobody needs, and drafts that somebody left behind more than a day ago. */
export async function removeJwtKeys(
  dir: string,
  keys: readonly KeyTerm[],
  now: number,
): Promise<void> {
  for (const { number } of keys) await rm(join(dir, `key-${number}.json`), { force: true });
  for (const name of (await readdir(dir)).filter((each) => DRAFT.test(each))) {
    const path = join(dir, name);
    const found = await stat(path).catch(() => undefined);
    if (found && found.mtimeMs < now - 86_400_000) await rm(path, { force: true });
  }
}

/** Undefined where it was removed a moment ago. */
async function readKey(path: string, number: number): Promise<JwtSigningKey | undefined> {
  // Opened first and judged by its descriptor, so that what was judged is what is read.
  const file = await open(
    path,
    constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW,
  ).catch((cause) => {
    if (systemCode(cause) === 'ENOENT') return undefined;
    throw failed(`read ${path}`, cause);
  });
  if (file === undefined) return undefined;
  try {
    const found = await file.stat();
    if (!found.isFile() || found.size > MAX_BYTES)
      throw invalid('ERR_CA_STATE', path, 'must be a small regular file');
    assertPrivate('key', path, found, false);
    const bytes = await file.readFile();
    const key = parseKey(bytes, path, number);
    bytes.fill(0);
    return key;
  } finally {
    await file.close();
  }
}

function parseKey(bytes: Buffer, path: string, number: number): JwtSigningKey {
  const refuse = (cause?: unknown) =>
    invalid('ERR_CA_STATE', path, 'must be a key for JWT-SVIDs', {
      cause,
      hint: 'remove the file; a new key is created',
    });
  let fields: { readonly activeAt?: unknown; readonly privateKey?: unknown } | null;
  try {
    fields = JSON.parse(bytes.toString('utf8'));
  } catch {
    // The parser's own words may quote the key.
    throw refuse();
  }
  const { activeAt, privateKey } = fields ?? {};
  if (
    typeof activeAt !== 'string' ||
    typeof privateKey !== 'string' ||
    Number.isNaN(Date.parse(activeAt))
  )
    throw refuse();
  try {
    const pair = readPrivateKey(Buffer.from(privateKey, 'latin1'), path);
    return { number, activeAt: Date.parse(activeAt), pair, jwk: publicJwk(pair) };
  } catch (cause) {
    throw refuse(cause);
  }
}

function publicJwk({ spkiDer }: KeyPair): JwtKey {
  const { kty, n, e, crv, x, y } = createPublicKey({
    key: Buffer.from(spkiDer),
    format: 'der',
    type: 'spki',
  }).export({ format: 'jwk' });
  const members =
    kty === 'RSA'
      ? { e: e!, kty: 'RSA' as const, n: n! }
      : { crv: crv!, kty: 'EC' as const, x: x!, y: y! };
  // The members in this order and no others are what a thumbprint is taken of (RFC 7638 section 3).
  const kid = createHash('sha256').update(JSON.stringify(members)).digest('base64url');
  return { kid, ...members };
}

function failed(what: string, cause: unknown): AgentError {
  if (cause instanceof AgentError) return cause;
  return new AgentError('ERR_CA_STATE', `${what}: ${systemCode(cause) ?? 'failed'}`, {
    cause,
    retry: 'slow',
    hint: 'JWT-SVIDs need a CA directory that keyturn can write, and hard links there',
  });
}
