import { realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Authority, AuthorityOptions } from '../ca-client/builtin/authority';
import type { KubeApi } from '../ca-client/kubernetes/kube-api';
import type { Deps } from './base/deps';
import { type Lease, Pool } from './base/pool';
import { openKubeApi } from './open-kube-api';

/** What stands behind the CA clients of all workloads of the process, once for all that mean the same. */
export interface SharedCas {
  /** The authority of a directory. @throws AgentError ERR_CA_STATE. */
  authority(options: AuthorityOptions): Promise<Lease<Authority>>;
  /** The way to the Kubernetes API. @throws AgentError as `openKubeApi`. */
  kubeApi(kubeconfig: string | undefined): Promise<Lease<KubeApi>>;
}

/** Empty; everything in it lives as long as somebody uses it. */
export function createSharedCas(deps: Deps): SharedCas {
  const authorities = new Pool<Authority>();
  const apis = new Pool<KubeApi>();
  const own = { ...deps, log: deps.log.scope('ca') };
  return {
    authority: async (options) => {
      const { dir, trustDomain, rootAlgorithm, engine } = options;
      const key = JSON.stringify([await realpath(dir).catch(() => resolve(dir)), trustDomain, rootAlgorithm, engine.name]);
      return authorities.lease(key, async () => {
        const { openAuthority } = await import('../ca-client/builtin/authority');
        return openAuthority(options, own);
      });
    },
    kubeApi: (kubeconfig) => apis.lease(kubeconfig ?? '', () => openKubeApi(kubeconfig, process.env, own)),
  };
}
