import type { CaClient } from '../../ca-client/ca-client';
import type { FailoverMember } from '../../ca-client/failover';
import type { ClientCertificate } from '../../ca-client/istio/client-certificate';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import type { Lease } from '../base/pool';
import type { Config } from '../config/config';
import type { CaName } from '../config/options';
import { certificatesPem, parseCertificate } from '../identity/certificate';
import type { CertificateEngine } from '../identity/engine';
import type { JwtAuthority } from '../identity/jwt-svid';
import { privateKeyPem } from '../identity/keys';
import type { SpiffeId } from '../identity/spiffe-id';
import type { Svid } from '../identity/svid';
import type { SharedCas } from './shared-cas';

/** What a CA client is made for. */
export interface CaNeeds {
  readonly config: Config;
  readonly id: SpiffeId;
  readonly engine: CertificateEngine;
  /** The last certificate, which some CAs take in place of a token, and some after its end; undefined while there is none. */
  readonly current: () => Svid | undefined;
  /** Whether a revocation list names a certificate. */
  readonly isRevoked: (svid: Svid) => boolean;
  readonly shared: SharedCas;
}

/** A CA to ask, with what stands behind it. */
export interface ChosenCa {
  readonly ca: CaClient;
  /** Each of several, in order; undefined where there is one. */
  readonly members: (() => readonly FailoverMember[]) | undefined;
  /** The JWT-SVIDs of the first of them, which is whose roots count; undefined where that issues none. Opened by the first call. */
  readonly jwt: (() => Promise<JwtAuthority>) | undefined;
  /** Ends the client and what it uses. */
  close(): Promise<void>;
}

/**
 * The CAs that the configuration names, several of them as one. Each is loaded when it is chosen: the start pays for no other.
 *
 * @throws AgentError ERR_CONFIG | ERR_CA_STATE; nothing is left open.
 */
export async function chooseCa(needs: CaNeeds, deps: Deps): Promise<ChosenCa> {
  const opened: Opened[] = [];
  try {
    for (const name of needs.config.ca) opened.push(await openCa(name, needs, deps));
    return await asOne(opened, deps);
  } catch (caught) {
    await closeAll(opened);
    throw caught;
  }
}

interface Opened {
  readonly ca: CaClient;
  readonly jwt?: () => Promise<JwtAuthority>;
  readonly close: () => Promise<void>;
}

async function asOne(opened: readonly Opened[], deps: Deps): Promise<ChosenCa> {
  const [first] = opened as [Opened];
  if (opened.length === 1) return { ...first, jwt: first.jwt, members: undefined };
  const { createFailover } = await import('../../ca-client/failover');
  const clients = opened.map(({ ca }) => ca);
  const ca = createFailover(clients, {}, deps);
  return {
    ca,
    jwt: first.jwt,
    members: () => ca.describe(),
    close: async () => {
      await ca.close();
      await closeAll(opened);
    },
  };
}

async function closeAll(opened: readonly Opened[]): Promise<void> {
  for (const { close } of opened) await close();
}

async function openCa(name: CaName, needs: CaNeeds, deps: Deps): Promise<Opened> {
  switch (name) {
    case 'istiod':
    case 'istio-csr':
      return openIstio(name, needs, deps);
    case 'kubernetes-csr':
      return openKubernetes(needs, deps);
    case 'builtin':
      return openBuiltin(needs, deps);
    case 'file':
      throw new AgentError('ERR_BUG', 'start: mounted files are no CA to ask');
  }
}

