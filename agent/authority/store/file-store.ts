import { chmod } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Deps } from '../../base/deps';
import { syncDirectory } from '../../base/durable-files';
import type { FileWatch } from '../../base/file-watch';
import { makeDirectory } from '../../base/make-directory';
import { assertTrustedPath } from '../../base/open-directory';
import type { Secret } from '../../base/secret';
import { eachOf, inTurns, type Steps } from '../../base/steps';
import {
  expiredCertificateHash,
  generateJoinToken,
  type JoinTokenEntry,
  joinTokenHash,
} from '../../identity/join-token';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../../identity/spiffe-id';
import { assertPrivateDir } from '../directory/ca-files';
import { nextNumber } from './crl-numbers';
import { IssuedLog } from './issued-log';
import { RecordFiles } from './record-files';
import { closeTokensOf, revocationsOf } from './revoke';
import {
  type CaStore,
  type ExpiredCertificate,
  type IssuedEntry,
  type IssuedQuery,
  type IssuedReading,
  type JoinTokenQuery,
  neededUntilAt,
  type Redemption,
  type Revocation,
  type RevocationReason,
} from './store';
import { storeError } from './store-error';
import {
  decideClose,
  decideGiveBack,
  decideUse,
  type TokenClaim,
  type TokenUse,
} from './token-use';

/** Below the CA directory. */
const STATE_DIR = 'state';
/** Until a server knows of a revocation, what was revoked can still get its successor. */
const REVOCATION_DEBOUNCE_MS = 5;

const PARTS = {
  issued: 'issued',
  tokens: 'tokens',
  tokenUses: 'token-uses',
  revoked: 'revoked',
  crlNumber: 'crl-number',
} as const;
/** For so long an expired or used token is distinguished from an unknown one. */
const TOKEN_MEMORY_MS = 24 * 3_600_000;
/** Changes of one token, the most. Answers are few; a token that is given back again and again is not. */
const MAX_USES = 200;
const PER_STEP = 5_000;

/**
 * Opens the state of an authority on one machine: `DIR/state`, made where it is missing, 0700 with files of 0600. It holds no lock: a command
 * may work on it beside a running server, and two servers may share it.
 *
 * @param dir  The CA directory.
 * @throws     AgentError ERR_CA_STATE: open to others, not writable, or damaged (with the file and the byte).
 */
export async function openFileStore(dir: string, deps: Deps): Promise<CaStore> {
  const root = join(resolve(dir), STATE_DIR);
  const store = new FileStore(root, deps);
  try {
    assertTrustedPath(dirname(resolve(dir)), 'parent of the CA directory', 'ERR_CA_STATE');
    for (const path of [
      resolve(dir),
      root,
      ...Object.values(PARTS).map((part) => join(root, part)),
    ])
      await makePrivate(path);
    await store.check(deps.clock.now());
    return store;
  } catch (caught) {
    throw storeError(`open ${root}`, caught);
  }
}

async function makePrivate(path: string): Promise<void> {
  const made = await makeDirectory(path, 0o700);
  if (made !== undefined) {
    await chmod(path, 0o700);
    await syncDirectory(join(path, '..'));
  }
  await assertPrivateDir(path);
}

class FileStore implements CaStore {
  readonly #root: string;
  readonly #deps: Deps;
  readonly #log: IssuedLog;
  readonly #tokens: RecordFiles<JoinTokenEntry>;
  /** Each change of a token under its hash and the number of the change: of several processes one makes it. */
  readonly #tokenUses: RecordFiles<TokenUse>;
  readonly #revoked: RecordFiles<Revocation>;
  readonly #listeners = new Set<{ readonly call: () => void }>();
  #revocations: Revocations = { of: new Map(), all: [], fromAt: 0, untilAt: 0 };
  #watch: Promise<FileWatch> | undefined;

  constructor(root: string, deps: Deps) {
    this.#root = root;
    this.#deps = deps;
    this.#log = new IssuedLog(join(root, PARTS.issued), deps);
    this.#tokens = new RecordFiles(join(root, PARTS.tokens));
    this.#tokenUses = new RecordFiles(join(root, PARTS.tokenUses));
    this.#revoked = new RecordFiles(join(root, PARTS.revoked));
  }

