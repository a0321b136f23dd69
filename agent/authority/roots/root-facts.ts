import { createHash } from 'node:crypto';
import { Secret } from '../../base/secret';
import {
  type Certificate,
  parseCertificate,
  parseRootBundle,
  uriNames,
} from '../../identity/certificate';
import type { CertificateEngine } from '../../identity/engine';
import { DEFAULT_TTL_SECONDS } from '../certificate-specs';
import { CA_FILES, type CaFiles, readCaFiles } from '../directory/ca-files';
import { acceptIssuer, type Issuer, type IssuerDomains } from '../issuer';
import { certificateId, readKeptFiles, readSigner, readSince, stagedIds } from '../signers';
import type { CaStore, IssuedEntry } from '../store/store';

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
export const keyHash = (root: Certificate): string =>
  createHash('sha256').update(root.publicKey.spkiDer).digest('hex');

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
export async function verdictOf(
  options: RootsOptions,
  id: string,
  now: number,
  rootPem?: Buffer,
): Promise<Issuer | undefined> {
  const kept = {
    ...(await readKeptFiles(options.dir, id)),
    rootPem: rootPem ?? (await readRootPem(options.dir)),
  };
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
  if (since === undefined || overlapMs !== undefined)
    return since === undefined ? undefined : since + overlapMs!;
  // A signer that has signed before is known to everybody: this is a step back.
  if (since === 0) return 0;
  const lacks = await lacksRootOf(options, id, now);
  const before = (await ofWorkloads(options, now)).filter(
    (each) => each.issuedAt < since || lacks(each),
  );
  return Math.max(since + DEFAULT_OVERLAP_MS, lastEnd(before));
}

/** An identity that holds certificates and was not handed a bundle with a certain root. */
export interface WithoutRoot {
  readonly id: string;
  readonly certificates: number;
  /** When the last of them expires, epoch milliseconds. */
  readonly untilAt: number;
}

/**
 * The identities that would refuse what a kept signer signs. Replicas may share one, so each certificate that came without the signer's root
 * counts, until it has proved a renewal itself, or the proof by which it was got (a token, or one certificate such as that of `--prov-cert`) has
 * got another with the root.
 */
export async function withoutRootOf(
  options: RootsOptions,
  id: string,
  now: number,
): Promise<WithoutRoot[]> {
  // What has signed before is known to all.
  if ((await readSince(options.dir, id)) === 0) return [];
  const lacks = await lacksRootOf(options, id, now);
  const byIdentity = new Map<string, IssuedEntry[]>();
  for (const entry of await ofWorkloads(options, now)) pushTo(byIdentity, entry.id, entry);
  return [...byIdentity].flatMap(([identity, entries]) => {
    const lacking = lackingIn(entries, lacks);
    return lacking.length === 0
      ? []
      : [{ id: identity, certificates: lacking.length, untilAt: lastEnd(lacking) }];
  });
}

/** Those of one identity's certificates whose holder may have no other with the root. */
function lackingIn(
  entries: readonly IssuedEntry[],
  lacks: (entry: IssuedEntry) => boolean,
): IssuedEntry[] {
  const proofs = new Set(entries.map(({ provenBy }) => provenBy));
  const byProof = new Map<string | undefined, IssuedEntry[]>();
  for (const entry of entries) pushTo(byProof, entry.provenBy, entry);
  return [...byProof.values()].flatMap((group) => {
    const lacking = group.filter((entry) => lacks(entry) && !proofs.has(entry.serial));
    const handed = group.length - group.filter(lacks).length;
    return lacking.sort((a, b) => a.issuedAt - b.issuedAt).slice(handed);
  });
}

function pushTo<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}

/** Whether a certificate went out without the root that a kept signer leads to. */
async function lacksRootOf(
  options: RootsOptions,
  id: string,
  now: number,
): Promise<(entry: IssuedEntry) => boolean> {
  const rootPem = await readRootPem(options.dir);
  const verdict = await verdictOf(options, id, now, rootPem);
  const roots = rootsOf({ rootPem }).filter((root) => keyHash(root) === verdict?.rootKeySha256);
  const ids = new Set(roots.map(certificateId));
  return ({ handedRoots = [] }) => !handedRoots.some((each) => ids.has(each));
}

/** When the last of them expires, epoch milliseconds; 0 where there is none. */
export function lastEnd(entries: readonly Pick<IssuedEntry, 'notAfterAt'>[]): number {
  // One by one: there may be more of them than a call takes arguments.
  return entries.reduce((latest, { notAfterAt }) => Math.max(latest, notAfterAt), 0);
}

/** Certificates of workloads that are valid and not revoked. */
async function ofWorkloads(options: RootsOptions, now: number): Promise<IssuedEntry[]> {
  return withoutRevoked(options, await options.store.issued({}, now), now).then((entries) =>
    entries.filter(isWorkload),
  );
}

/** Valid certificates that lead to a root, are not revoked, and of a TLS server of ours not replaced. */
export async function inUse(
  options: RootsOptions,
  root: Certificate,
  now: number,
): Promise<IssuedEntry[]> {
  const newest = newestServers(await options.store.issued({}, now));
  const entries = await withoutRevoked(
    options,
    await options.store.issued({ rootKeySha256: keyHash(root) }, now),
    now,
  );
  return entries.filter((entry) => isWorkload(entry) || newest.has(entry.serial));
}

const isWorkload = ({ id }: IssuedEntry): boolean => id.startsWith('spiffe://');

/** A server shows the certificate that it got last, and no other. */
function newestServers(entries: readonly IssuedEntry[]): Set<string> {
  const newest = new Map<string, IssuedEntry>();
  for (const entry of entries) {
    if (!isWorkload(entry) && entry.issuedAt >= (newest.get(entry.id)?.issuedAt ?? 0))
      newest.set(entry.id, entry);
  }
  return new Set([...newest.values()].map(({ serial }) => serial));
}

async function withoutRevoked(
  options: RootsOptions,
  entries: readonly IssuedEntry[],
  now: number,
): Promise<IssuedEntry[]> {
  const revoked = new Set((await options.store.revocations(now)).map(({ serial }) => serial));
  return entries.filter(({ serial }) => !revoked.has(serial));
}

/** Kept signers that lead to none of the roots. */
export async function orphans(
  options: RootsOptions,
  files: CaFiles,
  now: number,
): Promise<string[]> {
  const ids: string[] = [];
  for (const id of await stagedIds(options.dir)) {
    const verdict = await verdictOf(options, id, now, files.rootPem);
    if (verdict === undefined) ids.push(id);
  }
  return ids;
}