async function openBuiltin({ config, id, engine, shared }: CaNeeds, deps: Deps): Promise<Opened> {
  const { rootTrustDomains } = config;
  const options = {
    dir: config.caDir,
    trustDomain: id.trustDomain,
    rootTrustDomains,
    rootAlgorithm: config.caKeyAlgorithm,
    engine,
  };
  const [authority, { createBuiltinCa }] = await Promise.all([
    shared.authority(options),
    import('../../ca-client/builtin/builtin-ca'),
  ]);
  const ca = createBuiltinCa({ authority: authority.value, caller: id }, deps);
  let jwt: Promise<Lease<JwtAuthority>> | undefined;
  return {
    ca,
    jwt: async () => {
      jwt ??= shared.jwtAuthority({ caDir: config.caDir, algorithm: config.caKeyAlgorithm });
      // What failed is tried again by the next call.
      jwt.catch(() => {
        jwt = undefined;
      });
      return (await jwt).value;
    },
    close: async () => {
      await ca.close();
      await jwt?.then((lease) => lease.release()).catch(() => undefined);
      await authority.release();
    },
  };
}

async function openKubernetes({ config, id, shared }: CaNeeds, deps: Deps): Promise<Opened> {
  const { createKubernetesCa } = await import('../../ca-client/kubernetes/kubernetes-ca');
  const lease = await shared.kubeApi(config.kubeconfig);
  const api = lease.value;
  const { signerName, csrUsages, trustBundle, stateDir } = config;
  // A pod's own, else the one that the identity names, since neither a kubeconfig nor a SPIFFE ID has to name any.
  const namespace = api.namespace ?? /^\/ns\/([^/]+)\/sa\/[^/]+$/.exec(id.path)?.[1] ?? 'default';
  const rootDomains = rootDomainsOf(config, id);
  const options = {
    api,
    signerName: signerName!,
    usages: csrUsages,
    trustBundle,
    rootDomains,
    stateDir,
    namespace,
  };
  const ca = await createKubernetesCa(options, deps).catch(async (caught) => {
    await lease.release();
    throw caught;
  });
  return {
    ca,
    close: async () => {
      await ca.close();
      await lease.release();
    },
  };
}

async function openIstio(
  name: 'istiod' | 'istio-csr',
  { config, id, current, isRevoked, shared }: CaNeeds,
  deps: Deps,
): Promise<Opened> {
  const { createIstioCa } = await import('../../ca-client/istio/istio-ca');
  const asked = config.ca.filter((each) => each === 'istiod' || each === 'istio-csr');
  const ca = await createIstioCa(
    {
      name,
      address: config.caAddresses[asked.indexOf(name)]!,
      serverName: config.caServerName,
      caRoot: config.caRoot,
      trustBundle: config.trustBundle,
      rootDomains: rootDomainsOf(config, id),
      provisioningDir: config.provCert,
      tokenPath: config.token,
      clusterId: config.clusterId,
      certSigner: config.certSigner,
      headers: config.caHeaders,
      stateDir: config.stateDir,
      ownCertificate: asClientCertificate(current, isRevoked),
      lendChannel: (options) => shared.channel(options),
    },
    deps,
  );
  return { ca, close: () => ca.close() };
}

function rootDomainsOf(
  { rootTrustDomains }: Config,
  { trustDomain }: SpiffeId,
): ReadonlySet<string> {
  return new Set([trustDomain, ...rootTrustDomains]);
}

/** Written anew only when the certificate changes: the key is not copied for every look. */
function asClientCertificate(
  current: CaNeeds['current'],
  isRevoked: CaNeeds['isRevoked'],
): () => ClientCertificate | undefined {
  let last: { readonly svid: Svid; readonly certificate: ClientCertificate } | undefined;
  return () => {
    const svid = current();
    if (svid !== last?.svid) last = svid && { svid, certificate: clientCertificate(svid) };
    return last && isRevoked(last.svid)
      ? { ...last.certificate, isRevoked: true }
      : last?.certificate;
  };
}

function clientCertificate(svid: Svid): ClientCertificate {
  const { notBeforeAt, notAfterAt } = parseCertificate(svid.chainDer[0]!);
  const { chainDer, key, source } = svid;
  return {
    chainPem: certificatesPem(chainDer),
    keyPem: privateKeyPem(key, 'pkcs8'),
    notBeforeAt,
    notAfterAt,
    source,
  };
}
