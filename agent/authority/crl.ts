import { createHash } from 'node:crypto';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import { writePemSteps } from '../base/pem';
import { eachOf, inTurns, joinSteps, type Steps } from '../base/steps';
import { Trouble } from '../base/trouble';
import { certificatesPem } from '../identity/certificate';
import { createCrl } from '../identity/crl';
import { MAX_CRL_ENTRIES } from '../identity/crl-bounds';
import type { RevokedSerial } from '../identity/crl-entries';
import { keyIdentifier } from '../identity/public-key';
import { readSigner, type Signer, signerDir, stagedIds } from './signers';
import { type CaStore, REVOCATION_REASONS, type Revocation } from './store/store';

export interface CrlOptions {
  /** The CA directory: every signer in it signs a list of its own. */
  readonly dir: string;
  readonly store: Pick<CaStore, 'revocations' | 'onRevocation' | 'nextCrlNumber'>;
  /** From thisUpdate to nextUpdate, default a day. A new list is made after a quarter of it, and after each revocation. */
  readonly validityMs?: number;
}

/** Lists as they are published. */
export interface PublishedCrls {
  /**
   * One list for each signer, also for one that does not sign yet and one that no longer does, because verifiers refuse every certificate
   * whose issuer has no list. Behind the lists the signers' certificates, for whoever knows their root only.
   */
  readonly pem: Uint8Array;
  /** The list of the signer in use alone. */
  readonly der: Uint8Array;
}

/** The certificate revocation lists of an authority, made when they are asked for. */
export interface CrlPublisher {
  /** @throws AgentError ERR_CA_STATE. The last lists stay good until their nextUpdate. */
  current(): Promise<PublishedCrls>;
  /** Why the last attempt failed; it is made again by itself. */
  problem(): AgentError | undefined;
  close(): Promise<void>;
}

const DEFAULT_VALIDITY_MS = 24 * 3_600_000;
/** Whoever asks may not make us read keys at any rate. */
const LOOK_MS = 1_000;
/** Verifiers' clocks may be behind, as with certificates. */
const BACKDATE_MS = 2 * 60_000;
const NEARLY_FULL = 0.8;
const PER_STEP = 5_000;

export function createCrlPublisher(options: CrlOptions, deps: Deps): CrlPublisher {
  const { dir, store, validityMs = DEFAULT_VALIDITY_MS } = options;
  let made: Made | undefined;
  let lookAgainAt = 0;
  let known: readonly Revocation[] | undefined;
  let changes = 0;
  const unsubscribe = store.onRevocation(() => {
    changes += 1;
    known = undefined;
  });

  async function make(): Promise<void> {
    const now = deps.clock.now();
    if (made && now < Math.min(lookAgainAt, made.renewAt)) return;
    const [signers, change] = [await allSigners(dir), changes];
    // Read again for each new list, should word of a change have been lost.
    const revocations = known && made && now < made.renewAt ? known : await store.revocations(now);
    if (change === changes) known = revocations;
    lookAgainAt = now + LOOK_MS;
    if (made && now < made.renewAt && (await inTurns(isOf(made, signers, revocations)))) return;
    const number = await store.nextCrlNumber();
    const times = { thisUpdateAt: now - BACKDATE_MS, nextUpdateAt: now + validityMs };
    const listed = await inTurns(listedBy(revocations, now));
    const [listsDer, listsPem]: [Uint8Array[], Buffer[]] = [[], []];
    for (const signer of signers) {
      const der = await signList(signer, listed, { number, ...times });
      listsDer.push(der);
      listsPem.push(await inTurns(writePemSteps('X509 CRL', der)));
    }
    const certificates = signers.flatMap(({ certificate, above }) => [certificate, ...above]);
    const unique = new Map(certificates.map(({ sha256, der }) => [sha256, der]));
    made = {
      pem: await inTurns(joinSteps([...listsPem, certificatesPem([...unique.values()])])),
      der: listsDer[0]!,
      renewAt: now + validityMs / 4,
      signers: signers.map(({ id }) => id),
      revocations,
    };
    const revoked = [...listed.values()].reduce((sum, { length }) => sum + length, 0);
    deps.log.info('CRL signed', {
      number,
      revoked,
      signers: signers.length,
      nextUpdate: iso(times.nextUpdateAt),
    });
    // While there is time to replace a root.
    if (revoked >= MAX_CRL_ENTRIES * NEARLY_FULL)
      deps.log.warn('CRL nearly full', { revoked, holds: MAX_CRL_ENTRIES });
  }

  const trouble = new Trouble(
    {
      attempt: make,
      began: (cause) => deps.log.error('CRL signing failed, serving the previous one', { cause }),
      passed: () => deps.log.info('CRL signing recovered'),
    },
    deps,
  );
  return {
    async current() {
      await trouble.tryNow();
      return made!;
    },
    problem: () => trouble.problem(),
    async close() {
      unsubscribe();
      await trouble.close();
    },
  };
}

