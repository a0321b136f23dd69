import { createHash } from 'node:crypto';
import {
  type CsrCondition,
  conditionOf,
  type KubeCsr,
} from '../../ca-client/kubernetes/csr-object';
import { errorText } from '../base/errors';
import { iso } from '../base/iso';
import { type Certificate, parseCertificates, uriNames } from '../identity/certificate';
import { PURPOSE } from '../identity/extensions';
import { formatSpiffeId } from '../identity/spiffe-id';
import { idOf, readRequest, readRequester } from './approver-rules';

/** What a signer did, or somebody did to a request, that the approver did not approve. */
export interface Violation {
  /**
   * `ca`: the certificate may sign others. `identity`: it names another subject. `key`: it is for another key, or the chain certifies the
   * requester's key twice. `lifetime`: it is valid for longer than was approved, or at another time. `usage`: it is good for more than
   * was approved. `denied`: the request had been denied. `unreadable`: nothing can be said of it. `metadata`: annotations or labels of an
   * approved request were changed before it was issued.
   */
  readonly kind:
    | 'ca'
    | 'identity'
    | 'key'
    | 'lifetime'
    | 'usage'
    | 'denied'
    | 'unreadable'
    | 'metadata';
  /** Lower case, no full stop. */
  readonly detail: string;
}

/** The reason in conditions that the approver sets. */
export const APPROVER_REASON = 'KeyturnPolicy';
/** By this condition, set through the `approval` subresource, an operator says that a violation was dealt with. */
export const ACKNOWLEDGED = 'Acknowledged';

/** Authorities date back by up to five minutes, and clocks differ. */
const SLACK_MS = 10 * 60_000;

/**
 * Compares the certificate of a request with what was asked and with who asked: the leaf is no CA, names the requester alone, is for the
 * key of the request, and ends no later than `expirationSeconds` after it was issued. A shorter life is no violation: signers have a bound
 * of their own. The other certificates of the chain are the signer's, so none of them is for the requester's key.
 *
 * @param now  Epoch milliseconds.
 * @returns    The gravest violation, or undefined where there is none or no certificate yet.
 */
export async function checkIssued(
  csr: KubeCsr,
  trustDomain: string,
  now: number,
): Promise<Violation | undefined> {
  const { certificate } = csr.status ?? {};
  if (!certificate) return undefined;
  let chain: readonly Certificate[];
  try {
    chain = parseCertificates(Buffer.from(certificate, 'base64'), 'status.certificate');
  } catch (caught) {
    return { kind: 'unreadable', detail: `the certificate cannot be read: ${errorText(caught)}` };
  }
  const [leaf, ...others] = chain;
  return (
    caViolation(leaf!) ??
    identityViolation(leaf!, csr, trustDomain) ??
    (await keyViolation(leaf!, others, csr)) ??
    usageViolation(leaf!) ??
    lifetimeViolation(leaf!, csr, now) ??
    (conditionOf(csr, 'Denied') && {
      kind: 'denied',
      detail: 'the request was denied and a certificate was issued',
    })
  );
}

function caViolation({ basicConstraints, keyUsage }: Certificate): Violation | undefined {
  const signs =
    keyUsage?.usages.filter((each) => each === 'keyCertSign' || each === 'cRLSign') ?? [];
  if (basicConstraints?.ca) return { kind: 'ca', detail: 'the certificate is a CA' };
  return signs.length > 0
    ? { kind: 'ca', detail: `the certificate has key usage ${signs.join(', ')}` }
    : undefined;
}

function identityViolation(
  leaf: Certificate,
  csr: KubeCsr,
  trustDomain: string,
): Violation | undefined {
  const names = (leaf.subjectAltName?.names ?? []).map(({ kind, value }) =>
    kind === 'uri' ? value : `${kind} name`,
  );
  try {
    const id = formatSpiffeId(idOf(trustDomain, readRequester(csr)));
    if (names.length === 1 && uriNames(leaf)[0] === id) return undefined;
    return {
      kind: 'identity',
      detail: `the certificate is for ${names.join(', ').slice(0, 200) || 'no name'}, and the requester is ${id}`,
    };
  } catch (caught) {
    return {
      kind: 'identity',
      detail: `the certificate was issued to a requester without identity: ${errorText(caught)}`,
    };
  }
}

