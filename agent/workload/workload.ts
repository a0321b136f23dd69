import type { CaClient } from '../../ca-client/ca-client';
import type { FailoverMember } from '../../ca-client/failover';
import { createSdsServer, type SdsServer } from '../../sds/server';
import type { JwtSources } from '../../sds/workload-api/jwt-answers';
import type {
  AuthorityStatus,
  CertificateStatus,
  WorkloadStatus,
  WorkloadView,
} from '../admin/agent-view';
import { type Closer, Closers } from '../base/closers';
import type { Deps } from '../base/deps';
import type { AgentError } from '../base/errors';
import { iso } from '../base/iso';
import { WatchedSource } from '../base/watched';
import type { Config } from '../config/config';
import type { CrlSigners } from '../identity/accept-crls';
import type { CertSource, CertState, PlanStep } from '../identity/cert-state';
import { parseCertificate } from '../identity/certificate';
import type { HandshakeMaterial } from '../identity/self-handshake';
import { formatSpiffeId } from '../identity/spiffe-id';
import type { Svid } from '../identity/svid';
import type { TrustBundle } from '../identity/trust-bundle';
import type { Withheld } from '../identity/valid-now';
import { followFederatedNow } from '../lifecycle/federated-now';
import type { FileOutput } from '../lifecycle/file-output';
import { createServingGate, type ServingGate } from '../lifecycle/serving-gate';
import type { Federation } from '../trust/federation';
import type { Revocation } from '../trust/revocation';
import type { ChosenCa } from './choose-ca';
import type { SharedCas } from './shared-cas';

/** One identity with what makes its certificates and what hands them out. */
export interface Workload {
  /** In a list of them. */
  readonly name?: string;
  view(): WorkloadView;
  status(): WorkloadStatus;
  /** Why this workload is not ready, or nothing. */
  reasons(): readonly string[];
  readonly source: CertSource;
  readonly sds: SdsServer;
  close(): Promise<void>;
}

/** What a workload is made of; `agent.ts` decides which source it gets. */
export interface WorkloadParts {
  readonly source: CertSource;
  /** Whom the source asks now; undefined for mounted files. */
  readonly ca?: ChosenCa | undefined;
  /** A revocation list names the certificate in service: it proves us no more, and another is asked for. Undefined for mounted files. */
  readonly revoked?: ((serial: string) => void) | undefined;
  /** How many workloads the process has; default 1. */
  readonly sockets?: () => number;
  /** Closed after the source, innermost last: state store, CA client, authority. */
  readonly closers: readonly Closer[];
}

/**
 * Puts the serving side around a source: SDS at once, certificate files where asked. Takes the source over: when it fails, the source is
 * closed.
 *
 * @throws AgentError ERR_SOCKET | ERR_SOCKET_IN_USE | ERR_OUTPUT.
 */
