import { createServer } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { publishDir } from '../../base/atomic-dir';
import type { Deps } from '../../base/deps';
import { AgentError, invalid } from '../../base/errors';
import { iso } from '../../base/iso';
import { listenUnix } from '../../base/unix-socket';
import {
  type Certificate,
  certificatesPem,
  parseCertificates,
  usageWarnings,
} from '../../identity/certificate';
import { isSelfSigned, sameSubjectAndKey } from '../../identity/chain';
import type { KeyAlgorithm } from '../../identity/keys';
import { isValidAt } from '../../identity/valid-now';
import { assertPrivateDir, CA_FILES, type CaFiles, readCaFiles } from '../directory/ca-files';
import { acceptIssuer } from '../issuer';
import { makeRoot } from '../make-root';
import {
  certificateId,
  dropSigner,
  keepSigner,
  makeSignersDir,
  noteActive,
  noteSince,
  readActive,
  readKeptFiles,
  readSigner,
  readSince,
  signersDir,
  stagedIds,
  sweepSigners,
} from '../signers';
import { crossSigned, withoutDeadEnds } from './cross-sign';
import {
  activateAt,
  copyOf,
  inUse,
  keyHash,
  lastEnd,
  orphans,
  type RootsOptions,
  rootsOf,
  verdictOf,
  type WithoutRoot,
  withoutRootOf,
} from './root-facts';
import { type Candidate, readRootFile } from './root-file';
import { chooseRoot, chooseSigner } from './select-root';

/** A root that is told to everybody, or a signer that may follow. */
export interface RootStatus {
  /** Of the root, for `retire`; the beginning of its SHA-256. */
  readonly id: string;
  readonly subject: string;
  readonly notAfterAt: number;
  /** `active`: what is signed now leads to it. `ready`: its signer is kept and can be activated. `trusted`: in the bundle, no more. */
  readonly stage: 'active' | 'ready' | 'trusted';
  /** Of the kept signer that leads to it, for `activate`. */
  readonly signerId: string | undefined;
  /** From when on `activate` needs no force, epoch milliseconds. */
  readonly activateAt: number | undefined;
  /** Valid certificates that lead to it, and when the last of them expires. */
  readonly inUse: number;
  readonly inUseUntil: number | undefined;
  /** Of a root that is `ready`: who was not handed it yet, and would refuse what is signed under it. */
  readonly withoutIt: readonly WithoutRoot[];
}

/**
 * First stage: tells everybody of a root that nothing is signed under yet. Running it again does no harm, and finishes what a killed one
 * began.
 *
 * @param source  `pem`: the root; with the key of a signer (the root itself, or an intermediate that is in the file too), so that it can be
 *                activated. Without it, a new self-signed root is made. `force` takes a root as well that would cut off those who try it
 *                before its living self.
 * @returns       The id of the signer that can be activated, or without one the root's.
 * @throws        AgentError ERR_CA_STATE, or ERR_PARSE with field and rule for what the file holds.
 */
export async function addRoot(
  options: RootsOptions,
  source: { pem?: Buffer; algorithm: KeyAlgorithm; force?: boolean },
  deps: Deps,
): Promise<string> {
  return alone(options.dir, deps, async () => {
    const now = deps.clock.now();
    const current = await readCaFiles(options.dir);
    // Before a signer is kept: one that was made for another trust domain would be found by the next who adds.
    await acceptIssuer(copyOf(current), options, options.engine, now);
    const bundle = rootsOf(current);
    const candidate = source.pem
      ? readRootFile(source.pem, bundle)
      : await newCandidate(options, source.algorithm, current, now);
    const fresh = candidate.roots.filter(
      ({ sha256 }) => !bundle.some((each) => each.sha256 === sha256),
    );
    bundle.push(...fresh);
    for (const root of fresh) assertNotDeadBeside(root, bundle, source.force === true, now, deps);
    const rootPem = certificatesPem(bundle.map(({ der }) => der));
    if (candidate.signer) {
      // Judged with the roots as they will be; a signer that could never be activated is not taken.
      await acceptIssuer(
        copyOf({ ...candidate.signer.files, dir: options.dir, rootPem }),
        options,
        options.engine,
        now,
      );
      await keepSigner(options.dir, candidate.signer.id, { ...candidate.signer.files, rootPem });
    }
    await publish(options, { ...current, rootPem }, now);
    if (candidate.signer && (await readSince(options.dir, candidate.signer.id)) === undefined) {
      await noteSince(options.dir, candidate.signer.id, now);
    }
    const id = candidate.signer?.id ?? certificateId(candidate.roots[0]!);
    deps.log.info('CA root added', { id, roots: bundle.length });
    for (const warning of usageWarnings(candidate.roots))
      deps.log.warn('added root has warnings', { warning });
    return id;
  });
}

