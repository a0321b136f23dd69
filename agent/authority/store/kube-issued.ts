import { randomBytes } from 'node:crypto';
import { isKubeStatus } from '../../kube/kube-error';
import { Batches } from './batches';
import type { ConfigMap, KubeObjects } from './kube-objects';
import { type IssuedEntry, type IssuedQuery, matches, neededUntilAt } from './store';

/** Entries that share one request at most. */
const MAX_BATCH = 200;
/** The server writes an object anew with every change, so it pays to begin another long before its limit of 1 MiB. */
const MAX_BYTES = 96 * 1024;
/** A page that was begun may be gone by the next: etcd forgets old versions after five minutes. */
const MAX_ROUNDS = 5;
/** When the last entry expires: who tidies up need not look inside. */
const EXPIRES = 'keyturn.dev/expires-at';

/**
 * The register of certificates as ConfigMaps. Each process fills one of its own after the other, so replicas never wait for each other;
 * whoever tidies up removes one on condition that it is as it was read, and its writer begins another.
 */
export class KubeIssued {
  /** Undefined is no entry, but a write all the same. */
  readonly #batches = new Batches<IssuedEntry | undefined>(MAX_BATCH, (batch) =>
    this.#write(batch),
  );
  #current: { object: ConfigMap; bytes: number; expiresAt: number; keys: number } | undefined;

  constructor(private readonly objects: KubeObjects) {}

  append(entry: IssuedEntry): Promise<void> {
    return this.#batches.add(entry);
  }

  /** Writes to where the next entry will go, but no entry. */
  probe(): Promise<void> {
    return this.#batches.add(undefined);
  }

  async find(query: IssuedQuery, now: number): Promise<IssuedEntry[]> {
    for (let round = 1; ; round += 1) {
      const found = new Map<string, IssuedEntry>();
      const visit = ({ data = {} }: ConfigMap) => {
        for (const batch of Object.values(data)) {
          for (const entry of JSON.parse(batch) as IssuedEntry[])
            if (matches(entry, query, now)) found.set(entry.serial, entry);
        }
      };
      try {
        await this.objects.each('issued', visit);
        return [...found.values()];
      } catch (caught) {
        if (!isKubeStatus(caught, 410) || round === MAX_ROUNDS) throw caught;
      }
    }
  }

  async sweep(now: number): Promise<void> {
    const over: ConfigMap[] = [];
    await this.objects.each('issued', (object) => {
      if (Number(object.metadata.annotations?.[EXPIRES]) <= now) over.push(object);
    });
    for (const object of over) await this.objects.remove(object);
  }

  settled(): Promise<void> {
    return this.#batches.settled();
  }

  async #write(batch: readonly (IssuedEntry | undefined)[]): Promise<void> {
    const entries = batch.filter((each) => each !== undefined);
    const text = JSON.stringify(entries);
    const expiresAt = Math.max(0, ...entries.map(neededUntilAt));
    const current = this.#current;
    // Until it is known to have worked there is no current one: after a failure nobody knows what is in it.
    this.#current = undefined;
    if (current && current.bytes + text.length <= MAX_BYTES) {
      const next = {
        ...current,
        bytes: current.bytes + text.length,
        expiresAt: Math.max(current.expiresAt, expiresAt),
        keys: current.keys + 1,
      };
      const change = {
        annotations: { [EXPIRES]: String(next.expiresAt) },
        data: { [String(next.keys)]: text },
      };
      const object = await this.objects.change(current.object, change).catch(unlessTaken);
      if (object) {
        this.#current = { ...next, object };
        return;
      }
    }
    const name = `keyturn-issued-${randomBytes(12).toString('hex')}`;
    const object = await this.objects.create(name, 'issued', {
      annotations: { [EXPIRES]: String(expiresAt) },
      data: { '1': text },
    });
    this.#current = { object, bytes: text.length, expiresAt, keys: 1 };
  }
}

/** Removed by whoever tidied up, or changed by nobody knows whom. */
function unlessTaken(caught: unknown): undefined {
  if (!isKubeStatus(caught, 404) && !isKubeStatus(caught, 409)) throw caught;
}
