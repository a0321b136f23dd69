import { chmod } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Deps } from '../../../agent/base/deps';
import { syncDirectory } from '../../../agent/base/durable-files';
import type { FileWatch } from '../../../agent/base/file-watch';
import { makeDirectory } from '../../../agent/base/make-directory';
import type { Secret } from '../../../agent/base/secret';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../../../agent/identity/spiffe-id';
import { assertPrivateDir } from '../ca-files';
import { nextNumber } from './crl-numbers';
import { IssuedLog } from './issued-log';
import { generateJoinToken, type JoinTokenEntry, joinTokenHash } from './join-tokens';
import { RecordFiles } from './record-files';
import { revocationsOf } from './revoke';
import type { CaStore, IssuedEntry, IssuedQuery, Redemption, Revocation, RevocationReason } from './store';
import { storeError } from './store-error';

/** Below the CA directory. */
const STATE_DIR = 'state';
/** Until a server knows of a revocation, what was revoked can still get its successor. */
const REVOCATION_DEBOUNCE_MS = 5;

const PARTS = { issued: 'issued', tokens: 'tokens', usedTokens: 'used-tokens', revoked: 'revoked', crlNumber: 'crl-number' } as const;
/** For so long an expired or used token is told from one that never was. */
const TOKEN_MEMORY_MS = 24 * 3_600_000;

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
    for (const path of [resolve(dir), root, ...Object.values(PARTS).map((part) => join(root, part))]) await makePrivate(path);
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
  readonly #usedTokens: RecordFiles<JoinTokenEntry>;
  readonly #revoked: RecordFiles<Revocation>;
  readonly #listeners = new Set<{ readonly call: () => void }>();
  #watch: Promise<FileWatch> | undefined;

  constructor(root: string, deps: Deps) {
    this.#root = root;
    this.#deps = deps;
    this.#log = new IssuedLog(join(root, PARTS.issued), deps);
    this.#tokens = new RecordFiles(join(root, PARTS.tokens));
    this.#usedTokens = new RecordFiles(join(root, PARTS.usedTokens));
    this.#revoked = new RecordFiles(join(root, PARTS.revoked));
  }

  /** Reads everything, so that damage is found at the start and not when it matters. */
  async check(now: number): Promise<void> {
    await this.#log.check(now);
    for (const part of [this.#tokens, this.#usedTokens, this.#revoked]) await part.readAll();
  }

  recordIssued(entry: IssuedEntry): Promise<void> {
    return this.#log.append(entry);
  }

  issued(query: IssuedQuery, now: number): Promise<readonly IssuedEntry[]> {
    return this.#try('read the register', () => this.#log.find(query, now));
  }

  createJoinToken(id: SpiffeId, ttlSeconds: number, now: number): Promise<Secret<string>> {
    return this.#try('make a join token', async () => {
      const token = generateJoinToken();
      const entry = { id: formatSpiffeId(id), createdAt: now, expiresAt: now + ttlSeconds * 1_000 };
      await this.#tokens.add(new Map([[joinTokenHash(token)!, entry]]));
      return token;
    });
  }

  redeemJoinToken(token: Secret<string>, now: number): Promise<Redemption> {
    return this.#try('redeem a join token', async () => {
      const found = await this.#find(token, now);
      if (found.kind === 'refused') return found;
      const won = await this.#tokens.move(joinTokenHash(token)!, this.#usedTokens);
      return won ? { kind: 'redeemed', id: found.id } : { kind: 'refused', why: 'used' };
    });
  }

  findJoinToken(token: Secret<string>, now: number): Promise<Redemption> {
    return this.#try('find a join token', () => this.#find(token, now));
  }

  async #find(token: Secret<string>, now: number): Promise<Redemption> {
    const hash = joinTokenHash(token);
    if (hash === undefined) return { kind: 'refused', why: 'malformed' };
    const entry = await this.#tokens.read(hash);
    if (entry === undefined) return { kind: 'refused', why: (await this.#usedTokens.read(hash)) ? 'used' : 'unknown' };
    if (entry.expiresAt <= now) return { kind: 'refused', why: 'expired' };
    return { kind: 'good', id: parseSpiffeId(entry.id) };
  }

  revoke(query: IssuedQuery, reason: RevocationReason, now: number): Promise<readonly Revocation[]> {
    return this.#try('revoke', async () => {
      const revoked: Revocation[] = [];
      for (;;) {
        const known = await this.#revoked.readAll();
        const found = revocationsOf(await this.#log.find(query, now), reason, now).filter(([serial]) => !known.has(serial));
        if (found.length === 0) return revoked;
        const records = new Map(found);
        for (const serial of await this.#revoked.add(records)) revoked.push(records.get(serial)!);
      }
    });
  }

  revocations(now: number): Promise<readonly Revocation[]> {
    return this.#try('read the revocations', async () => {
      const records = [...(await this.#revoked.readAll()).values()];
      return records.filter(({ notAfterAt }) => notAfterAt > now).sort((one, other) => (one.serial < other.serial ? -1 : 1));
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
      await this.#usedTokens.sweep(forgotten, now);
      await this.#revoked.sweep(({ notAfterAt }) => notAfterAt <= now, now);
    });
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await (await this.#watch)?.close();
    await this.#log.close();
  }

  async #follow(): Promise<FileWatch> {
    const { watchFiles } = await import('../../../agent/base/file-watch');
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
