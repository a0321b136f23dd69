import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import type { Config } from '../config/config';
import type { CertSource, CertState } from '../identity/cert-state';
import { loadEngine } from '../identity/load-engine';
import type { SpiffeId } from '../identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';
import { createKeeper } from '../lifecycle/keeper';
import { chooseCa } from './choose-ca';
import type { SharedCas } from './shared-cas';
import { assertTrustedDirectories } from './trusted-directories';
import { servedSvid, type WorkloadParts } from './workload';

/**
 * What makes a workload's certificates, by its configuration: a keeper with its CA, or a watcher of mounted files. It begins at once.
 *
 * @param carried  The certificate that the workload has had under other settings; kept where it holds under these.
 * @throws AgentError ERR_CONFIG | ERR_CA_STATE | ERR_OUTPUT; nothing is left open.
 */
export async function createCertSource(
  config: Config,
  shared: SharedCas,
  deps: Deps,
  carried?: Svid,
): Promise<WorkloadParts> {
  assertTrustedDirectories(config);
  return config.ca.includes('file')
    ? mountedFiles(config, deps)
    : keeper(config, shared, carried, deps);
}

async function mountedFiles(config: Config, deps: Deps): Promise<WorkloadParts> {
  const { certPathsIn, createFileSource } = await import('../lifecycle/file-source');
  const { credentialBundle, trustBundle, credentialsDir } = config;
  const { key, certChain, rootCert } = certPathsIn(credentialsDir);
  const paths = {
    key: credentialBundle ?? key,
    certChain: credentialBundle ?? certChain,
    rootCert: trustBundle ?? rootCert,
  };
  const source = createFileSource(
    { paths, expectedId: config.id, rootTrustDomains: config.rootTrustDomains },
    { ...deps, log: deps.log.scope('file') },
  );
  return { source, closers: [] };
}

async function keeper(
  config: Config,
  shared: SharedCas,
  carried: Svid | undefined,
  deps: Deps,
): Promise<WorkloadParts> {
  const id = requireIdentity(config);
  const engine = await loadEngine(config.engine);
  let source: CertSource | undefined;
  let revokedSerial: string | undefined;
  const isRevoked = ({ serial }: Svid) => serial === revokedSerial;
  const current = () => source && lastSvid(source.state.value);
  const chosen = await chooseCa(
    { config, id, engine, current, isRevoked, shared },
    { ...deps, log: deps.log.scope('ca') },
  );
  try {
    const { ca } = chosen;
    const store =
      config.stateDir === undefined ? undefined : await openStore(config.stateDir, id, deps);
    const { value: trust } = ca.trust;
    const warmStart =
      trust &&
      (stillGood(carried, id, trust, deps.clock.now()) ??
        (await store?.load(trust, deps.clock.now())));
    const rotation = { ratio: config.renewRatio, jitterRatio: config.renewJitter };
    const { keyAlgorithm, ttlMs, caTimeoutMs } = config;
    const { turns, news } = shared.askers(config);
    const turn = (signal: AbortSignal) => turns.enter(signal);
    const keptKey = store?.keptKey;
    const options = {
      ca,
      id,
      engine,
      keptKey,
      keyAlgorithm,
      ttlMs,
      rotation,
      caTimeoutMs,
      warmStart,
      turn,
      news,
    };
    const keeper = createKeeper(options, { ...deps, log: deps.log.scope('keeper') });
    source = keeper;
    store?.follow(keeper.state);
    const revoked = (serial: string) => {
      if (serial === revokedSerial) return;
      revokedSerial = serial;
      // Its failure is in the state and the log.
      void keeper.renewNow('the certificate is revoked').catch(() => undefined);
    };
    return {
      source,
      revoked,
      ca: chosen,
      closers: [() => chosen.close(), ...(store ? [() => store.close()] : [])],
    };
  } catch (caught) {
    await chosen.close();
    throw caught;
  }
}

function lastSvid(state: CertState): Svid | undefined {
  return servedSvid(state) ?? (state.kind === 'unavailable' ? state.expired : undefined);
}

/** The carried certificate, proven again for this identity and by these roots; its plan counts from when it was received. */
function stillGood(
  carried: Svid | undefined,
  id: SpiffeId,
  trust: TrustBundle,
  now: number,
): Svid | undefined {
  if (!carried) return undefined;
  try {
    const { key, source, chainDer, receivedAt } = carried;
    return { ...acceptIssuedChain({ id, key, source }, chainDer, trust, now), receivedAt };
  } catch {
    // Of another identity or CA: then these settings begin with a certificate of their own.
    return undefined;
  }
}

async function openStore(dir: string, id: SpiffeId, deps: Deps) {
  const { openStateStore } = await import('../lifecycle/state-store');
  return openStateStore({ dir, id }, { ...deps, log: deps.log.scope('state') });
}

function requireIdentity(config: Config): SpiffeId {
  if (!config.id)
    throw new AgentError('ERR_BUG', `start: no identity for --ca ${config.ca.join(',')}`);
  return config.id;
}
