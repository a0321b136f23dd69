import { AgentError } from '../base/errors';
import { certificatesPem, parseRootBundle } from '../identity/certificate';
import { createTrustBundle } from '../identity/trust-bundle';
import type { KubeApi } from '../kube/kube-api';
import { isKubeStatus } from '../kube/kube-error';
import { kubePath } from '../kube/kube-path';

/** Path of all of them. */
export const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';

/** A MutatingWebhookConfiguration, as far as we look into it. */
interface WebhookConfiguration {
  readonly metadata: { readonly resourceVersion: string };
  readonly webhooks?: readonly { readonly clientConfig: { readonly caBundle?: string } }[];
}

/** Each attempt loses to somebody else's change. */
const MAX_CONFLICTS = 20;

/** Whom an API server is to trust. */
export interface WebhookRoots {
  /** DER. Are to be there. */
  readonly roots: readonly Uint8Array[];
  /** DER. Stay where they are there, but are not put back: another replica may have taken them away. */
  readonly kept: readonly Uint8Array[];
}

/**
 * Sees to it that every webhook of a configuration trusts these roots and no others. Nothing else of it is touched, and what others change at the
 * same time is kept: the change is of the version that was read.
 *
 * @returns  Whether something had to be changed.
 * @throws   AgentError: the configuration is not there (ERR_CA_STATE), or what the API server answers.
 */
export async function publishCaBundle(
  api: KubeApi,
  name: string,
  wanted: WebhookRoots,
  signal: AbortSignal,
): Promise<'changed' | 'kept'> {
  const path = kubePath`/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${name}`;
  for (let conflicts = 0; ; ) {
    const { metadata, webhooks = [] } = await read(api, name, path, signal);
    const changes = webhooks.flatMap(({ clientConfig: { caBundle = '' } }, index) => {
      const value = bundleOf(caBundle, wanted);
      return caBundle === value
        ? []
        : [{ op: 'add', path: `/webhooks/${index}/clientConfig/caBundle`, value }];
    });
    if (changes.length === 0) return 'kept';
    const version = {
      op: 'replace',
      path: '/metadata/resourceVersion',
      value: metadata.resourceVersion,
    };
    try {
      await api.request('PATCH', path, {
        body: [version, ...changes],
        contentType: 'application/json-patch+json',
        signal,
      });
      return 'changed';
    } catch (caught) {
      conflicts += 1;
      if (!isKubeStatus(caught, 409) || conflicts > MAX_CONFLICTS) throw caught;
    }
  }
}

async function read(
  api: KubeApi,
  name: string,
  path: string,
  signal: AbortSignal,
): Promise<WebhookConfiguration> {
  try {
    return await api.request<WebhookConfiguration>('GET', path, { signal });
  } catch (caught) {
    if (!isKubeStatus(caught, 404)) throw caught;
    throw new AgentError(
      'ERR_CA_STATE',
      `read MutatingWebhookConfiguration ${name}: it is not there`,
      {
        retry: 'soon',
        cause: caught,
        hint: 'apply scripts/deploy/webhook, or name another with --configuration',
      },
    );
  }
}

/** Base64 of PEM, the same for the same roots. */
function bundleOf(before: string, { roots, kept }: WebhookRoots): string {
  const still = kept.filter((root) =>
    rootsIn(before).some((each) => Buffer.compare(each, root) === 0),
  );
  return certificatesPem(createTrustBundle([...roots, ...still]).rootsDer).toString('base64');
}

/** What cannot be read is replaced. */
function rootsIn(caBundle: string): readonly Uint8Array[] {
  try {
    return parseRootBundle(Buffer.from(caBundle, 'base64'), 'caBundle').bundle.rootsDer;
  } catch {
    return [];
  }
}
