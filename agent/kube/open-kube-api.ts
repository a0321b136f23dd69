import type { Deps } from '../base/deps';
import type { KubeApi } from './kube-api';

/**
 * The Kubernetes API by a kubeconfig, or as a pod. Loaded when it is needed.
 *
 * @throws AgentError as `loadKubeConfig`.
 */
export async function openKubeApi(
  kubeconfig: string | undefined,
  env: NodeJS.ProcessEnv,
  deps: Deps,
): Promise<KubeApi> {
  const [{ loadKubeConfig }, { createKubeApi }] = await Promise.all([
    import('./kube-config'),
    import('./kube-api'),
  ]);
  return createKubeApi(await loadKubeConfig({ kubeconfig, env }, deps), deps);
}
