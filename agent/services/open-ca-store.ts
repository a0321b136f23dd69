import type { CaStore } from '../authority/store/store';
import type { Deps } from '../base/deps';
import { openKubeApi } from '../kube/open-kube-api';

/** Where an authority keeps what it must not forget. */
export const CA_STATES = ['file', 'kubernetes'] as const;

export interface CaStateConfig {
  /** `file` is below the directory. */
  readonly state: (typeof CA_STATES)[number];
  readonly caDir: string;
  /** Of `kubernetes`: the namespace of its ConfigMaps; undefined for that of the kubeconfig or the pod. */
  readonly namespace: string | undefined;
  readonly kubeconfig: string | undefined;
}

/** An authority's state, with what stands behind it. */
export interface OpenCaStore {
  readonly store: CaStore;
  /** Ends the store and what it uses. */
  close(): Promise<void>;
}

/** @throws AgentError ERR_CA_STATE; for `kubernetes` also what the API says. Nothing is left open then. */
export async function openCaStore(
  config: CaStateConfig,
  env: NodeJS.ProcessEnv,
  deps: Deps,
): Promise<OpenCaStore> {
  if (config.state === 'file') {
    const { openFileStore } = await import('../authority/store/file-store');
    const store = await openFileStore(config.caDir, deps);
    return { store, close: () => store.close() };
  }
  const { openKubeStore } = await import('../authority/store/kube-store');
  const api = await openKubeApi(config.kubeconfig, env, deps);
  try {
    const store = await openKubeStore(api, config.namespace ?? api.namespace ?? 'default', deps);
    return {
      store,
      close: async () => {
        await store.close();
        await api.close();
      },
    };
  } catch (caught) {
    await api.close();
    throw caught;
  }
}
