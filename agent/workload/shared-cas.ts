import { realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { CaChannel, ChannelOptions } from '../../ca-client/istio/channel';
import type { Authority, AuthorityOptions } from '../authority/authority';
import type { JwtAuthorityOptions } from '../authority/jwt/jwt-authority';
import { CaNews } from '../base/ca-news';
import type { Deps } from '../base/deps';
import { type Lease, Pool } from '../base/pool';
import { Semaphore } from '../base/semaphore';
import type { Config } from '../config/config';
import type { JwtAuthority } from '../identity/jwt-svid';
import type { KubeApi } from '../kube/kube-api';
import { openKubeApi } from '../kube/open-kube-api';
import type { LendBundle } from '../trust/federation';
import type { FollowedBundle } from '../trust/followed-bundle';

/** What stands behind the CA clients of all workloads of the process, and whom they believe, once for all that mean the same. */
export interface SharedCas {
  /** The authority of a directory. @throws AgentError ERR_CA_STATE. */
  authority(options: AuthorityOptions): Promise<Lease<Authority>>;
  /** The JWT-SVIDs of a CA directory. @throws AgentError ERR_CA_STATE. */
  jwtAuthority(options: JwtAuthorityOptions): Promise<Lease<JwtAuthority>>;
  /** The way to the Kubernetes API. @throws AgentError as `openKubeApi`. */
  kubeApi(kubeconfig: string | undefined): Promise<Lease<KubeApi>>;
  /** The connection to an istiod or istio-csr, for calls without a client certificate. */
  channel(options: ChannelOptions): Promise<Lease<CaChannel>>;
  /** The bundle of another trust domain: 100 workloads that believe it ask its server once. */
  readonly bundle: LendBundle;
  /** All that ask the CA, or the CAs, of this configuration. */
  askers(config: Config): Askers;
}

/** Those who ask the same CA. */
export interface Askers {
  /** Who may ask next, so that many workloads that start together do not fall upon it. */
  readonly turns: Semaphore;
  readonly news: CaNews;
}

/** Eight at once keep a CA busy that is a network away. One that hangs makes room: of a dead CA 100 workloads have asked within 7 s. */
const TURNS = { slots: 8, holdMs: 500 };

/** Empty; everything in it lives as long as somebody uses it. */
export function createSharedCas(deps: Deps): SharedCas {
  const authorities = new Pool<Authority>();
  const jwtAuthorities = new Pool<JwtAuthority>();
  const apis = new Pool<KubeApi>();
  const channels = new Pool<CaChannel>();
  const bundles = new Pool<FollowedBundle>();
  const crowds = new Map<string, Askers>();
  const own = { ...deps, log: deps.log.scope('ca') };
  return {
    authority: async (options) => {
      const { dir, trustDomain, rootTrustDomains = [], rootAlgorithm, engine } = options;
      const place = await realpath(dir).catch(() => resolve(dir));
      const key = JSON.stringify([
        place,
        trustDomain,
        rootTrustDomains,
        rootAlgorithm,
        engine.name,
      ]);
      return authorities.lease(key, async () => {
        const { openAuthority } = await import('../authority/authority');
        return openAuthority(options, own);
      });
    },
    jwtAuthority: async (options) => {
      const dir = await realpath(options.caDir).catch(() => resolve(options.caDir));
      return jwtAuthorities.lease(JSON.stringify([dir, options.algorithm]), async () => {
        const { openJwtAuthority } = await import('../authority/jwt/jwt-authority');
        return openJwtAuthority(options, own);
      });
    },
    kubeApi: (kubeconfig) =>
      apis.lease(kubeconfig ?? '', () => openKubeApi(kubeconfig, process.env, own)),
    channel: (options) =>
      channels.lease(JSON.stringify(options), async () => {
        const { CaChannel } = await import('../../ca-client/istio/channel');
        return new CaChannel(options, deps.clock);
      }),
    bundle: (trustDomain, place) =>
      bundles.lease(JSON.stringify([trustDomain, place]), async () => {
        const { followBundle } = await import('../trust/followed-bundle');
        return followBundle(trustDomain, place, { ...deps, log: deps.log.scope('federation') });
      }),
    askers: ({ ca, caAddresses, caDir, kubeconfig }) => {
      const key = JSON.stringify([ca, caAddresses, caDir, kubeconfig]);
      const found = crowds.get(key) ?? {
        turns: new Semaphore(TURNS, deps.clock),
        news: new CaNews(),
      };
      crowds.set(key, found);
      return found;
    },
  };
}
