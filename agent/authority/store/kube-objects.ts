import type { Deps } from '../../base/deps';
import type { KubeApi } from '../../kube/kube-api';
import { isKubeStatus } from '../../kube/kube-error';
import { listObjects } from '../../kube/kube-list';
import { kubePath } from '../../kube/kube-path';
import { watchObject } from '../../kube/watch-object';

/** A ConfigMap, as far as the store looks into it. */
export interface ConfigMap {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly data?: Readonly<Record<string, string>>;
}

/** What is to become of one; null removes a key. */
export interface ConfigMapChange {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly data?: Readonly<Record<string, string | null>>;
}

/** What a ConfigMap is for, as its label says. */
export type StatePart = 'join-token' | 'issued' | 'revoked';

const LABEL = 'keyturn.dev/ca-state';
const PAGE = 200;

/** The ConfigMaps of one store. Each change is of the version that was read: 409 where another was faster. */
export class KubeObjects {
  readonly #path: string;

  constructor(
    private readonly api: KubeApi,
    private readonly namespace: string,
  ) {
    this.#path = kubePath`/api/v1/namespaces/${namespace}/configmaps`;
  }

  /** Undefined where there is none. */
  async read(name: string): Promise<ConfigMap | undefined> {
    try {
      return await this.api.request<ConfigMap>('GET', this.#of(name));
    } catch (caught) {
      if (isKubeStatus(caught, 404)) return undefined;
      throw caught;
    }
  }

  /** @throws KubeError 409 where the name is taken. */
  create(
    name: string,
    part: StatePart,
    { annotations = {}, data = {} }: ConfigMapChange,
  ): Promise<ConfigMap> {
    const metadata = {
      name,
      labels: { [LABEL]: part, 'app.kubernetes.io/managed-by': 'keyturn' },
      annotations,
    };
    return this.api.request<ConfigMap>('POST', this.#path, {
      body: { apiVersion: 'v1', kind: 'ConfigMap', metadata, data },
    });
  }

  /** @throws KubeError 409 where it has changed since it was read, 404 where it is gone. */
  change(
    { metadata: { name, resourceVersion } }: ConfigMap,
    { annotations, data }: ConfigMapChange,
  ): Promise<ConfigMap> {
    const body = { metadata: { resourceVersion, annotations }, data };
    return this.api.request<ConfigMap>('PATCH', this.#of(name), { body });
  }

  /** False where it has changed since it was read; true also where it is gone. */
  async remove({ metadata: { name, uid, resourceVersion } }: ConfigMap): Promise<boolean> {
    const body = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      preconditions: { uid, resourceVersion },
    };
    try {
      await this.api.request('DELETE', this.#of(name), { body });
      return true;
    } catch (caught) {
      if (isKubeStatus(caught, 404)) return true;
      if (isKubeStatus(caught, 409)) return false;
      throw caught;
    }
  }

  /** Calls `visit` with every one of a kind, in pages. */
  async each(part: StatePart, visit: (object: ConfigMap) => void): Promise<void> {
    const path = `${this.#path}?labelSelector=${encodeURIComponent(`${LABEL}=${part}`)}`;
    await listObjects(this.api, { path, maxPage: PAGE }, visit);
  }

  /** As `watchObject`, of one. */
  watch(
    name: string,
    onChange: () => void,
    deps: Pick<Deps, 'clock' | 'log' | 'random'>,
    signal: AbortSignal,
  ): Promise<void> {
    return watchObject(this.api, this.#path, name, onChange, deps, signal);
  }

  #of(name: string): string {
    return kubePath`/api/v1/namespaces/${this.namespace}/configmaps/${name}`;
  }
}