/**
 * Second stage: a kept signer signs from now on; the one before is kept, so that this can be taken back, and certifies it, so that clients
 * which know the root before only go on. Refused while somebody may not know its root: until `overlapMs` after it was added; where that is
 * not given, a day, and until no certificate is valid that was issued before; while an identity was not handed the root; and where the
 * signer before cannot certify it.
 *
 * @param which  The signer's or its root's id, or the beginning of one; may be left out where only one has never signed.
 * @returns      The signer's id; that of the active one where it is meant, which is said and changes nothing.
 * @throws       AgentError ERR_TOO_EARLY with the time from which on it is possible; ERR_CA_STATE.
 */
export async function activateRoot(
  options: RootsOptions,
  which: { id?: string | undefined; overlapMs?: number | undefined; force?: boolean },
  deps: Deps,
): Promise<string> {
  return alone(options.dir, deps, async () => {
    const now = deps.clock.now();
    const current = await readCaFiles(options.dir);
    const active = await readSigner(options.dir);
    const id = await chooseSigner(options, which.id, active.id, now);
    if (id === active.id) return tellActive(options.dir, id, deps);
    const readyAt = await activateAt(options, id, which.overlapMs, now);
    if (which.force !== true && (readyAt === undefined || now < readyAt))
      throw tooEarly(id, readyAt);
    const files = await readKeptFiles(options.dir, id);
    await assertHanded(options, id, which.force === true, now, deps);
    const kept = { ...files, dir: options.dir, rootPem: current.rootPem };
    const { chainPem, lost } = await crossSigned(options, kept, current, now);
    assertNoneLost(id, lost, which.force === true, deps);
    const next = { ...kept, chainPem };
    await keepSigner(options.dir, active.id, current);
    // What signed until now is known to all who are in use.
    if ((await readSince(options.dir, active.id)) === undefined)
      await noteSince(options.dir, active.id, 0);
    await publish(options, next, now);
    // After it: a note of a signer that is kept says that it has signed.
    await noteActive(options.dir, id, now);
    deps.log.info('CA signer activated', {
      signer: id,
      before: active.id,
      subject: (await readSigner(options.dir)).certificate.subject,
    });
    return id;
  });
}

/**
 * Third stage: a root is trusted no more, and signers that only it vouches for are forgotten with their keys. Refused for the root of the
 * active signer, always; and while a certificate that leads to it is valid and not revoked.
 *
 * @param which  The root's id or the beginning of it; may be left out where the active signer's root has only one beside it.
 * @throws       AgentError ERR_TOO_EARLY with what is still in use and until when; ERR_CA_STATE.
 */
export async function retireRoot(
  options: RootsOptions,
  which: { id?: string | undefined; force?: boolean },
  deps: Deps,
): Promise<string> {
  return alone(options.dir, deps, async () => {
    const now = deps.clock.now();
    const current = await readCaFiles(options.dir);
    const roots = rootsOf(current);
    const issuer = await acceptIssuer(copyOf(current), options, options.engine, now);
    const root = chooseRoot(roots, which.id, issuer.rootKeySha256);
    const rest = roots.filter((each) => each !== root);
    const rootPem = certificatesPem(rest.map(({ der }) => der));
    if (rest.length === 0) throw refused(root, 'must not be the only one');
    // The active signer must do without it, whatever leads where.
    await acceptIssuer(copyOf({ ...current, rootPem }), options, options.engine, now).catch(
      (cause) => {
        throw refused(
          root,
          'must not be what the active signer leads to',
          'activate another signer first',
          cause,
        );
      },
    );
    await assertUnused(options, root, rest, which.force === true, now, deps);
    for (const id of await orphans(options, { ...current, rootPem }, now))
      await dropSigner(options.dir, id);
    await publish(
      options,
      { ...current, rootPem, chainPem: withoutDeadEnds(current, rest, now) },
      now,
    );
    deps.log.info('CA root retired', { root: certificateId(root), roots: rest.length });
    return certificateId(root);
  });
}

/** Every root of the bundle, and how far it is. */
export async function listRoots(
  options: RootsOptions,
  overlapMs: number | undefined,
  now: number,
): Promise<RootStatus[]> {
  const current = await readCaFiles(options.dir);
  const issuer = await acceptIssuer(copyOf(current), options, options.engine, now);
  const activeId = (await readSigner(options.dir)).id;
  const signers: { id: string; rootKeySha256: string }[] = [];
  for (const id of await stagedIds(options.dir)) {
    const kept = await verdictOf(options, id, now, current.rootPem);
    if (kept && id !== activeId) signers.push({ id, rootKeySha256: kept.rootKeySha256 });
  }
  return Promise.all(
    rootsOf(current).map(async (root) => {
      const signer = signers.find(({ rootKeySha256 }) => rootKeySha256 === keyHash(root));
      const used = await inUse(options, root, now);
      const stage =
        issuer.rootKeySha256 === keyHash(root) ? 'active' : signer ? 'ready' : 'trusted';
      return {
        id: certificateId(root),
        subject: root.subject,
        notAfterAt: root.notAfterAt,
        stage,
        signerId: signer?.id,
        // What has signed before may do so again from this moment on.
        activateAt: signer && ((await activateAt(options, signer.id, overlapMs, now)) || now),
        inUse: used.length,
        inUseUntil: used.length === 0 ? undefined : lastEnd(used),
        withoutIt: signer && stage === 'ready' ? await withoutRootOf(options, signer.id, now) : [],
      };
    }),
  );
}

