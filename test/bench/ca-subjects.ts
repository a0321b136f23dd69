import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openFileStore } from '../../agent/authority/store/file-store';
import { systemClock } from '../../agent/base/clock';
import { noLog } from '../../agent/base/log';
import { noMetrics } from '../../agent/base/metrics';
import { systemRandom } from '../../agent/base/random';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { writeCaDir } from '../support/ca-dir';
import type { TestCa } from '../support/certs';
import { startDaemon } from '../support/daemon';
import { cacertsDir, ISTIOD_NAME, startIstiod } from '../support/istiod';
import type { Kube } from '../support/kube';
import { tempDir } from '../support/temp-dir';
import { rootsPem } from '../support/tls-ca';
import type { LoadCaller } from './ca-load';
import { loopDelayMs, TELL_LOOP_DELAY } from './loop-delay';

/** An authority under load, on loopback. */
export interface CaSubject {
  readonly name: 'keyturn' | 'istiod';
  readonly address: string;
  readonly serverName: string;
  readonly rootPem: string;
  readonly pid: number;
  /** Callers with the tokens that this one takes. */
  readonly callers: readonly LoadCaller[];
  /** New tokens that are good for one call each, for the first caller. Ours only. */
  oneTimeTokens?(count: number): Promise<readonly string[]>;
  /** The longest delay of its event loop since the last call, milliseconds. Ours only, and only where it was asked for. */
  loopDelayMs?(): Promise<number>;
  stop(): Promise<unknown>;
}

export type KeyturnAuthentication =
  | { readonly by: 'keys' }
  | { readonly by: 'review'; readonly kube: Kube };

const NAMESPACE = 'bench';
const ISSUER = 'https://tokens.bench.example';

/** Service accounts of the cluster, with a token each. */
export async function clusterCallers(kube: Kube, count: number): Promise<readonly LoadCaller[]> {
  const names = accounts(count);
  await kube.namespace(NAMESPACE, ...names);
  return Promise.all(
    names.map(async (name) => ({
      uri: uriOf(name),
      token: await kube.token(NAMESPACE, name, { audiences: ['istio-ca'] }),
    })),
  );
}

/** `keyturn ca serve` as it ships, without limits of its own, its audit log in a file. */
export async function startKeyturnCa(
  ca: TestCa,
  authentication: KeyturnAuthentication,
  callers: readonly LoadCaller[],
  { tellsLoopDelay = false } = {},
): Promise<CaSubject> {
  const dir = tempDir();
  writeCaDir(join(dir, 'ca'), { signer: ca, roots: [ca] });
  const tokens = authentication.by === 'keys' ? signedTokens(dir, callers) : undefined;
  const flags =
    authentication.by === 'review'
      ? [
          '--authenticators',
          'client-certificate,token-review',
          '--kubeconfig',
          authentication.kube.kubeconfig,
        ]
      : [
          '--authenticators',
          'client-certificate,join-token,oidc',
          '--oidc-issuer',
          ISSUER,
          '--jwks',
          'jwks.json',
        ];
  const places = [
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
    '--ca-dir',
    './ca',
    '--audit-log',
    join(tempDir(), 'audit.log'),
  ];
  const limits = [
    '--rate-per-identity',
    '0',
    '--rate-total',
    '0',
    // One caller asks for all rounds.
    '--max-live-certificates-per-identity',
    '500000',
    '--trust-domain',
    'cluster.local',
  ];
  const daemon = startDaemon({
    dir,
    args: ['ca', 'serve', ...places, ...limits, ...flags, '--log-format', 'json'],
    preload: TELL_LOOP_DELAY,
  });
  const { address } = await daemon.event('ca server started');
  return {
    name: 'keyturn',
    pid: daemon.pid,
    address: String(address),
    serverName: '127.0.0.1',
    rootPem: rootsPem(ca).toString(),
    callers: tokens ?? callers,
    ...(tellsLoopDelay && { loopDelayMs: () => loopDelayMs(dir, daemon.pid) }),
    oneTimeTokens: (count) => makeJoinTokens(join(dir, 'ca'), callers[0]!.uri, count),
    stop: () => daemon.stop(),
  };
}

/** A real istiod that signs with the same key. */
export async function startIstiodCa(
  ca: TestCa,
  kube: Kube,
  callers: readonly LoadCaller[],
): Promise<CaSubject> {
  const dir = tempDir();
  writeCaDir(cacertsDir(dir), { signer: ca, roots: [ca] });
  const { address, pid, stop } = await startIstiod(kube, { dir });
  return {
    name: 'istiod',
    pid,
    address,
    serverName: ISTIOD_NAME,
    rootPem: rootsPem(ca).toString(),
    callers,
    stop,
  };
}

/** Service accounts that no cluster knows: for measurements without one. */
export function unknownCallers(count: number): readonly LoadCaller[] {
  return accounts(count).map((name) => ({ uri: uriOf(name), token: '' }));
}

const accounts = (count: number) => Array.from({ length: count }, (_, index) => `caller-${index}`);
const uriOf = (account: string) => `spiffe://cluster.local/ns/${NAMESPACE}/sa/${account}`;

/** Tokens for the same accounts by an issuer whose keys lie in `dir`. */
function signedTokens(dir: string, callers: readonly LoadCaller[]): readonly LoadCaller[] {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'bench', use: 'sig', alg: 'ES256' };
  writeFileSync(join(dir, 'jwks.json'), JSON.stringify({ keys: [jwk] }));
  return callers.map(({ uri }) => ({
    uri,
    token: signToken(privateKey, `system:serviceaccount:${NAMESPACE}:${uri.split('/').at(-1)}`),
  }));
}

function signToken(key: KeyObject, sub: string): string {
  const now = Math.floor(Date.now() / 1_000);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { iss: ISSUER, sub, aud: ['istio-ca'], iat: now, nbf: now, exp: now + 3_600 };
  const signed = `${part({ alg: 'ES256', kid: 'bench', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

async function makeJoinTokens(
  caDir: string,
  uri: string,
  count: number,
): Promise<readonly string[]> {
  const store = await openFileStore(caDir, {
    clock: systemClock,
    random: systemRandom,
    log: noLog,
    metrics: noMetrics,
  });
  const tokens: string[] = [];
  for (let made = 0; made < count; made += 1) {
    tokens.push((await store.createJoinToken(parseSpiffeId(uri), 3_600, Date.now())).reveal());
  }
  await store.close();
  return tokens;
}
