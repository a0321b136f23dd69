import type { KeyAlgorithm } from '../../agent/identity/keys';
import { type Kube, startKube } from '../support/kube';
import { type PeerName, peerPath } from '../support/peer-path';
import { liveCa } from '../support/tls-ca';
import { type LoadResult, runLoad } from './ca-load';
import {
  type CaSubject,
  clusterCallers,
  startIstiodCa,
  startKeyturnCa,
  unknownCallers,
} from './ca-subjects';
import { keep, type Samples, samples, tell } from './samples';

/** How callers prove who they are. */
export const PROOFS = [
  'client certificate',
  'token, reviewed by the cluster',
  'token, verified with keys',
  'one-time token',
] as const;
export type Proof = (typeof PROOFS)[number];

/** One authority under one kind of load. */
export interface CaCell {
  readonly issuer: KeyAlgorithm;
  readonly proof: Proof;
  readonly authority: CaSubject['name'];
  readonly perSecond: Samples;
  readonly p99Ms: Samples;
  /** Share of one processor that the load took. */
  readonly clientCpu: Samples;
  /** Calls that the authority answers for a second of one processor: what does not depend on the load. */
  readonly perCpuSecond: Samples;
  /** By status, over all rounds. */
  readonly failures: Readonly<Record<string, number>>;
}

export interface CaReport {
  readonly runtime: string;
  readonly connections: number;
  readonly cells: readonly CaCell[];
  /** What could not be measured, and what to do about it. */
  readonly missing: readonly string[];
}

export interface CaBenchOptions {
  readonly rounds: number;
  readonly windowMs: number;
  readonly connections: number;
  readonly oneTimeTokens: number;
}

const ISSUERS: readonly KeyAlgorithm[] = ['ecdsa-p256', 'rsa-2048'];
const WARM_UP_MS = 1_000;
const MEASURED = ['perSecond', 'p99Ms', 'clientCpu', 'perCpuSecond'] as const;
const REMEDIES: Partial<Record<PeerName, string>> = {
  kube: 'no kube-apiserver, so nothing by reviewed token and no istiod: scripts/peers kube (about 6 minutes)',
  istiod: 'no istiod to compare with: scripts/peers kube istiod (about 10 minutes more)',
};

/** CreateCertificate calls a second and their 99th percentile, our authority and istiod in turn, with one key between them. */
export async function measureCas(options: CaBenchOptions): Promise<CaReport> {
  const has = (name: PeerName) => peerPath(name) !== undefined;
  const kube = has('kube') ? await startKube() : undefined;
  try {
    const callers = kube
      ? await clusterCallers(kube, options.connections)
      : unknownCallers(options.connections);
    const cells: CaCell[] = [];
    for (const issuer of ISSUERS)
      cells.push(
        ...(await measureIssuer(issuer, { kube, istiod: has('istiod'), callers }, options)),
      );
    const missing = (['kube', 'istiod'] as const)
      .filter((name) => !has(name))
      .map((name) => REMEDIES[name]!);
    return {
      runtime: `node ${process.versions.node}`,
      connections: options.connections,
      cells,
      missing,
    };
  } finally {
    await kube?.stop();
  }
}

interface Surroundings {
  readonly kube: Kube | undefined;
  readonly istiod: boolean;
  readonly callers: CaSubject['callers'];
}

interface Load {
  readonly proof: Proof;
  readonly subject: CaSubject;
}

async function measureIssuer(
  issuer: KeyAlgorithm,
  around: Surroundings,
  options: CaBenchOptions,
): Promise<readonly CaCell[]> {
  const { kube, callers } = around;
  const ca = await liveCa({ algorithm: issuer, name: `bench ${issuer}` });
  const byKeys = await startKeyturnCa(ca, { by: 'keys' }, callers);
  const byReview = kube && (await startKeyturnCa(ca, { by: 'review', kube }, callers));
  const istiod = kube && around.istiod ? await startIstiodCa(ca, kube, callers) : undefined;
  const load = (proof: Proof, subject: CaSubject | undefined): Load[] =>
    subject ? [{ proof, subject }] : [];
  const loads = [
    ...load('client certificate', byKeys),
    ...load('client certificate', istiod),
    ...load('token, reviewed by the cluster', byReview),
    ...load('token, reviewed by the cluster', istiod),
    ...load('token, verified with keys', byKeys),
    ...load('one-time token', byKeys),
  ];
  try {
    return await measureLoads(issuer, loads, options);
  } finally {
    for (const subject of [byKeys, byReview, istiod]) await subject?.stop();
  }
}

async function measureLoads(
  issuer: KeyAlgorithm,
  loads: readonly Load[],
  options: CaBenchOptions,
): Promise<readonly CaCell[]> {
  const values = new Map<string, number[]>();
  const failures = loads.map((): Record<string, number> => ({}));
  // An authority runs for days: what it compiles in its first seconds is not looked at.
  for (let round = -1; round < options.rounds; round += 1) {
    for (const [index, load] of loads.entries()) {
      tell(
        `${issuer}, ${load.proof}, ${load.subject.name}, round ${Math.max(round + 1, 0)} of ${options.rounds}`,
      );
      const result = await measureLoad(load, options);
      const measured = { ...result, perCpuSecond: result.perSecond / result.serverCpu };
      for (const what of MEASURED) keep(values, `${what} ${index}`, round, measured[what]);
      for (const [status, count] of Object.entries(result.failures))
        failures[index]![status] = (failures[index]![status] ?? 0) + count;
    }
  }
  const sampled = (what: (typeof MEASURED)[number], index: number) =>
    samples(what, values.get(`${what} ${index}`)!);
  return loads.map(({ proof, subject }, index) => ({
    issuer,
    proof,
    authority: subject.name,
    perSecond: sampled('perSecond', index),
    p99Ms: sampled('p99Ms', index),
    clientCpu: sampled('clientCpu', index),
    perCpuSecond: sampled('perCpuSecond', index),
    failures: failures[index]!,
  }));
}

async function measureLoad({ proof, subject }: Load, options: CaBenchOptions): Promise<LoadResult> {
  const { address, pid, serverName, rootPem, callers } = subject;
  const { connections, windowMs } = options;
  const order = {
    address,
    pid,
    serverName,
    rootPem,
    callers,
    connections,
    warmUpMs: WARM_UP_MS,
    windowMs,
  };
  if (proof === 'client certificate') return runLoad({ ...order, certificate: true });
  if (proof !== 'one-time token') return runLoad(order);
  const oneTimeTokens = await subject.oneTimeTokens!(options.oneTimeTokens);
  return runLoad({
    ...order,
    callers: callers.slice(0, 1),
    oneTimeTokens,
    warmUpMs: 0,
    windowMs: 60_000,
  });
}
