import { backoffMs } from '../../base/backoff';
import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import type { Secret } from '../../base/secret';
import {
  expiredCertificateHash,
  generateJoinToken,
  type JoinTokenEntry,
  joinTokenHash,
} from '../../identity/join-token';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../../identity/spiffe-id';
import type { KubeApi } from '../../kube/kube-api';
import { isKubeStatus } from '../../kube/kube-error';
import { KubeIssued } from './kube-issued';
import { type ConfigMap, type ConfigMapChange, KubeObjects } from './kube-objects';
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
import {
  decideClose,
  decideGiveBack,
  decideUse,
  type TokenClaim,
  type TokenUse,
} from './token-use';

/** Holds every revocation under its serial number, and the number of the last CRL. */
const REVOKED = 'keyturn-revoked';
const CRL_NUMBER = 'crl-number';
/** A ConfigMap may hold 1 MiB. */
const MAX_REVOKED_BYTES = 900 * 1024;
const TOKEN_MEMORY_MS = 24 * 3_600_000;
/** How often a change is tried again that another replica was faster with; each loses to somebody's progress. */
const MAX_CONFLICTS = 100;
/** Of the calls with one token; some are one call whose answers get lost. */
const MAX_TOKEN_CONFLICTS = 8;
const CONFLICT_BACKOFF = { firstMs: 5, maxMs: 250, jitterRatio: 0.9 };

/**
 * Opens the state of an authority in a cluster: ConfigMaps of one namespace, for any number of replicas. They hold no secret (of a join token
 * its hash), but whoever may write them may make join tokens, so the namespace should be the authority's own.
 *
 * @param namespace  Where `scripts/deploy/ca/rbac.yaml` allows get, list, watch, create, patch and delete of ConfigMaps.
 * @throws           AgentError ERR_CA_STATE: the API does not answer, or not to us.
 */
export async function openKubeStore(api: KubeApi, namespace: string, deps: Deps): Promise<CaStore> {
  const store = new KubeStore(api, namespace, deps);
  await store.begin();
  return store;
}

class KubeStore implements CaStore {
  readonly #where: string;
  readonly #deps: Deps;
  readonly #objects: KubeObjects;
  readonly #issued: KubeIssued;
  readonly #listeners = new Set<{ readonly call: () => void }>();
  readonly #stop = new AbortController();
  #watching: Promise<void> | undefined;

  constructor(api: KubeApi, namespace: string, deps: Deps) {
    this.#where = `namespace ${namespace} of ${api.server}`;
    this.#deps = deps;
    this.#objects = new KubeObjects(api, namespace);
    this.#issued = new KubeIssued(this.#objects);
  }