async function keyViolation(
  leaf: Certificate,
  others: readonly Certificate[],
  csr: KubeCsr,
): Promise<Violation | undefined> {
  try {
    const { spkiDer } = await readRequest(csr);
    const isOwn = ({ publicKey }: Certificate) => Buffer.compare(publicKey.spkiDer, spkiDer) === 0;
    if (!isOwn(leaf))
      return { kind: 'key', detail: 'the certificate is for another key than the request' };
    return others.some(isOwn)
      ? { kind: 'key', detail: 'a CA certificate of the chain is for the key of the request' }
      : undefined;
  } catch (caught) {
    return {
      kind: 'key',
      detail: `the key of the request cannot be compared: ${errorText(caught)}`,
    };
  }
}

function usageViolation({ extendedKeyUsage = [] }: Certificate): Violation | undefined {
  const others = extendedKeyUsage.filter(
    (each) => each !== PURPOSE.serverAuth && each !== PURPOSE.clientAuth,
  );
  return others.length === 0
    ? undefined
    : {
        kind: 'usage',
        detail: `the certificate has extended key usages other than server and client: ${others.join(', ').slice(0, 200)}`,
      };
}

function lifetimeViolation(
  { notBeforeAt, notAfterAt }: Certificate,
  { metadata, spec }: KubeCsr,
  now: number,
): Violation | undefined {
  if (spec.expirationSeconds === undefined) {
    return {
      kind: 'lifetime',
      detail: `the request asked for no lifetime, and the certificate ends ${iso(notAfterAt)}`,
    };
  }
  const createdAt = Date.parse(metadata.creationTimestamp ?? '');
  // It may have waited for its signer, and signers date back: the later of the two is nearest to the moment of issuance.
  const fromAt = Number.isNaN(createdAt) ? notBeforeAt : Math.max(notBeforeAt, createdAt);
  const lastAt = Math.min(fromAt, now) + spec.expirationSeconds * 1_000 + SLACK_MS;
  if (notAfterAt > lastAt) {
    return {
      kind: 'lifetime',
      detail: `the certificate ends ${iso(notAfterAt)}, and ${spec.expirationSeconds} s were approved`,
    };
  }
  return undefined;
}

/** What the approver writes into the condition by which it approves. */
export function approvalMessage(id: string, metadata: KubeCsr['metadata']): string {
  return `the requester is ${id}${metadataDigest(metadata) === NO_METADATA ? '' : `, with ${digestText(metadata)}`}`;
}

/** The condition by which an operator acknowledges the request as it is now, and no later change of it. */
export function acknowledgement(csr: KubeCsr, reason: string): CsrCondition {
  const condition = { type: ACKNOWLEDGED, status: 'True' };
  if (csr.status?.certificate)
    return { ...condition, reason: 'CertificateIssued', message: reason };
  return {
    ...condition,
    reason: 'RequestChanged',
    message: `${reason}, with ${digestText(csr.metadata)}`,
  };
}

/** What was acknowledged of a request: its certificate, which is written once; or its annotations and labels as they are. */
export function isAcknowledged(csr: KubeCsr): boolean {
  const found = conditionOf(csr, ACKNOWLEDGED);
  if (found?.reason === 'CertificateIssued') return true;
  return (
    found?.reason === 'RequestChanged' &&
    !csr.status?.certificate &&
    digestOf(found) === metadataDigest(csr.metadata)
  );
}

const digestText = (metadata: KubeCsr['metadata']) =>
  `annotations and labels of digest ${metadataDigest(metadata)}`;
const digestOf = ({ message = '' }: CsrCondition) => /of digest ([0-9a-f]+)$/.exec(message)?.[1];

/**
 * Compares annotations and labels with those that were approved, as long as no certificate has been issued: they stay mutable, and the
 * signer reads them when it signs. The digest is in the approver's condition, which only an approver may write, so a restart loses nothing.
 */
export function checkUnchanged(csr: KubeCsr): Violation | undefined {
  const approval = conditionOf(csr, 'Approved');
  if (approval?.reason !== APPROVER_REASON || csr.status?.certificate || conditionOf(csr, 'Failed'))
    return undefined;
  const approved = digestOf(approval) ?? NO_METADATA;
  if (metadataDigest(csr.metadata) === approved) return undefined;
  const { annotations = {}, labels = {} } = csr.metadata;
  const keys =
    [...Object.keys(annotations), ...Object.keys(labels)].join(', ').slice(0, 200) || 'none';
  return {
    kind: 'metadata',
    detail: `annotations or labels were changed after the approval and before the certificate: now ${keys}`,
  };
}

/** Of a request that has none, which the condition leaves out. */
const NO_METADATA = metadataDigest({});

function metadataDigest({
  annotations = {},
  labels = {},
}: Pick<KubeCsr['metadata'], 'annotations' | 'labels'>): string {
  const sorted = (values: Readonly<Record<string, string>>) =>
    Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([sorted(annotations), sorted(labels)]))
    .digest('hex')
    .slice(0, 32);
}
