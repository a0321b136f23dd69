import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { type OutputFile, publishDir, unpublishDir } from '../base/atomic-dir';
import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import type { Watched } from '../base/watched';
import type { CertState } from '../identity/cert-state';
import { parseCertificates } from '../identity/certificate';
import { type KeyPair, privateKeyPem, readPrivateKey } from '../identity/keys';
import { formatSpiffeId, type SpiffeId } from '../identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';
import {
  CERT_FILES,
  type CertContents,
  certFiles,
  type FileOutput,
  followState,
} from './file-output';
import type { KeptKey } from './issue';
import { readTogether } from './read-together';

/** Keeps the certificate over restarts, so that an agent which comes up while its CA is away still has one to serve. */
export interface StateStore {
  /**
   * The kept certificate, proven again against `trust` at `now`, or, where it has expired since, at its last moment: then it serves nobody,
   * but tells what is missed. Undefined where there is none or it does not hold any more: damaged, of another identity or CA; that is
   * logged, never thrown.
   */
  load(trust: TrustBundle, now: number): Promise<Svid | undefined>;
  /** Keeps what `state` offers from now on. */
  follow(state: Watched<CertState>): void;
  /** A key that waits for its certificate; deleted once that is kept. */
  readonly keptKey: KeptKey;
  close(): Promise<void>;
}

/** When and from whom the certificate came; the rest is in the certificate. */
const RECEIPT = 'receipt.json';
const NAMES = [CERT_FILES.key, CERT_FILES.certChain, RECEIPT] as const;
/** Holds a key that a one-time token was shown with, and for whom. */
const PENDING_DIR = 'pending';
const PENDING_ID = 'identity';

/**
 * @throws AgentError ERR_OUTPUT: the directory exists and others may enter it, or it belongs to somebody else. It holds a private key.
 */
export async function openStateStore(
  options: { readonly dir: string; readonly id: SpiffeId },
  deps: Deps,
): Promise<StateStore> {
  const { dir, id } = options;
  await checkPrivate(dir);
  const keptKey = new PendingKey(join(dir, PENDING_DIR), id, deps);
  let writer: FileOutput | undefined;
  return {
    load: async (trust, now) => {
      const svid = await load(dir, id, trust, now, deps);
      if (svid) await keptKey.certified(svid.key);
      return svid;
    },
    follow: (state) => {
      writer ??= followState(dir, state, stateFiles, deps, ({ svid }) =>
        keptKey.certified(svid.key),
      );
    },
    keptKey,
    close: async () => writer?.close(),
  };
}

class PendingKey implements KeptKey {
  #kept: KeyPair | undefined;
  /** What was begun last: a key that is saved while the one before is deleted must not go with it. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly dir: string,
    private readonly id: SpiffeId,
    private readonly deps: Deps,
  ) {}

  load(): Promise<KeyPair | undefined> {
    return this.#inTurn(() => this.#read());
  }

  save(key: KeyPair): Promise<void> {
    return this.#inTurn(async () => {
      await publishDir(this.dir, [
        { name: CERT_FILES.key, bytes: privateKeyPem(key, 'pkcs8'), mode: 0o600 },
        { name: PENDING_ID, bytes: Buffer.from(formatSpiffeId(this.id)), mode: 0o600 },
      ]);
      this.#kept = key;
    });
  }

  /** A certificate of `key` is kept. */
  certified(key: KeyPair): Promise<void> {
    return this.#inTurn(async () => {
      const kept = this.#kept ?? (await this.#read());
      if (!kept || Buffer.compare(kept.spkiDer, key.spkiDer) !== 0) return;
      this.#kept = undefined;
      await unpublishDir(this.dir).catch((cause) =>
        this.deps.log.warn('deleting the key of a used token failed', { dir: this.dir, cause }),
      );
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #read(): Promise<KeyPair | undefined> {
    const paths = [CERT_FILES.key, PENDING_ID].map((name) => join(this.dir, name));
    if (!(await lstat(paths[0]!).catch(() => undefined))) return undefined;
    try {
      const [keyPem, id] = await readTogether(paths, (path) => ({
        field: path,
        code: 'ERR_PARSE',
      }));
      if (id!.toString() !== formatSpiffeId(this.id))
        throw invalid('ERR_PARSE', paths[1]!, `must be ${formatSpiffeId(this.id)}`);
      this.#kept = readPrivateKey(keyPem!, paths[0]!);
    } catch (cause) {
      this.deps.log.warn('stored key discarded, its one-time token is lost', {
        dir: this.dir,
        cause,
      });
    }
    return this.#kept;
  }
}