export async function startWorkload(
  config: Config,
  parts: WorkloadParts,
  shared: SharedCas,
  deps: Deps,
): Promise<Workload> {
  const { source } = parts;
  const closers = new Closers([...parts.closers, () => source.close()]);
  try {
    const revocation =
      config.crl === undefined
        ? undefined
        : await startRevocation(config.crl, config.stateDir, source, deps);
    if (revocation) closers.add(() => revocation.close());
    const federation =
      config.federatedBundles.size === 0 ? undefined : await startFederation(config, shared, deps);
    if (federation) closers.add(() => federation.close());
    const federatedNow = federation && followFederatedNow(federation.bundles, deps.clock);
    if (federatedNow) closers.add(() => federatedNow.close());
    const gate = createServingGate(
      {
        state: source.state,
        lists: revocation?.lists,
        handshake: (material) => handshake(material, deps),
        revoked: (serial) => parts.revoked?.(serial),
      },
      { ...deps, log: deps.log.scope('gate') },
    );
    closers.add(() => gate.close());
    const sds = await createSdsServer(
      {
        socketPath: config.sdsSocket,
        sockets: parts.sockets,
        mode: config.sdsSocketMode,
        owner: config.sdsSocketOwner,
        group: config.sdsSocketGroup,
        state: gate.state,
        keyFormat: config.keyFormat,
        fileDirs: config.sdsFileDirs,
        crl: gate.lists,
        federated: federatedNow?.bundles,
        id: config.id,
        hint: config.svidHint,
        jwt: jwtSources(config, parts, deps),
      },
      { ...deps, log: deps.log.scope('sds') },
    );
    closers.add(() => sds.close());
    const output =
      config.outputCerts === undefined
        ? undefined
        : await startOutput(config.outputCerts, config, gate, deps);
    if (output) closers.add(() => output.close());
    return describeWorkload(
      config,
      parts,
      { gate, sds, output, revocation, federation },
      closers.close,
      deps,
    );
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}

/** Loaded with the first certificate. */
async function handshake(material: HandshakeMaterial, deps: Deps): Promise<string | undefined> {
  const { selfHandshake } = await import('./self-check');
  return selfHandshake(material, deps);
}

async function startOutput(
  dir: string,
  config: Config,
  { state }: ServingGate,
  deps: Deps,
): Promise<FileOutput> {
  const { createFileOutput } = await import('../lifecycle/file-output');
  return createFileOutput(
    { dir, state, keyFormat: config.keyFormat },
    { ...deps, log: deps.log.scope('output') },
  );
}

const NO_CHAIN: readonly Uint8Array[] = [];

async function startRevocation(
  place: string,
  stateDir: string | undefined,
  { state }: CertSource,
  deps: Deps,
): Promise<Revocation> {
  const { followRevocation } = await import('../trust/revocation');
  const signers = new WatchedSource<CrlSigners | undefined>(undefined);
  const unsubscribe = state.subscribe((now) => {
    const { bundle } = now;
    const chainDer = servedSvid(now)?.chainDer ?? NO_CHAIN;
    const same = bundle === signers.value?.bundle && chainDer === signers.value?.chainDer;
    if (!same) signers.set(bundle && { bundle, chainDer });
  });
  const revocation = followRevocation(place, signers, stateDir, {
    ...deps,
    log: deps.log.scope('crl'),
  });
  return {
    lists: revocation.lists,
    problem: () => revocation.problem(),
    passedOver: () => revocation.passedOver(),
    unusable: () => revocation.unusable(),
    close: () => {
      unsubscribe();
      return revocation.close();
    },
  };
}

async function startFederation(
  { federatedBundles, stateDir }: Config,
  shared: SharedCas,
  deps: Deps,
): Promise<Federation> {
  const { followFederation } = await import('../trust/federation');
  return followFederation(federatedBundles, stateDir, shared.bundle, {
    ...deps,
    log: deps.log.scope('federation'),
  });
}

/** Nothing of it is loaded, and no key made, before a program asks for a token or for what tokens are verified by. */
function jwtSources({ jwtSvidTtlMs }: Config, parts: WorkloadParts, { clock }: Deps): JwtSources {
  return {
    ttlMs: jwtSvidTtlMs,
    open: () => parts.ca?.jwt?.(),
    verify: async (token, audience, keysOf) => {
      const { verifyJwtSvid } = await import('../jwt/jwt-svid');
      return verifyJwtSvid(token, audience, keysOf, clock.now());
    },
  };
}

/** What serves a workload. */
interface ServingParts {
  readonly gate: ServingGate;
  readonly sds: SdsServer;
  readonly output: FileOutput | undefined;
  readonly revocation: Revocation | undefined;
  readonly federation: Federation | undefined;
}

function describeWorkload(
  config: Config,
  parts: WorkloadParts,
  { gate, sds, output, revocation, federation }: ServingParts,
  close: () => Promise<void>,
  deps: Deps,
): Workload {
  const { source } = parts;
  const id = () => identityText(config, source.state.value);
  return {
    source,
    sds,
    close,
    reasons: () => {
      const now = deps.clock.now();
      const unreached = sds.problem();
      const reasons = [
        ...notReady(source.state.value, now),
        ...withoutLists(revocation, now),
        ...refusedSets(gate, revocation),
      ];
      return [...reasons, ...(unreached === undefined ? [] : [unreached])].map(
        (reason) => `${id()}: ${reason}`,
      );
    },
    view: () => {
      const state = source.state.value;
      const svid = servedSvid(state);
      const streams = sds.streams();
      return {
        id: id(),
        source: source.describe().source,
        svid,
        bundle: state.bundle,
        state: state.kind,
        renewAt: state.kind === 'current' ? state.renewAt : undefined,
        failures: source.describe().failures,
        streams: streams.length,
        unacknowledged: streams.filter((stream) =>
          stream.names.some((name) => name.sentVersion !== name.acknowledgedVersion),
        ).length,
      };
    },
    status: () => {
      const state = source.state.value;
      const svid = servedSvid(state) ?? (state.kind === 'unavailable' ? state.expired : undefined);
      const about = source.describe();
      const problem = gate.problem();
      const retryAt =
        state.kind === 'overdue' || state.kind === 'unavailable' ? state.retryAt : undefined;
      return {
        id: id(),
        state: state.kind,
        ...(svid && {
          certificate: certificateStatus(
            svid,
            state.kind === 'current' ? state.renewAt : undefined,
          ),
        }),
        roots: rootsStatus(state.bundle, gate.withheld()),
        ...(state.bundle && { rootsVersion: state.bundle.version }),
        ...(revocation && { revocation: revocationStatus(revocation) }),
        ...(federation && { federated: federatedStatus(federation) }),
        source: about.source,
        plan: about.plan.map(planText),
        attempts: about.attempts,
        renewals: about.renewals,
        failures: about.failures,
        ...(retryAt !== undefined && { retryAt: iso(retryAt) }),
        ...(about.problem && { sourceProblem: problemStatus(about.problem) }),
        ...(problem && { selfCheck: problemStatus(problem) }),
        ...(about.lastError && {
          lastError: errorStatus(about.lastError, about.lastErrorAt ?? deps.clock.now()),
        }),
        ...(svid && { outageBudget: outageBudget(svid, parts.ca?.ca, deps.clock.now()) }),
        ...(parts.ca?.members && { authorities: parts.ca.members().map(authorityStatus) }),
        sds: {
          socket: config.sdsSocket,
          mode: config.sdsSocketMode.toString(8).padStart(4, '0'),
          streams: sds.streams(),
          unknownNames: sds.unknownNames(),
          ...(sds.problem() !== undefined && { problem: sds.problem() }),
          ...(sds.workloadApiStreams() > 0 && { workloadApiStreams: sds.workloadApiStreams() }),
        },
        ...(output && { output: output.status() }),
      };
    },
  };
}

function identityText(config: Config, state: CertState): string {
  const id = config.id ?? servedSvid(state)?.id;
  return id ? formatSpiffeId(id) : 'mounted certificate';
}

/** The SVID that is safe to serve, if there is one. */
export function servedSvid(state: CertState): Svid | undefined {
  return state.kind === 'current' || state.kind === 'overdue' ? state.svid : undefined;
}

function notReady(state: CertState, now: number): string[] {
  switch (state.kind) {
    case 'starting':
      return ['no certificate yet: the first request is under way'];
    case 'unavailable':
      return state.expired
        ? [
            `certificate ${state.expired.serial} expired at ${iso(state.expired.notAfterAt)}: ${state.error.message}`,
          ]
        : [`no certificate yet: ${state.error.message}`];
    case 'current':
    case 'overdue':
      // The keeper publishes expiry when it wakes; a probe in between must not be told that all is well.
      if (now >= state.svid.notAfterAt)
        return [`certificate ${state.svid.serial} expired at ${iso(state.svid.notAfterAt)}`];
      if (now < state.svid.notBeforeAt)
        return [
          `certificate ${state.svid.serial} is not valid before ${iso(state.svid.notBeforeAt)}`,
        ];
      return [];
  }
}

/** Without lists, or with lists that have had their day, the proxy lets nobody in. */
function withoutLists(revocation: Revocation | undefined, now: number): string[] {
  const set = revocation?.lists.value;
  if (revocation === undefined || (set && now < set.nextUpdateAt)) return [];
  if (set) return [`revocation lists ended at ${iso(set.nextUpdateAt)}`];
  return [
    `no revocation list yet: ${revocation.problem()?.message ?? 'the first one is being read'}`,
  ];
}

/** What is kept back from proxies, or makes peers refuse us, and lists that have to be made anew. */
function refusedSets(gate: ServingGate, revocation: Revocation | undefined): string[] {
  const problem = gate.problem();
  const unusable = revocation?.unusable() ?? [];
  const others = (revocation?.passedOver() ?? []).filter((each) => !unusable.includes(each));
  return [
    ...(problem ? [problem.message] : []),
    ...unusable.map((each) => `not served: ${each}`),
    ...(problem?.field === 'revocation lists' ? others.map((each) => `not served: ${each}`) : []),
  ];
}

function revocationStatus(revocation: Revocation): NonNullable<WorkloadStatus['revocation']> {
  const set = revocation.lists.value;
  const problem = revocation.problem();
  return {
    lists: set?.lists.length ?? 0,
    revoked: set?.lists.reduce((sum, { revoked }) => sum + revoked.size, 0) ?? 0,
    ...(set && { nextUpdate: iso(set.nextUpdateAt) }),
    ...(problem && { problem: problemStatus(problem) }),
  };
}

function federatedStatus(federation: Federation): NonNullable<WorkloadStatus['federated']> {
  const problems = federation.problems();
  return [...federation.bundles.value].map(([trustDomain, bundle]) => {
    const problem = problems.get(trustDomain);
    return {
      trustDomain,
      ...(bundle && { roots: bundle.roots?.rootsDer.length ?? 0 }),
      ...(problem && { problem: problemStatus(problem) }),
    };
  });
}

function certificateStatus(svid: Svid, renewAt: number | undefined): CertificateStatus {
  const leaf = parseCertificate(svid.chainDer[0]!);
  return {
    serial: svid.serial,
    notBefore: iso(svid.notBeforeAt),
    notAfter: iso(svid.notAfterAt),
    receivedAt: iso(svid.receivedAt),
    ...(renewAt !== undefined && { renewAt: iso(renewAt) }),
    keyAlgorithm: svid.key.algorithm,
    issuer: leaf.issuer,
    sha256: leaf.sha256,
    signedBy: svid.source,
    chainLength: svid.chainDer.length,
    warnings: svid.warnings,
  };
}

function rootsStatus(
  bundle: TrustBundle | undefined,
  withheld: readonly Withheld[],
): WorkloadStatus['roots'] {
  return (bundle?.rootsDer ?? []).map((der) => {
    const root = parseCertificate(der);
    const because = withheld.find(({ certificate }) => certificate.sha256 === root.sha256)?.because;
    const facts = { subject: root.subject, sha256: root.sha256, notAfter: iso(root.notAfterAt) };
    return because === undefined ? facts : { ...facts, withheld: because };
  });
}

/** A CA that comes back after our credential for it has died is of no use without somebody's help. */
function outageBudget(
  svid: Svid,
  ca: CaClient | undefined,
  now: number,
): NonNullable<WorkloadStatus['outageBudget']> {
  const credentialAt = ca?.credentialExpiresAt() ?? Number.POSITIVE_INFINITY;
  const until = Math.min(svid.notAfterAt, credentialAt);
  const limit = until === svid.notAfterAt ? 'certificate' : `credential for ${ca?.name}`;
  return { seconds: Math.max(0, Math.round((until - now) / 1000)), until: iso(until), limit };
}

function authorityStatus(member: FailoverMember): AuthorityStatus {
  const { name, active, breaker, probeAt, excluded, signed, failed, lastError } = member;
  return {
    name,
    active,
    breaker,
    ...(probeAt !== undefined && { probeAt: iso(probeAt) }),
    ...(excluded !== undefined && { excluded }),
    signed,
    failed,
    ...(lastError && { lastError: problemStatus(lastError) }),
  };
}

function planText(step: PlanStep): WorkloadStatus['plan'][number] {
  return {
    rule: step.rule,
    ...(step.at !== undefined && { at: iso(step.at) }),
    detail: step.detail,
  };
}

function errorStatus(error: AgentError, at: number): NonNullable<WorkloadStatus['lastError']> {
  return { ...problemStatus(error), at: iso(at) };
}

function problemStatus(error: AgentError): NonNullable<WorkloadStatus['sourceProblem']> {
  return {
    code: error.code,
    message: error.message,
    ...(error.hint !== undefined && { hint: error.hint }),
  };
}
