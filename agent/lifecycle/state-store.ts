import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import type { OutputFile } from '../base/atomic-dir';
import type { Deps } from '../base/deps';
import { AgentError, invalid } from '../base/errors';
import type { Watched } from '../base/watched';
import type { CertState } from '../identity/cert-state';
import { parseCertificates } from '../identity/certificate';
import { readPrivateKey } from '../identity/keys';
import type { SpiffeId } from '../identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';
import { CERT_FILES, type CertContents, certFiles, type FileOutput, followState } from './file-output';
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
  close(): Promise<void>;
}

/** When and from whom the certificate came; the rest is in the certificate. */
const RECEIPT = 'receipt.json';
const NAMES = [CERT_FILES.key, CERT_FILES.certChain, RECEIPT] as const;

/**
 * @throws AgentError ERR_OUTPUT: the directory exists and others may enter it, or it belongs to somebody else. It holds a private key.
 */
export async function openStateStore(options: { readonly dir: string; readonly id: SpiffeId }, deps: Deps): Promise<StateStore> {
  const { dir, id } = options;
  await checkPrivate(dir);
  let writer: FileOutput | undefined;
  return {
    load: (trust, now) => load(dir, id, trust, now, deps),
    follow: (state) => {
      writer ??= followState(dir, state, stateFiles, deps);
    },
    close: async () => writer?.close(),
  };
}

async function checkPrivate(dir: string): Promise<void> {
  const found = await lstat(dir).catch(() => undefined);
  if (!found) return;
  const field = `state directory ${dir}`;
  if (!found.isDirectory()) throw invalid('ERR_OUTPUT', field, 'must be a directory');
  const mode = found.mode & 0o777;
  const hint = `chmod 700 ${dir}`;
  if ((mode & 0o077) !== 0) throw invalid('ERR_OUTPUT', field, `must have mode 0700, not ${mode.toString(8).padStart(4, '0')}`, { hint });
  if (found.uid !== process.getuid?.()) throw invalid('ERR_OUTPUT', field, `must belong to user ${process.getuid?.()}, not ${found.uid}`);
}

async function load(dir: string, id: SpiffeId, trust: TrustBundle, now: number, deps: Deps): Promise<Svid | undefined> {
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
    const svid = acceptIssuedChain({ id, key, source: receipt.source }, chainDer, trust, Math.min(now, lastMoment));
    // The plan counts from the first receipt: an agent that restarts every hour must not put its renewal off every hour.
    return { ...svid, receivedAt: Math.min(receipt.receivedAt, now) };
  } catch (caught) {
    // A directory that was never written is no event.
    if (await lstat(join(dir, CERT_FILES.key)).catch(() => undefined)) deps.log.warn('kept certificate discarded', { dir, cause: caught });
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
    throw new AgentError('ERR_PARSE', `${RECEIPT}: must be JSON`, { field: RECEIPT, rule: 'must be JSON', cause });
  }
  const { receivedAt, source } = (parsed ?? {}) as Record<string, unknown>;
  if (typeof receivedAt !== 'number' || !Number.isFinite(receivedAt))
    throw invalid('ERR_PARSE', RECEIPT, 'must have a number "receivedAt"');
  if (typeof source !== 'string' || !/^[a-z0-9-]{1,32}$/.test(source)) throw invalid('ERR_PARSE', RECEIPT, 'must have a name "source"');
  return { receivedAt, source };
}
