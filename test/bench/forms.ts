import { statSync } from 'node:fs';
import { peerPath } from '../support/peer-path';
import { programCommand } from '../support/program';
import { liveCa } from '../support/tls-ca';
import { type CaSubject, startKeyturnCa, unknownCallers } from './ca-subjects';
import { keyturnAsking, pilotAgent, type Subject } from './subject';

/** The forms in which the program ships and Istio's own agent, all asking one authority with one token. */
export interface Askers {
  readonly subjects: readonly Subject[];
  /** What could not be measured, and what to do about it. */
  readonly missing: readonly string[];
  stop(): Promise<unknown>;
}

/** Starts the authority, which answers without limits on loopback, and signs with P-256. */
export async function startAskers(): Promise<Askers> {
  const ca: CaSubject = await startKeyturnCa(
    await liveCa({ name: 'bench' }),
    { by: 'keys' },
    unknownCallers(1),
  );
  const ours = [keyturnAsking('node', ca), keyturnAsking('standalone', ca)];
  const present = peerPath('pilot-agent') !== undefined;
  return {
    subjects: present ? [...ours, pilotAgent(ca)] : ours,
    missing: present
      ? []
      : ['no pilot-agent to compare with: scripts/peers pilot-agent (about 10 minutes)'],
    stop: () => ca.stop(),
  };
}

/** Bytes that each of them has on disk, its runtime included. */
export function measureSizes(): readonly { readonly name: string; readonly bytes: number }[] {
  const bytesOf = (files: readonly string[]) =>
    files.reduce((sum, file) => sum + statSync(file).size, 0);
  const pilot = peerPath('pilot-agent');
  return [
    { name: 'keyturn, and Node.js', bytes: bytesOf(programCommand('node')) },
    { name: 'keyturn, executable', bytes: bytesOf(programCommand('standalone')) },
    ...(pilot === undefined ? [] : [{ name: 'pilot-agent', bytes: bytesOf([pilot]) }]),
  ];
}
