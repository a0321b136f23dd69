import type { KubeCsr } from '../../ca-client/kubernetes/csr-object';
import { type AgentError, errorText, invalid } from '../base/errors';
import { readPem } from '../base/pem';
import type { Csr } from '../identity/csr';
import { directEngine } from '../identity/direct-engine';
import { EMPTY_NAME, EMPTY_ORGANISATION } from '../identity/name';
import { formatSpiffeId, type SpiffeId, serviceAccountId } from '../identity/spiffe-id';
import { serviceAccountGroups } from '../kube/service-account';

/** What an approver lets pass. */
export interface ApproverPolicy {
  readonly trustDomain: string;
  /** Bounds of `expirationSeconds`; a request without one is denied, for the signer's default is not ours to know. */
  readonly minSeconds: number;
  readonly maxSeconds: number;
  /** Denies tokens that are not bound to a pod: they outlive the workload that they were made for. */
  readonly requirePod: boolean;
  /** Keys of annotations and of labels that a request may carry, whatever their values. */
  readonly allowedAnnotations: readonly string[];
  readonly allowedLabels: readonly string[];
}

/** Who asks, by the API server's word. */
export interface Requester {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** What the token is bound to, if anything. */
  readonly pod: { readonly name: string; readonly uid: string } | undefined;
}

const USAGES = ['digital signature', 'key encipherment', 'server auth', 'client auth'];
/** Of `spec`: what is judged here, and what the API server itself writes. Newer fields are refused until somebody has thought of them. */
const SPEC_FIELDS = [
  'request',
  'signerName',
  'expirationSeconds',
  'usages',
  'username',
  'uid',
  'groups',
  'extra',
];
/** Of `metadata`: annotations and labels are judged, the rest the API server writes or the name is made of. */
const METADATA_FIELDS = [
  'annotations',
  'creationTimestamp',
  'generateName',
  'generation',
  'labels',
  'managedFields',
  'name',
  'resourceVersion',
  'selfLink',
  'uid',
];
const MAX_TEXT = 200;
/** What istiod's clients and ours write: nothing, or an organisation without a name. */
const SUBJECTS = [EMPTY_NAME, EMPTY_ORGANISATION];
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';

/**
 * Compares a request with the identity of its sender, which the API server has proven: one URI SAN, that of the sender's service account,
 * and nothing else that a signer might act on. Signers read the whole object (cert-manager makes a CA of an annotation), so nothing of
 * it is left unjudged: annotations, labels and fields pass by name. Whether the pod still exists is left to ask.
 *
 * @returns  Who asks, and for what.
 * @throws   AgentError ERR_CA_REJECTED with field and rule: the reason to deny.
 */
export async function judgeRequest(
  csr: KubeCsr,
  policy: ApproverPolicy,
): Promise<{ requester: Requester; id: SpiffeId }> {
  const requester = readRequester(csr);
  checkFields(csr);
  checkMetadata(csr.metadata, policy);
  if (policy.requirePod && !requester.pod)
    throw refuse('requester', 'must use a token that is bound to a pod');
  const id = idOf(policy.trustDomain, requester);
  checkRequest(await readRequest(csr), formatSpiffeId(id));
  checkUsages(csr.spec.usages ?? []);
  checkExpiration(csr.spec.expirationSeconds, policy);
  return { requester, id };
}

/** @throws AgentError ERR_CA_REJECTED with the field `requester`. */
export function readRequester({ spec }: KubeCsr): Requester {
  const [, namespace, serviceAccount] =
    /^system:serviceaccount:([^:]+):([^:]+)$/.exec(spec.username ?? '') ?? [];
  if (namespace === undefined || serviceAccount === undefined)
    throw refuse('requester', 'must be a service account');
  if (!serviceAccountGroups(namespace).every((group) => spec.groups?.includes(group)))
    throw refuse('requester', 'must be in the groups of a service account');
  const [names, uids] = [spec.extra?.[POD_NAME] ?? [], spec.extra?.[POD_UID] ?? []];
  if (names.length === 0 && uids.length === 0) return { namespace, serviceAccount, pod: undefined };
  const [[name], [uid]] = [names, uids];
  if (name === undefined || uid === undefined || names.length > 1 || uids.length > 1) {
    throw refuse('requester', 'must be bound to one pod, by name and uid');
  }
  return { namespace, serviceAccount, pod: { name, uid } };
}

function checkFields({ metadata, spec }: KubeCsr): void {
  const unknown = unlisted(spec, SPEC_FIELDS);
  if (unknown !== undefined) throw refuse('spec', `must hold known fields only, not ${unknown}`);
  const extra = unlisted(metadata, METADATA_FIELDS);
  if (extra !== undefined)
    throw refuse('metadata', `must hold annotations and labels only, not ${extra}`);
}

