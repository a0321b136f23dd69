import { makeRoot } from '../authority/make-root';
import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { Secret } from '../base/secret';
import { type Certificate, parseCertificates, parseRootBundle } from '../identity/certificate';
import type { CertificateEngine } from '../identity/engine';

/** A key and its self-signed certificate, PEM. */
interface RootPair {
  readonly keyPem: Secret<Buffer>;
  readonly certPem: Buffer;
}

/** The root that the replicas of the webhook share, and how far its replacement is. */
export interface SharedRoot {
  readonly signer: RootPair;
  /** Known to the API server, and not used yet. */
  readonly next: RootPair | undefined;
  /** What the API server is to trust: the signer, and while there is one the next or the last. */
  readonly rootsPem: Buffer;
  /** When the present stage began, epoch milliseconds. */
  readonly sinceAt: number;
}

/** What becomes of a root next: another is announced, signs in its place, and the old one is trusted no more. */
export interface NextStage {
  readonly kind: 'announce' | 'activate' | 'retire';
  /** Epoch milliseconds; may have passed. */
  readonly dueAt: number;
}

/** As in a CA directory, and beside them the next one's. */
const KEYS = {
  key: 'ca-key.pem',
  cert: 'ca-cert.pem',
  roots: 'root-cert.pem',
  nextKey: 'next-ca-key.pem',
  nextCert: 'next-ca-cert.pem',
} as const;
/** Annotation; a time that is long past makes the next stage come at once. */
export const SINCE = 'keyturn.dev/stage-since';

const DAY_MS = 24 * 3_600_000;
const LIFE_MS = 365 * DAY_MS;
/** Announced at half of its life, or when no more than a quarter is left: years of absence are allowed for. */
const SIGNS_MS = LIFE_MS / 2;
const LEAST_LEFT_MS = LIFE_MS / 4;
/** Every API server of a cluster has read the configuration anew long before. */
const ANNOUNCED_MS = DAY_MS;
/** Certificates of the last signer live for a day, and replicas replace them at once. */
const KEPT_MS = 2 * DAY_MS;

/** Not that of any workload: the root is good for nothing but the webhook. */
export const WEBHOOK_TRUST_DOMAIN = 'keyturn-webhook';

/** A root of one year, for a webhook that has none. */
export async function makeSharedRoot(engine: CertificateEngine, now: number): Promise<SharedRoot> {
  const signer = await makePair(engine, now);
  return { signer, next: undefined, rootsPem: signer.certPem, sinceAt: now };
}

/** @param root  Its certificates have been read, so they are good. */
export function nextStage({ signer, next, rootsPem, sinceAt }: SharedRoot): NextStage {
  if (next !== undefined) return { kind: 'activate', dueAt: sinceAt + ANNOUNCED_MS };
  if (rootsOf(rootsPem).length > 1) return { kind: 'retire', dueAt: sinceAt + KEPT_MS };
  const { notAfterAt } = certificateOf(signer.certPem, KEYS.cert);
  return { kind: 'announce', dueAt: Math.min(sinceAt + SIGNS_MS, notAfterAt - LEAST_LEFT_MS) };
}

/** The root in its next stage, which begins now. One that has expired meanwhile is replaced at one stroke: nobody accepts it anyway. */
export async function advance(
  root: SharedRoot,
  engine: CertificateEngine,
  now: number,
): Promise<SharedRoot> {
  const { signer, next, rootsPem } = root;
  if (next === undefined && certificateOf(signer.certPem, KEYS.cert).notAfterAt <= now)
    return makeSharedRoot(engine, now);
  switch (nextStage(root).kind) {
    case 'announce': {
      const made = await makePair(engine, now);
      return {
        signer,
        next: made,
        rootsPem: Buffer.concat([rootsPem, made.certPem]),
        sinceAt: now,
      };
    }
    case 'activate':
      return { signer: next!, next: undefined, rootsPem, sinceAt: now };
    case 'retire':
      return { signer, next: undefined, rootsPem: signer.certPem, sinceAt: now };
  }
}

/** What a Kubernetes Secret holds of it. */
export interface SecretContent {
  /** Base64. */
  readonly data: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What changes a Secret into one that holds exactly this; null removes a key. */
export function formatSharedRoot({ signer, next, rootsPem, sinceAt }: SharedRoot) {
  const base64 = (bytes: Buffer | undefined) => bytes?.toString('base64') ?? null;
  return {
    data: {
      [KEYS.key]: base64(signer.keyPem.reveal()),
      [KEYS.cert]: base64(signer.certPem),
      [KEYS.roots]: base64(rootsPem),
      [KEYS.nextKey]: base64(next?.keyPem.reveal()),
      [KEYS.nextCert]: base64(next?.certPem),
    },
    annotations: { [SINCE]: iso(sinceAt) },
  };
}

/**
 * The inverse of `formatSharedRoot`. Undefined where the Secret is empty, as a manifest makes it.
 *
 * @throws AgentError ERR_CA_STATE naming the key of the Secret.
 */
export function parseSharedRoot({ data, annotations }: SecretContent): SharedRoot | undefined {
  if (Object.keys(data).length === 0) return undefined;
  const bytes = (key: string) => {
    const text = data[key];
    if (text === undefined)
      throw refused(key, `must be present beside ${Object.keys(data).join(', ')}`);
    return Buffer.from(text, 'base64');
  };
  const pair = (key: string, cert: string): RootPair => ({
    certPem: bytes(cert),
    keyPem: new Secret(bytes(key)),
  });
  const signer = pair(KEYS.key, KEYS.cert);
  const hasNext = KEYS.nextKey in data || KEYS.nextCert in data;
  const next = hasNext ? pair(KEYS.nextKey, KEYS.nextCert) : undefined;
  if (next) certificateOf(next.certPem, KEYS.nextCert);
  const since = annotations[SINCE];
  const { notBeforeAt } = certificateOf(signer.certPem, KEYS.cert);
  const sinceAt = since === undefined ? notBeforeAt : Date.parse(since);
  if (Number.isNaN(sinceAt))
    throw refused(`annotation ${SINCE}`, 'must be a time, e.g. 2026-01-31T00:00:00Z');
  const rootsPem = bytes(KEYS.roots);
  rootsOf(rootsPem);
  return { signer, next, rootsPem, sinceAt };
}

async function makePair(engine: CertificateEngine, now: number): Promise<RootPair> {
  const { keyPem, rootPem } = await makeRoot(
    engine,
    WEBHOOK_TRUST_DOMAIN,
    'ecdsa-p256',
    now,
    LIFE_MS,
  );
  return { keyPem, certPem: rootPem };
}

function rootsOf(pem: Buffer): readonly Uint8Array[] {
  const { bundle, skipped } = readAs(KEYS.roots, () => parseRootBundle(pem, KEYS.roots));
  if (skipped[0] !== undefined)
    throw refused(KEYS.roots, `must hold good CA certificates only: ${skipped[0]}`);
  return bundle.rootsDer;
}

function certificateOf(pem: Buffer, field: string): Certificate {
  return readAs(field, () => parseCertificates(pem, field))[0]!;
}

function readAs<T>(field: string, read: () => T): T {
  try {
    return read();
  } catch (caught) {
    const error = AgentError.from(caught);
    throw error.rule === undefined ? error : refused(error.field ?? field, error.rule);
  }
}

function refused(field: string, rule: string): AgentError {
  return invalid('ERR_CA_STATE', field, rule);
}