/**
 * Of several roots of one name and key a proxy tries the one that it meets first, so one that is not valid refuses every peer. Roots that are
 * handed out leave it out; copies of root-cert.pem do not.
 *
 * @see `proxyObstacle` for how Envoy searches.
 */
function assertNotDeadBeside(
  root: Certificate,
  bundle: readonly Certificate[],
  force: boolean,
  now: number,
  { log }: Deps,
): void {
  const copies = bundle.filter((each) => each !== root && sameSubjectAndKey(each, root));
  if (copies.length === 0) return;
  const outlasting = copies.find((each) => each.notAfterAt > root.notAfterAt);
  const [adding, begins, ends] = [
    `add root ${certificateId(root)} (${root.subject})`,
    iso(root.notBeforeAt),
    iso(root.notAfterAt),
  ];
  let error: AgentError | undefined;
  if (root.notAfterAt <= now) {
    error = invalid('ERR_CA_STATE', adding, `must not be expired: it ended at ${ends}`, {
      hint: 'add one that is valid; this one verifies nothing',
    });
  } else if (!isValidAt(root, now)) {
    const rule = `must be valid now, as its name and key are in the bundle already: it begins at ${begins}`;
    error = invalid('ERR_CA_STATE', adding, rule, {
      hint: `add it after ${begins}, or use --force: proxies that read root-cert.pem itself may refuse every peer until then`,
    });
  } else if (outlasting) {
    const rule = `must not end before the root of its name and key that is in the bundle already (${certificateId(outlasting)}): it ends at ${ends}`;
    error = invalid('ERR_CA_STATE', adding, rule, {
      hint: 'leave it out, the other does all that it does; or use --force: proxies that read root-cert.pem itself may refuse every peer from then on',
    });
  }
  if (error && !force) throw error;
  if (error) log.warn('added root may make proxies refuse every peer', { cause: error });
  for (const each of copies) {
    if (each.notAfterAt >= root.notAfterAt) continue;
    log.warn('added root replaces a root that expires earlier', {
      root: certificateId(each),
      until: iso(each.notAfterAt),
      hint: `keyturn ca root retire ${certificateId(each)}`,
    });
  }
}

/** A signer that a killed command has kept and not told of, or a new one. */
async function newCandidate(
  options: RootsOptions,
  algorithm: KeyAlgorithm,
  current: CaFiles,
  now: number,
): Promise<Candidate> {
  const activeId = (await readSigner(options.dir)).id;
  const told = new Set(rootsOf(current).map(certificateId));
  for (const id of await stagedIds(options.dir)) {
    const files = await readKeptFiles(options.dir, id);
    const [root] = parseCertificates(files.certPem, CA_FILES.cert);
    if (id !== activeId && root && !told.has(id) && isSelfSigned(root))
      return { roots: [root], signer: { id, files } };
  }
  const { keyPem, rootPem } = await makeRoot(options.engine, options.trustDomain, algorithm, now);
  const [root] = parseCertificates(rootPem, CA_FILES.root);
  return {
    roots: [root!],
    signer: { id: certificateId(root!), files: { keyPem, certPem: rootPem, chainPem: rootPem } },
  };
}

/** Replaces the four files in one step, after the same judgement that a running authority makes. */
async function publish(options: RootsOptions, files: CaFiles, now: number): Promise<void> {
  await acceptIssuer(copyOf(files), options, options.engine, now);
  const file = (name: string, bytes: Buffer, mode: number) => ({ name, bytes, mode });
  await publishDir(resolve(options.dir), [
    file(CA_FILES.key, files.keyPem.reveal(), 0o600),
    file(CA_FILES.cert, files.certPem, 0o644),
    file(CA_FILES.chain, files.chainPem, 0o644),
    file(CA_FILES.root, files.rootPem, 0o644),
  ]);
}