async function checkPrivate(dir: string): Promise<void> {
  const found = await lstat(dir).catch(() => undefined);
  if (!found) return;
  const field = `state directory ${dir}`;
  if (!found.isDirectory()) throw invalid('ERR_OUTPUT', field, 'must be a directory');
  const mode = found.mode & 0o777;
  const hint = `chmod 700 ${dir}`;
  if ((mode & 0o077) !== 0)
    throw invalid(
      'ERR_OUTPUT',
      field,
      `must have mode 0700, not ${mode.toString(8).padStart(4, '0')}`,
      { hint },
    );
  if (found.uid !== process.getuid?.())
    throw invalid(
      'ERR_OUTPUT',
      field,
      `must belong to user ${process.getuid?.()}, not ${found.uid}`,
    );
}

async function load(
  dir: string,
  id: SpiffeId,
  trust: TrustBundle,
  now: number,
  deps: Deps,
): Promise<Svid | undefined> {
  try {
    const files = await readTogether(
      NAMES.map((name) => join(dir, name)),
      (path) => ({ field: path, code: 'ERR_PARSE' }),
    );
    const [keyPem, chainPem, receiptJson] = files as [Buffer, Buffer, Buffer];
    const receipt = readReceipt(receiptJson);
    const chain = parseCertificates(chainPem, CERT_FILES.certChain);
    const key = readPrivateKey(keyPem, CERT_FILES.key);
    const lastMoment = Math.min(...chain.map(({ notAfterAt }) => notAfterAt)) - 1;
    const chainDer = chain.map(({ der }) => der);
    const svid = acceptIssuedChain(
      { id, key, source: receipt.source },
      chainDer,
      trust,
      Math.min(now, lastMoment),
    );
    // The plan counts from the first receipt: an agent that restarts every hour must not put its renewal off every hour.
    return { ...svid, receivedAt: Math.min(receipt.receivedAt, now) };
  } catch (caught) {
    // A directory that was never written is no event.
    if (await lstat(join(dir, CERT_FILES.key)).catch(() => undefined))
      deps.log.warn('stored certificate discarded', { dir, cause: caught });
    return undefined;
  }
}

function stateFiles({ svid, bundle }: CertContents): OutputFile[] {
  const receipt = { receivedAt: svid.receivedAt, source: svid.source };
  const files = [
    ...certFiles({ svid, bundle }, 'pkcs8'),
    { name: RECEIPT, bytes: Buffer.from(`${JSON.stringify(receipt)}\n`), mode: 0o600 },
  ];
  return files.map((file) => ({ ...file, mode: 0o600 }));
}

function readReceipt(json: Buffer): { receivedAt: number; source: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json.toString('utf8'));
  } catch (cause) {
    throw new AgentError('ERR_PARSE', `${RECEIPT}: must be JSON`, {
      field: RECEIPT,
      rule: 'must be JSON',
      cause,
    });
  }
  const { receivedAt, source } = (parsed ?? {}) as Record<string, unknown>;
  if (typeof receivedAt !== 'number' || !Number.isFinite(receivedAt))
    throw invalid('ERR_PARSE', RECEIPT, 'must have a number "receivedAt"');
  if (typeof source !== 'string' || !/^[a-z0-9-]{1,32}$/.test(source))
    throw invalid('ERR_PARSE', RECEIPT, 'must have a name "source"');
  return { receivedAt, source };
}