function checkMetadata(
  { annotations = {}, labels = {} }: KubeCsr['metadata'],
  policy: ApproverPolicy,
): void {
  const annotation = unlisted(annotations, policy.allowedAnnotations);
  if (annotation !== undefined)
    throw refuse('annotations', `must be among those of --allow-annotation, not ${annotation}`);
  const label = unlisted(labels, policy.allowedLabels);
  if (label !== undefined)
    throw refuse('labels', `must be among those of --allow-label, not ${label}`);
}

/** The keys that are not in the list, as text, or undefined. */
function unlisted(values: object, allowed: readonly string[]): string | undefined {
  const others = Object.keys(values).filter((key) => !allowed.includes(key));
  return others.length === 0 ? undefined : others.join(', ').slice(0, MAX_TEXT);
}

/** @throws AgentError ERR_CA_REJECTED with the field `requester`. */
export function idOf(trustDomain: string, { namespace, serviceAccount }: Requester): SpiffeId {
  try {
    return serviceAccountId(trustDomain, namespace, serviceAccount);
  } catch (caught) {
    throw refuse('requester', `must have a SPIFFE ID: ${errorText(caught)}`);
  }
}

/** @throws AgentError ERR_CA_REJECTED with the field `request`. */
export async function readRequest({ spec }: KubeCsr): Promise<Csr> {
  try {
    const blocks = readPem(Buffer.from(spec.request, 'base64'), 'request');
    if (blocks.length !== 1 || blocks[0]!.label !== 'CERTIFICATE REQUEST')
      throw new Error('must be one CERTIFICATE REQUEST');
    return await directEngine.readCsr(blocks[0]!.der);
  } catch (caught) {
    throw refuse('request', `must be readable: ${errorText(caught)}`);
  }
}

function checkRequest(request: Csr, id: string): void {
  if (request.otherNames.length > 0)
    throw refuse('san', `must hold one URI only, not ${request.otherNames.join(', ')} names`);
  if (request.uris.length !== 1)
    throw refuse('san', `must hold one URI, not ${request.uris.length}`);
  if (request.uris[0] !== id)
    throw refuse(
      'san',
      `must be the requester's own, ${id}, not ${request.uris[0]!.slice(0, MAX_TEXT)}`,
    );
  if (request.otherExtensions.length > 0) {
    throw refuse(
      'extension request',
      `must ask for a subject alternative name only, not for ${request.otherExtensions.join(', ')}`,
    );
  }
  if (!SUBJECTS.some((each) => Buffer.compare(each, request.subjectDer) === 0))
    throw refuse('subject', 'must be empty');
}

function checkUsages(usages: readonly string[]): void {
  const other = usages.filter((each) => !USAGES.includes(each));
  if (other.length > 0)
    throw refuse(
      'usages',
      `must be among ${USAGES.join(', ')}, not ${other.join(', ').slice(0, MAX_TEXT)}`,
    );
  // Without it cert-manager leaves KeyUsage out, and what is in no usage is then allowed.
  if (!usages.includes('digital signature'))
    throw refuse('usages', 'must include digital signature');
}

function checkExpiration(
  seconds: number | undefined,
  { minSeconds, maxSeconds }: ApproverPolicy,
): void {
  if (seconds === undefined) throw refuse('expirationSeconds', 'must be given');
  // A NaN is in no range.
  if (!Number.isInteger(seconds) || seconds < minSeconds || seconds > maxSeconds) {
    throw refuse(
      'expirationSeconds',
      `must be from ${minSeconds} to ${maxSeconds}, not ${seconds}`,
    );
  }
}

/** A pod as far as it matters here. */
export interface KubePod {
  readonly metadata: { readonly uid: string };
  readonly spec: { readonly serviceAccountName?: string };
}

/**
 * Holds the pod of a token against what runs now.
 *
 * @param pod  Undefined where it is gone.
 * @throws     AgentError ERR_CA_REJECTED with field and rule.
 */
export function judgePod(
  { pod: bound, serviceAccount }: Requester,
  pod: KubePod | undefined,
): void {
  if (!bound) return;
  if (!pod) throw refuse('pod', `must still exist, and ${bound.name} does not`);
  if (pod.metadata.uid !== bound.uid)
    throw refuse(
      'pod',
      `must be the one that the token is bound to, and another is named ${bound.name} now`,
    );
  const account = pod.spec.serviceAccountName ?? 'default';
  if (account !== serviceAccount)
    throw refuse('pod', `must run as ${serviceAccount}, and ${bound.name} runs as ${account}`);
}

function refuse(field: string, rule: string): AgentError {
  return invalid('ERR_CA_REJECTED', field, rule);
}