  /** Reads everything, so that damage is found at the start and not when it matters. */
  async check(now: number): Promise<void> {
    await this.#log.check(now);
    for (const part of [this.#tokens, this.#tokenUses, this.#revoked]) await part.readAll();
  }

  recordIssued(entry: IssuedEntry): Promise<void> {
    return this.#log.append(entry);
  }

  issued(query: IssuedQuery, now: number): Promise<readonly IssuedEntry[]> {
    return this.#try('read the register', () => this.#log.find(query, now));
  }

  issuedSince(
    query: IssuedQuery,
    now: number,
    since: IssuedReading['end'] | undefined,
  ): Promise<IssuedReading> {
    return this.#try('read the register', () => this.#log.findSince(query, now, since));
  }

  createJoinToken(id: SpiffeId, ttlSeconds: number, now: number): Promise<Secret<string>> {
    return this.#try('make a join token', async () => {
      const token = generateJoinToken();
      const entry = { id: formatSpiffeId(id), createdAt: now, expiresAt: now + ttlSeconds * 1_000 };
      await this.#tokens.add(new Map([[joinTokenHash(token)!, entry]]));
      return token;
    });
  }

  findJoinToken(token: Secret<string>, claim: TokenClaim, now: number): Promise<Redemption> {
    return this.#try('look up a join token', async () => {
      const found = await this.#look(joinTokenHash(token), claim, now);
      return found.kind === 'refused' ? found : { kind: 'good', id: parseSpiffeId(found.entry.id) };
    });
  }

  redeemJoinToken(token: Secret<string>, claim: TokenClaim, now: number): Promise<Redemption> {
    return this.#try('redeem a join token', () => this.#redeem(joinTokenHash(token), claim, now));
  }

  giveBackJoinToken(token: Secret<string>, claim: TokenClaim): Promise<void> {
    return this.#try('release a join token', () => this.#giveBack(joinTokenHash(token), claim));
  }

  redeemExpired(
    { serial, id, renewableUntilAt }: ExpiredCertificate,
    claim: TokenClaim,
    now: number,
  ): Promise<Redemption> {
    return this.#try('redeem a certificate', async () => {
      const hash = expiredCertificateHash(serial);
      // Whoever comes first makes it.
      await this.#tokens.add(
        new Map([[hash, { id: formatSpiffeId(id), createdAt: now, expiresAt: renewableUntilAt }]]),
      );
      return this.#redeem(hash, claim, now);
    });
  }

  giveBackExpired({ serial }: ExpiredCertificate, claim: TokenClaim): Promise<void> {
    return this.#try('release a certificate', () =>
      this.#giveBack(expiredCertificateHash(serial), claim),
    );
  }

  deleteJoinTokens(query: JoinTokenQuery, now: number): Promise<number> {
    return this.#try('delete join tokens', async () => {
      const wanted = query.token && joinTokenHash(query.token);
      let deleted = 0;
      for (const [hash, entry] of await this.#tokens.readAll()) {
        if (query.token && hash !== wanted) continue;
        if (query.id !== undefined && entry.id !== query.id) continue;
        if (await this.#close(hash, entry, query, now)) deleted += 1;
      }
      return deleted;
    });
  }

  probe(): Promise<void> {
    return this.#try('write to the register', () => this.#log.probe());
  }

  async #redeem(hash: string | undefined, claim: TokenClaim, now: number): Promise<Redemption> {
    for (;;) {
      const found = await this.#look(hash, claim, now);
      if (found.kind === 'refused') return found;
      const { entry, count, next } = found;
      if (await this.#addUse(hash!, count, next))
        return { kind: 'redeemed', id: parseSpiffeId(entry.id), again: next.bound!.answeredAgain };
    }
  }

  async #giveBack(hash: string | undefined, claim: TokenClaim): Promise<void> {
    if (hash === undefined) return;
    const { use, count } = await this.#lastUse(hash);
    const next = decideGiveBack(use, claim);
    // Where another was faster, the token is in use again.
    if (next) await this.#addUse(hash, count, next);
  }

  async #look(hash: string | undefined, claim: TokenClaim, now: number) {
    if (hash === undefined) return { kind: 'refused', why: 'malformed' } as const;
    const entry = await this.#tokens.read(hash);
    if (entry === undefined) return { kind: 'refused', why: 'unknown' } as const;
    const { use, count } = await this.#lastUse(hash);
    const decision = decideUse(entry, use, claim, now);
    if (decision.kind === 'use' && count >= MAX_USES)
      return { kind: 'refused', why: 'used' } as const;
    return decision.kind === 'refused' ? decision : { ...decision, entry, count };
  }

  /** Uses are numbered without a gap and never change, so the first that is missing tells the last. */
  async #lastUse(hash: string): Promise<{ use: TokenUse | undefined; count: number }> {
    let use: TokenUse | undefined;
    for (let count = 0; ; count += 1) {
      const next = await this.#tokenUses.read(`${hash}.${count}`);
      if (next === undefined) return { use, count };
      use = next;
    }
  }

  async #addUse(hash: string, number: number, use: TokenUse): Promise<boolean> {
    return (await this.#tokenUses.add(new Map([[`${hash}.${number}`, use]]))).length > 0;
  }

  async #close(
    hash: string,
    entry: JoinTokenEntry,
    { boundOnly }: JoinTokenQuery,
    now: number,
  ): Promise<boolean> {
    for (;;) {
      const { use, count } = await this.#lastUse(hash);
      if (boundOnly && use?.bound === undefined) return false;
      const next = decideClose(entry, use, 'deleted');
      if (next === undefined) return false;
      if (await this.#addUse(hash, count, next)) return entry.expiresAt > now;
    }
  }

  revoke(
    query: IssuedQuery,
    reason: RevocationReason,
    now: number,
  ): Promise<readonly Revocation[]> {
    return this.#try('revoke', async () => {
      const revoked: Revocation[] = [];
      for (;;) {
        const known = await this.#revoked.readAll();
        const entries = await this.#log.find({ ...query, renewable: true }, now);
        await closeTokensOf(this, query, entries, now);
        const found = revocationsOf(entries, reason, now).filter(([serial]) => !known.has(serial));
        if (found.length === 0) return revoked;
        const records = new Map(found);
        for (const serial of await this.#revoked.add(records)) revoked.push(records.get(serial)!);
      }
    });
  }

  revocations(now: number): Promise<readonly Revocation[]> {
    return this.#try('read the revocations', async () => {
      const records = await this.#revoked.readAll();
      const last = this.#revocations;
      // The same array for the same revocations, so that nobody compares them one by one.
      if (records === last.of && last.fromAt <= now && now < last.untilAt) return last.all;
      const needed = await inTurns(neededOf(records, now));
      const isSame = records === last.of && needed.all.length === last.all.length;
      this.#revocations = isSame ? { ...needed, all: last.all } : needed;
      return this.#revocations.all;
    });
  }

  onRevocation(listener: () => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    this.#watch ??= this.#follow();
    return () => this.#listeners.delete(entry);
  }

  nextCrlNumber(): Promise<number> {
    return this.#try('number a CRL', () => nextNumber(join(this.#root, PARTS.crlNumber)));
  }

  sweep(now: number): Promise<void> {
    return this.#try('tidy up', async () => {
      await this.#log.sweep(now);
      const forgotten = ({ expiresAt }: JoinTokenEntry) => expiresAt + TOKEN_MEMORY_MS <= now;
      await this.#tokens.sweep(forgotten, now);
      await this.#tokenUses.sweep(({ expiresAt }) => expiresAt + TOKEN_MEMORY_MS <= now, now);
      await this.#revoked.sweep((each) => neededUntilAt(each) <= now, now);
    });
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await (await this.#watch)?.close();
    await this.#log.close();
  }

  async #follow(): Promise<FileWatch> {
    const { watchFiles } = await import('../../base/file-watch');
    const tell = () => {
      for (const listener of [...this.#listeners]) listener.call();
    };
    const watch = await watchFiles([this.#revoked.dir], tell, this.#deps, REVOCATION_DEBOUNCE_MS);
    // For what came between the listener's own first look and the watch.
    tell();
    return watch;
  }

  async #try<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (caught) {
      throw storeError(`${what} in ${this.#root}`, caught);
    }
  }
}

/** What of the records is needed, and from when until when it is that, epoch milliseconds. */
interface Revocations {
  readonly of: ReadonlyMap<string, Revocation>;
  readonly all: readonly Revocation[];
  readonly fromAt: number;
  readonly untilAt: number;
}

function* neededOf(of: ReadonlyMap<string, Revocation>, now: number): Steps<Revocations> {
  const all: Revocation[] = [];
  let firstEndAt = Number.POSITIVE_INFINITY;
  yield* eachOf([...of.values()], PER_STEP, (each) => {
    const endAt = neededUntilAt(each);
    if (endAt <= now) return;
    all.push(each);
    firstEndAt = Math.min(firstEndAt, endAt);
  });
  return { of, all, fromAt: now, untilAt: firstEndAt };
}
