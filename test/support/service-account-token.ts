import { createPrivateKey, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Kube, KubeObject } from './kube';

/** Issuer of service account tokens, and the audience of those that are for the Kubernetes API itself. */
export const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';

/**
 * A service account token as the API server makes them, but with an end of one's own: asked, it gives none for less than ten minutes.
 *
 * @param expiresAt  Epoch milliseconds; may have passed.
 * @param audience   `istio-ca` unless told; the API's own is `API_AUDIENCE`.
 */
export async function tokenUntil(
  kube: Kube,
  namespace: string,
  serviceAccount: string,
  expiresAt: number,
  audience = 'istio-ca',
): Promise<string> {
  const { metadata } = await kube.api.request<KubeObject>(
    'GET',
    `/api/v1/namespaces/${namespace}/serviceaccounts/${serviceAccount}`,
  );
  const end = Math.floor(expiresAt / 1_000);
  const claims = {
    iss: API_AUDIENCE,
    sub: `system:serviceaccount:${namespace}:${serviceAccount}`,
    aud: [audience],
    iat: end - 600,
    nbf: end - 600,
    exp: end,
    jti: '00000000-0000-4000-8000-000000000001',
    'kubernetes.io': { namespace, serviceaccount: { name: serviceAccount, uid: metadata.uid } },
  };
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'ES256', typ: 'JWT' })}.${part(claims)}`;
  const key = createPrivateKey(readFileSync(join(dirname(kube.kubeconfig), 'sa.key')));
  const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}