  /** Makes the object that all replicas share, so that later changes need not look whether it is there. */
  begin(): Promise<void> {
    return this.#try('open the state', async () => {
      if (await this.#objects.read(REVOKED)) return;
      await this.#objects
        .create(REVOKED, 'revoked', { data: { [CRL_NUMBER]: '0' } })
        .catch(ignoreConflict);
    });
  }

  recordIssued(entry: IssuedEntry): Promise<void> {
    return this.#try('write to the register', () => this.#issued.append(entry));
  }

  issued(query: IssuedQuery, now: number): Promise<readonly IssuedEntry[]> {
    return this.#try('read the register', () => this.#issued.find(query, now));
  }

  /** Kept in few objects, which are always read whole. */
  async issuedSince(query: IssuedQuery, now: number): Promise<IssuedReading> {
    return { entries: await this.issued(query, now), isWhole: true, end: new Map() };
  }

  createJoinToken(id: SpiffeId, ttlSeconds: number, now: number): Promise<Secret<string>> {
    return this.#try('make a join token', async () => {
      const token = generateJoinToken();
      const entry: JoinTokenEntry = {
        id: formatSpiffeId(id),
        createdAt: now,
        expiresAt: now + ttlSeconds * 1_000,
      };
      await this.#addToken(joinTokenHash(token)!, entry);
      return token;
    });
  }

  findJoinToken(token: Secret<string>, claim: TokenClaim, now: number): Promise<Redemption> {
    return this.#try('look up a join token', async () => {
      const found = await this.#look(joinTokenHash(token), claim, now);
      return found.kind === 'refused' ? found : { kind: 'good', id: found.id };
    });
  }

  redeemJoinToken(token: Secret<string>, claim: TokenClaim, now: number): Promise<Redemption> {
    return this.#try('redeem a join token', () => this.#redeem(joinTokenHash(token), claim, now));
  }

  redeemExpired(
    { serial, id, renewableUntilAt }: ExpiredCertificate,
    claim: TokenClaim,
    now: number,
  ): Promise<Redemption> {
    return this.#try('redeem a certificate', async () => {
      const hash = expiredCertificateHash(serial);
      if ((await this.#objects.read(tokenName(hash))) === undefined)
        await this.#addToken(hash, {
          id: formatSpiffeId(id),
          createdAt: now,
          expiresAt: renewableUntilAt,
        }).catch(ignoreConflict);
      return this.#redeem(hash, claim, now);
    });
  }

  giveBackExpired({ serial }: ExpiredCertificate, claim: TokenClaim): Promise<void> {
    return this.#try('release a certificate', () =>
      this.#giveBack(expiredCertificateHash(serial), claim),
    );
  }

  giveBackJoinToken(token: Secret<string>, claim: TokenClaim): Promise<void> {
    return this.#try('release a join token', () => this.#giveBack(joinTokenHash(token), claim));
  }

  deleteJoinTokens(query: JoinTokenQuery, now: number): Promise<number> {
    return this.#try('delete join tokens', async () => {
      const names: string[] = [];
      if (query.token) names.push(tokenName(joinTokenHash(query.token) ?? ''));
      else
        await this.#objects.each('join-token', (object) => {
          if (query.id === undefined || tokenEntry(object).id === query.id)
            names.push(object.metadata.name);
        });
      let deleted = 0;
      for (const name of names) if (await this.#close(name, query, now)) deleted += 1;
      return deleted;
    });
  }

  probe(): Promise<void> {
    return this.#try('write to the register', () => this.#issued.probe());
  }

  async #addToken(hash: string, entry: JoinTokenEntry): Promise<void> {
    await this.#objects.create(tokenName(hash), 'join-token', {
      data: { entry: JSON.stringify(entry) },
    });
  }

  async #redeem(hash: string | undefined, claim: TokenClaim, now: number): Promise<Redemption> {
    for (let conflicts = 0; ; conflicts += 1) {
      const found = await this.#look(hash, claim, now);
      if (found.kind === 'refused') return found;
      const { object, id, use } = found;
      // Ours already: the answer to the change got lost on its way.
      if (conflicts > 0 && use?.by === claim.by)
        return { kind: 'redeemed', id, again: use.bound!.answeredAgain };
      const won = await this.#changeUse(object, found.next, conflicts);
      if (won) return { kind: 'redeemed', id, again: found.next.bound!.answeredAgain };
    }
  }

  async #giveBack(hash: string | undefined, claim: TokenClaim): Promise<void> {
    for (let conflicts = 0; hash !== undefined; conflicts += 1) {
      const object = await this.#objects.read(tokenName(hash));
      const next = object && decideGiveBack(tokenUse(object), claim);
      if (!next || (await this.#changeUse(object, next, conflicts))) return;
    }
  }

  async #look(hash: string | undefined, claim: TokenClaim, now: number) {
    if (hash === undefined) return { kind: 'refused', why: 'malformed' } as const;
    const object = await this.#objects.read(tokenName(hash));
    if (object === undefined) return { kind: 'refused', why: 'unknown' } as const;
    const [entry, use] = [tokenEntry(object), tokenUse(object)];
    const decision = decideUse(entry, use, claim, now);
    return decision.kind === 'refused'
      ? decision
      : { ...decision, object, use, id: parseSpiffeId(entry.id) };
  }

  /** False where it is to be looked at again: that tells who has won, also where an answer got lost on its way. */
  async #changeUse(object: ConfigMap, use: TokenUse, conflicts: number): Promise<boolean> {
    try {
      await this.#objects.change(object, { data: { use: JSON.stringify(use) } });
      return true;
    } catch (caught) {
      if (conflicts >= MAX_TOKEN_CONFLICTS || !isWorthALook(caught)) throw caught;
      return false;
    }
  }

  async #close(name: string, { id, boundOnly }: JoinTokenQuery, now: number): Promise<boolean> {
    for (let conflicts = 0; ; conflicts += 1) {
      const object = await this.#objects.read(name);
      if (object === undefined) return false;
      const [entry, use] = [tokenEntry(object), tokenUse(object)];
      if (id !== undefined && entry.id !== id) return false;
      if (boundOnly && use?.bound === undefined) return false;
      const next = decideClose(entry, use, 'deleted');
      if (next === undefined) return false;
      if (await this.#changeUse(object, next, conflicts)) return entry.expiresAt > now;
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
        const entries = await this.#issued.find({ ...query, renewable: true }, now);
        await closeTokensOf(this, query, entries, now);
        const found = revocationsOf(entries, reason, now);
        let fresh: typeof found = [];
        await this.#changeShared(({ data = {} }) => {
          fresh = found.filter(([serial]) => !(serial in data));
          if (fresh.length === 0) return undefined;
          const added = Object.fromEntries(
            fresh.map(([serial, revocation]) => [serial, JSON.stringify(revocation)]),
          );
          if (fits({ ...data, ...added })) return { data: added };
          // What has expired makes room.
          const expired = expiredIn(data, now);
          const left = Object.fromEntries(
            Object.entries(data).filter(([key]) => !(key in expired)),
          );
          if (!fits({ ...left, ...added })) throw full(Object.keys(left).length - 1, fresh.length);
          return { data: { ...added, ...expired } };
        });
        if (fresh.length === 0) return revoked;
        for (const [, revocation] of fresh) revoked.push(revocation);
      }
    });
  }

  revocations(now: number): Promise<readonly Revocation[]> {
    return this.#try('read the revocations', async () => {
      const records = revocationsIn((await this.#objects.read(REVOKED))?.data ?? {});
      return records
        .filter((each) => neededUntilAt(each) > now)
        .sort((one, other) => (one.serial < other.serial ? -1 : 1));
    });
  }

  onRevocation(listener: () => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    this.#watching ??= this.#watch();
    return () => this.#listeners.delete(entry);
  }

  nextCrlNumber(): Promise<number> {
    return this.#try('number a CRL', async () => {
      let next = 0;
      await this.#changeShared(({ data = {} }) => {
        next = Number(data[CRL_NUMBER] ?? 0) + 1;
        return { data: { [CRL_NUMBER]: String(next) } };
      });
      return next;
    });
  }

  sweep(now: number): Promise<void> {
    return this.#try('tidy up', async () => {
      await this.#issued.sweep(now);
      const tokens: ConfigMap[] = [];
      await this.#objects.each('join-token', (object) => {
        if (tokenEntry(object).expiresAt + TOKEN_MEMORY_MS <= now) tokens.push(object);
      });
      for (const token of tokens) await this.#objects.remove(token);
      await this.#changeShared(({ data = {} }) => {
        const expired = expiredIn(data, now);
        return Object.keys(expired).length === 0 ? undefined : { data: expired };
      });
    });
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#listeners.clear();
    await this.#watching;
    await this.#issued.settled();
  }

  /** Changes the object that all replicas share, as `decide` says of what it is now; undefined leaves it. */
  async #changeShared(decide: (object: ConfigMap) => ConfigMapChange | undefined): Promise<void> {
    const { clock, random } = this.#deps;
    for (let conflicts = 1; ; conflicts += 1) {
      const object =
        (await this.#objects.read(REVOKED)) ??
        (await this.#objects.create(REVOKED, 'revoked', { data: { [CRL_NUMBER]: '0' } }));
      const change = decide(object);
      if (change === undefined) return;
      try {
        await this.#objects.change(object, change);
        return;
      } catch (caught) {
        if (conflicts === MAX_CONFLICTS) throw caught;
        ignoreConflict(caught);
      }
      await clock.sleepUntil(
        clock.now() + backoffMs(conflicts, CONFLICT_BACKOFF, random),
        this.#stop.signal,
      );
    }
  }

  async #watch(): Promise<void> {
    const tell = () => {
      for (const listener of [...this.#listeners]) listener.call();
    };
    // For what came before the watch begins.
    tell();
    await this.#objects.watch(REVOKED, tell, this.#deps, this.#stop.signal);
  }

  async #try<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (caught) {
      const error = AgentError.from(caught);
      if (error.code === 'ERR_CA_STATE' || error.code === 'ERR_BUG') throw error;
      throw new AgentError('ERR_CA_STATE', `${what} in ${this.#where}: ${error.message}`, {
        retry: 'soon',
        cause: error,
        ...(error.hint !== undefined && { hint: error.hint }),
        ...(error.retryAfterMs !== undefined && { retryAfterMs: error.retryAfterMs }),
      });
    }
  }
}