interface Made extends PublishedCrls {
  readonly renewAt: number;
  /** Whose lists these are, and what is revoked. */
  readonly signers: readonly string[];
  readonly revocations: readonly Revocation[];
}

function* isOf(
  made: Made,
  signers: readonly Signer[],
  revocations: readonly Revocation[],
): Steps<boolean> {
  if (made.signers.join() !== signers.map(({ id }) => id).join()) return false;
  if (made.revocations === revocations) return true;
  if (made.revocations.length !== revocations.length) return false;
  for (const [index, { serial }] of revocations.entries()) {
    if (index % PER_STEP === 0) yield;
    if (made.revocations[index]!.serial !== serial) return false;
  }
  return true;
}

/** What has not expired, by who signed it: the signer's key identifier, lower-case hex. */
function* listedBy(
  revocations: readonly Revocation[],
  now: number,
): Steps<ReadonlyMap<string, readonly RevokedSerial[]>> {
  const listed = new Map<string, RevokedSerial[]>();
  yield* eachOf(revocations, PER_STEP, ({ serial, issuerKeyId, notAfterAt, revokedAt, reason }) => {
    if (notAfterAt <= now) return;
    const entry = { serial, revokedAt, reason: REVOCATION_REASONS[reason] };
    const known = listed.get(issuerKeyId);
    if (known) known.push(entry);
    else listed.set(issuerKeyId, [entry]);
  });
  return listed;
}

function signList(
  { certificate, key }: Signer,
  listed: ReadonlyMap<string, readonly RevokedSerial[]>,
  facts: { number: number; thisUpdateAt: number; nextUpdateAt: number },
) {
  const keyId = certificate.subjectKeyId ?? keyIdentifier(key.spkiDer);
  const revoked = listed.get(Buffer.from(keyId).toString('hex')) ?? [];
  return createCrl(
    { issuerDer: certificate.subjectDer, authorityKeyId: keyId, revoked, ...facts },
    key,
  );
}

/** The one that signs, and those that are kept beside it; each key once, since a list belongs to a key. */
async function allSigners(dir: string): Promise<Signer[]> {
  const signers = new Map<string, Signer>();
  const add = async (path: string) => {
    const signer = await readSigner(path);
    if (signer.certificate.keyUsage && !signer.certificate.keyUsage.usages.includes('cRLSign'))
      return;
    const key = createHash('sha256')
      .update(signer.certificate.subjectDer)
      .update(signer.key.spkiDer)
      .digest('hex');
    if (!signers.has(key)) signers.set(key, signer);
  };
  await add(dir);
  for (const id of await stagedIds(dir)) await add(signerDir(dir, id));
  if (signers.size === 0) {
    throw new AgentError(
      'ERR_CA_STATE',
      `sign a CRL: no signer of ${dir} has the key usage cRLSign`,
      { hint: 'plug in a CA that has it' },
    );
  }
  return [...signers.values()];
}
