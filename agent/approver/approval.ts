import {
  approvalPath,
  type CsrCondition,
  csrPath,
  type KubeCsr,
} from '../../ca-client/kubernetes/csr-object';
import { AgentError } from '../base/errors';
import type { KubeApi } from '../kube/kube-api';
import { isKubeStatus } from '../kube/kube-error';
import { acknowledgement, isAcknowledged } from './issued-check';

/**
 * Adds a condition through the `approval` subresource, of the version that was read.
 *
 * @throws KubeError 409 where the object has changed since: then another approver may have decided.
 */
export async function addCondition(
  api: KubeApi,
  csr: KubeCsr,
  condition: CsrCondition,
  signal?: AbortSignal,
): Promise<void> {
  // Of a type there is one: a later acknowledgement takes the place of an earlier one.
  const others = (csr.status?.conditions ?? []).filter(({ type }) => type !== condition.type);
  const conditions = [...others, condition];
  const body = {
    ...csr,
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    status: { ...csr.status, conditions },
  };
  await api.request('PUT', approvalPath(csr.metadata.name), { body, ...(signal && { signal }) });
}

/**
 * Says of a request that its violation, as it is now, was dealt with. It is a condition and not an annotation, because the API server takes one only from
 * those who may approve for the signer: a requester who may change its own objects acknowledges nothing.
 *
 * @param reason  For the log of every approver, at most 500 characters.
 * @throws        AgentError ERR_CA_REJECTED, also where the request is gone.
 */
export async function acknowledge(
  api: KubeApi,
  name: string,
  reason: string,
): Promise<'acknowledged' | 'already'> {
  for (let conflicts = 0; ; ) {
    const csr = await read(api, name);
    if (isAcknowledged(csr)) return 'already';
    try {
      await addCondition(api, csr, acknowledgement(csr, reason));
      return 'acknowledged';
    } catch (caught) {
      conflicts += 1;
      if (!isKubeStatus(caught, 409) || conflicts > MAX_CONFLICTS) throw caught;
    }
  }
}

const MAX_CONFLICTS = 5;

async function read(api: KubeApi, name: string): Promise<KubeCsr> {
  try {
    return await api.request<KubeCsr>('GET', csrPath(name));
  } catch (caught) {
    if (!isKubeStatus(caught, 404)) throw caught;
    throw new AgentError('ERR_CA_REJECTED', `acknowledge ${name}: no such request`, {
      cause: caught,
      hint: 'what an approver still reports of a deleted request ends with a restart of the approver',
    });
  }
}
