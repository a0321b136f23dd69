import { basename, dirname, join } from 'node:path';
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
  /** It is only read: others may read it too, but nobody may write there. Default false. */
  readonly shared?: boolean;
}

/**
 * What a workload with these settings needs for itself: its identity, its socket, and the directories that it writes. Those that it reads
 * are nobody's to write.
 *
 * @param placeOf  Where a path leads, so that two names of one place are equal.
 */
export function claimsOf(config: Config, placeOf: (path: string) => string): readonly Claim[] {
  const { id, ca, sdsSocket, stateDir, outputCerts, caDir, credentialsDir } = config;
  const place = (setting: SettingName, path: string): Claim => ({
    setting,
    value: placeOf(path),
    shown: path,
  });
  return [
    ...(id
      ? [{ setting: 'spiffe-id', value: formatSpiffeId(id), shown: formatSpiffeId(id) } as const]
      : []),
    socketClaim(sdsSocket, placeOf),
    ...(stateDir === undefined ? [] : [place('state-dir', stateDir)]),
    ...(outputCerts === undefined ? [] : [place('output-certs', outputCerts)]),
    ...(ca.includes('builtin') ? [{ ...place('ca-dir', caDir), shared: true }] : []),
    ...(ca.includes('file') ? [{ ...place('credentials-dir', credentialsDir), shared: true }] : []),
  ];
}

/** A socket at that path. */
export function socketClaim(path: string, placeOf: (path: string) => string): Claim {
  return {
    setting: 'sds-socket',
    value: join(placeOf(dirname(path)), basename(path)),
    shown: path,
  };
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
  'caTimeoutMs',
  'caDir',
  'caKeyAlgorithm',
  'keyAlgorithm',
  'ttlMs',
  'renewRatio',
  'renewJitter',
  'credentialsDir',
  'credentialBundle',
  'trustBundle',
  'rootTrustDomains',
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
