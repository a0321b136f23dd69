import { createHash } from 'node:crypto';
import { Secret } from '../../agent/base/secret';
import { type Certificate, parseCertificate, parseRootBundle, uriNames } from '../../agent/identity/certificate';
import type { CertificateEngine } from '../../agent/identity/engine';
import { CA_FILES, type CaFiles, readCaFiles } from './ca-files';
import { DEFAULT_TTL_SECONDS } from './certificate-specs';
import { acceptIssuer, type Issuer, type IssuerDomains } from './issuer';
import { readKeptFiles, readSigner, readSince, stagedIds } from './signers';
import type { CaStore, IssuedEntry } from './store/store';

export interface RootsOptions extends IssuerDomains {
  readonly dir: string;
  readonly engine: CertificateEngine;
  /** Knows which certificates are in use. */
  readonly store: Pick<CaStore, 'issued' | 'revocations'>;
}

/** For how long a root must have been in the bundle before anything is signed under it, where nothing is said. */
export const DEFAULT_OVERLAP_MS = DEFAULT_TTL_SECONDS * 1_000;

/** The roots of root-cert.pem. */
export const rootsOf = ({ rootPem }: Pick<CaFiles, 'rootPem'>): Certificate[] =>
  parseRootBundle(rootPem, CA_FILES.root).bundle.rootsDer.map((der) => parseCertificate(der));

/** As `IssuedEntry.rootKeySha256`. */
export const keyHash = (root: Certificate): string => createHash('sha256').update(root.publicKey.spkiDer).digest('hex');

/** The trust domain that the active signer says it is of; undefined where it names none, as an intermediate of others may. */
export async function namedTrustDomain(dir: string): Promise<string | undefined> {
  const { certificate } = await readSigner(dir);
  return uriNames(certificate)
    .map((uri) => /^spiffe:\/\/([^/]*)/i.exec(uri)?.[1])
    .find((each) => each !== undefined);
}

/** `acceptIssuer` wipes the key that it is given. */
export function copyOf(files: CaFiles): CaFiles {
  return { ...files, keyPem: new Secret(Buffer.from(files.keyPem.reveal())) };
}

/** How a kept signer would be judged if it signed now; undefined where it would be refused. */
export async function verdictOf(options: RootsOptions, id: string, now: number, rootPem?: Buffer): Promise<Issuer | undefined> {
  const kept = { ...(await readKeptFiles(options.dir, id)), rootPem: rootPem ?? (await readRootPem(options.dir)) };
  return acceptIssuer(kept, options, options.engine, now).catch(() => undefined);
}

async function readRootPem(dir: string): Promise<Buffer> {
  const files = await readCaFiles(dir);
  files.keyPem.reveal().fill(0);
  return files.rootPem;
}

/** From when on a kept signer may sign; undefined where its root was never told. */
export async function activateAt(
  options: RootsOptions,
  id: string,
  overlapMs: number | undefined,
  now: number,
): Promise<number | undefined> {
  const since = await readSince(options.dir, id);
  if (since === undefined || overlapMs !== undefined) return since === undefined ? undefined : since + overlapMs!;
  // A signer that has signed before is known to everybody: this is a step back.
  if (since === 0) return 0;
  const before = (await options.store.issued({}, now)).filter(({ issuedAt }) => issuedAt < since).map(({ notAfterAt }) => notAfterAt);
  return Math.max(since + DEFAULT_OVERLAP_MS, ...before);
}

/** Valid certificates that lead to a root, are not revoked, and of a TLS server of ours not replaced. */
export async function inUse(options: RootsOptions, root: Certificate, now: number): Promise<IssuedEntry[]> {
  const newest = newestServers(await options.store.issued({}, now));
  const entries = await withoutRevoked(options, await options.store.issued({ rootKeySha256: keyHash(root) }, now), now);
  return entries.filter((entry) => isWorkload(entry) || newest.has(entry.serial));
}

const isWorkload = ({ id }: IssuedEntry): boolean => id.startsWith('spiffe://');

/** A server shows the certificate that it got last, and no other. */
function newestServers(entries: readonly IssuedEntry[]): Set<string> {
  const newest = new Map<string, IssuedEntry>();
  for (const entry of entries) {
    if (!isWorkload(entry) && entry.issuedAt >= (newest.get(entry.id)?.issuedAt ?? 0)) newest.set(entry.id, entry);
  }
  return new Set([...newest.values()].map(({ serial }) => serial));
}

async function withoutRevoked(options: RootsOptions, entries: readonly IssuedEntry[], now: number): Promise<IssuedEntry[]> {
  const revoked = new Set((await options.store.revocations(now)).map(({ serial }) => serial));
  return entries.filter(({ serial }) => !revoked.has(serial));
}

/** Kept signers that lead to none of the roots. */
export async function orphans(options: RootsOptions, files: CaFiles, now: number): Promise<string[]> {
  const ids: string[] = [];
  for (const id of await stagedIds(options.dir)) {
    const verdict = await verdictOf(options, id, now, files.rootPem);
    if (verdict === undefined) ids.push(id);
  }
  return ids;
}