function tokenName(hash: string): string {
  return `keyturn-join-token-${hash}`;
}

function tokenEntry({ metadata, data = {} }: ConfigMap): JoinTokenEntry {
  try {
    return JSON.parse(data.entry ?? '') as JoinTokenEntry;
  } catch {
    throw new AgentError(
      'ERR_CA_STATE',
      `read ConfigMap ${metadata.name}: it holds no join token`,
      {
        hint: 'delete it and make a new token',
      },
    );
  }
}

function tokenUse({ data = {} }: ConfigMap): TokenUse | undefined {
  return data.use === undefined ? undefined : (JSON.parse(data.use) as TokenUse);
}

function revocationsIn(data: Readonly<Record<string, string>>): Revocation[] {
  return Object.entries(data)
    .filter(([key]) => key !== CRL_NUMBER)
    .map(([, value]) => JSON.parse(value) as Revocation);
}

/** A change that takes away what nobody needs to be told of any more. */
function expiredIn(data: Readonly<Record<string, string>>, now: number): Record<string, null> {
  const expired = revocationsIn(data).filter((each) => neededUntilAt(each) <= now);
  return Object.fromEntries(expired.map(({ serial }) => [serial, null]));
}

const fits = (data: Readonly<Record<string, string>>): boolean =>
  JSON.stringify(data).length <= MAX_REVOKED_BYTES;

function full(revoked: number, more: number): AgentError {
  return new AgentError(
    'ERR_CA_STATE',
    `revoke ${more} certificates: beside ${revoked} that have not expired they do not fit`,
    {
      hint: 'revoke fewer, e.g. by serial number, or replace the root of all of them: keyturn ca root add, activate, retire --force',
    },
  );
}

/** After these it may have happened or not. */
function isWorthALook(caught: unknown): boolean {
  return (
    isKubeStatus(caught, 409) ||
    ['ERR_TIMEOUT', 'ERR_CA_UNAVAILABLE', 'ERR_CA_RESPONSE'].includes(AgentError.from(caught).code)
  );
}

function ignoreConflict(caught: unknown): undefined {
  if (!isKubeStatus(caught, 409)) throw caught;
}