/** One such command at a time on a directory: each reads, decides and replaces. */
async function alone<T>(dir: string, deps: Deps, work: () => Promise<T>): Promise<T> {
  if (await assertPrivateDir(dir)) {
    throw new AgentError('ERR_CA_STATE', `change ${resolve(dir)}: it is mounted read-only`, {
      hint: 'change what it is mounted from',
    });
  }
  await makeSignersDir(dir);
  await sweepSigners(dir, deps.clock.now());
  // A socket's path must be short, and one of the two mostly is.
  const [absolute, here] = [
    join(signersDir(dir), '.busy'),
    relative(process.cwd(), join(signersDir(dir), '.busy')),
  ];
  const guard = {
    path: here.length < absolute.length ? here : absolute,
    mode: 0o600,
    what: 'change of the roots',
  };
  const lock = await listenUnix(guard, createServer(), deps);
  try {
    return await work();
  } finally {
    await lock.close();
  }
}

async function assertUnused(
  options: RootsOptions,
  root: Certificate,
  rest: readonly Certificate[],
  force: boolean,
  now: number,
  { log }: Deps,
): Promise<void> {
  // Renewed under the same key: what led to the one leads to the other.
  if (rest.some((other) => sameSubjectAndKey(other, root))) return;
  const used = await inUse(options, root, now);
  if (used.length === 0) return;
  const until = iso(lastEnd(used));
  const holders = [...new Set(used.map(({ id }) => id))];
  if (force) {
    log.warn('peers will refuse certificates in use', {
      certificates: used.length,
      until,
      of: firstOf(holders),
    });
    return;
  }
  throw invalid(
    'ERR_TOO_EARLY',
    retiring(root),
    `must not have certificates in use: ${used.length} until ${until}, of ${firstOf(holders)}`,
    {
      hint: 'wait until then, revoke them, or use --force and have them refused by their peers',
    },
  );
}

/** Nothing is signed under a root before each identity in use was handed it. */
async function assertHanded(
  options: RootsOptions,
  id: string,
  force: boolean,
  now: number,
  { log }: Deps,
): Promise<void> {
  const without = await withoutRootOf(options, id, now);
  if (without.length === 0) return;
  const of = firstOf(without.map((each) => each.id));
  const until = iso(lastEnd(without.map(({ untilAt }) => ({ notAfterAt: untilAt }))));
  if (force) {
    log.warn('identities without the new root will refuse peers until they renew', {
      identities: without.length,
      until,
      of,
    });
    return;
  }
  throw new AgentError(
    'ERR_TOO_EARLY',
    `activate ${id}: ${without.length} identities have not received its root: ${of}`,
    {
      rule: 'must not sign before each identity with a valid certificate has received its root',
      hint: `have them renew (keyturn rotate), wait until ${until}, or use --force: they refuse peers with new certificates until they renew`,
    },
  );
}

/** Copies of a root are where no register knows of them. */
function assertNoneLost(
  id: string,
  lost: readonly Certificate[],
  force: boolean,
  { log }: Deps,
): void {
  if (lost.length === 0) return;
  const of = firstOf(lost.map((root) => `${certificateId(root)} (${root.subject})`));
  if (force) {
    log.warn('clients with old roots only will refuse new certificates', {
      roots: of,
    });
    return;
  }
  throw new AgentError(
    'ERR_CA_STATE',
    `activate ${id}: clients that hold root ${of} only would refuse what it signs`,
    {
      rule: 'must verify by each root that is not retired, and the signer before may not certify another CA',
      hint: 'give every client the new root, then use --force; or add the new signer in one file with a certificate for it that leads to that root',
    },
  );
}

function firstOf(names: readonly string[]): string {
  return `${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} others` : ''}`;
}

/** A script that is run again has what it wants. */
async function tellActive(dir: string, id: string, { log }: Deps): Promise<string> {
  const since = await readActive(dir, id);
  log.warn('this CA signer is active already', {
    signer: id,
    ...(since !== undefined && { since: iso(since) }),
    hint: 'to sign with one of before again, name it: keyturn ca root list has its id',
  });
  return id;
}

function tooEarly(id: string, readyAt: number | undefined): AgentError {
  if (readyAt === undefined) {
    return new AgentError('ERR_CA_STATE', `activate ${id}: its root was never distributed`, {
      hint: 'run ca root add again to finish',
    });
  }
  return new AgentError(
    'ERR_TOO_EARLY',
    `activate ${id}: some workloads may not have its root before ${iso(readyAt)}`,
    {
      rule: 'must not sign before every workload has its root',
      hint: 'wait until then; use --overlap once all have renewed; or use --force, and peers without the root refuse new certificates',
    },
  );
}

function refused(root: Certificate, rule: string, hint?: string, cause?: unknown): AgentError {
  return invalid('ERR_CA_STATE', retiring(root), rule, { ...(hint && { hint }), cause });
}

const retiring = (root: Certificate): string =>
  `retire root ${certificateId(root)} (${root.subject})`;
