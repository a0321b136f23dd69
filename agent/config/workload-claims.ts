import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { formatSpiffeId } from '../identity/spiffe-id';
import type { Config } from './config';
import type { SettingName } from './options';

/** Something that only one workload can have. */
export interface Claim {
  readonly setting: SettingName | 'name';
  /** Equal values mean the same thing. */
  readonly value: string;
  /** For people. */
  readonly shown: string;
}

/** What a workload with these settings needs for itself: its identity, its socket, and the directories that it writes. */
export function claimsOf(config: Config): readonly Claim[] {
  const { id, sdsSocket, stateDir, outputCerts } = config;
  return [
    ...(id ? [{ setting: 'spiffe-id', value: formatSpiffeId(id), shown: formatSpiffeId(id) } as const] : []),
    socketClaim(sdsSocket),
    ...(stateDir === undefined ? [] : [place('state-dir', stateDir)]),
    ...(outputCerts === undefined ? [] : [place('output-certs', outputCerts)]),
  ];
}

/** A socket at that path. */
export function socketClaim(path: string): Claim {
  return place('sds-socket', path);
}

function place(setting: SettingName, path: string): Claim {
  return { setting, value: resolve(path), shown: path };
}

/** What decides about the source of certificates alone: the socket and its streams live through a change of these. */
const SOURCE_FIELDS: readonly (keyof Config)[] = [
  'ca',
  'caAddresses',
  'caRoot',
  'caServerName',
  'token',
  'provCert',
  'clusterId',
  'certSigner',
  'signerName',
  'csrUsages',
  'kubeconfig',
  'caHeaders',
  'caDir',
  'caKeyAlgorithm',
  'keyAlgorithm',
  'ttlMs',
  'renewRatio',
  'renewJitter',
  'credentialsDir',
  'credentialBundle',
  'trustBundle',
];
/** What is looked at when it is needed. */
const LATER_FIELDS: readonly (keyof Config)[] = ['onRemoval'];

/** What has to be made anew for other settings: nothing, the source of certificates, or the whole workload with its socket. */
export function extentOfChange(before: Config, after: Config): 'nothing' | 'source' | 'whole' {
  const fields = (Object.keys({ ...before, ...after }) as (keyof Config)[]).filter(
    (field) => !LATER_FIELDS.includes(field) && !isDeepStrictEqual(before[field], after[field]),
  );
  if (fields.length === 0) return 'nothing';
  return fields.every((field) => SOURCE_FIELDS.includes(field)) ? 'source' : 'whole';
}

/** Whether two workloads have the same settings in everything. */
export function sameConfig(a: Config, b: Config): boolean {
  return isDeepStrictEqual(a, b);
}
