import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { certificatesPem } from '../../agent/identity/certificate';
import {
  dnsName,
  HOUR_MS,
  ipName,
  issueLeaf,
  makeTestCa,
  spkiOf,
  TEST_ID,
  type TestCa,
  type TestCaOptions,
} from './certs';

/** Certificate chain and key, PEM. */
export interface PemPair {
  readonly chainPem: Buffer;
  readonly keyPem: Buffer;
}

/** A root or intermediate that is valid by the machine's clock. */
export function liveCa(options: TestCaOptions = {}): Promise<TestCa> {
  const now = Date.now();
  return makeTestCa({
    notBeforeAt: now - 24 * HOUR_MS,
    notAfterAt: now + 9_000 * HOUR_MS,
    ...options,
  });
}

export interface PairOptions {
  readonly notBeforeAt?: number;
  readonly notAfterAt?: number;
  readonly key?: KeyObject;
}

/** What a server shows that is known by these names and IPv4 addresses; `localhost` and 127.0.0.1 by default. */
export function serverPair(
  ca: TestCa,
  names: readonly string[] = ['localhost', '127.0.0.1'],
  options: PairOptions = {},
): PemPair {
  const otherNames = names.map((name) =>
    isIPv4(name) ? ipName(...name.split('.').map(Number)) : dnsName(name),
  );
  return makePair(ca, { uris: [], otherNames }, options);
}

/** What a workload shows. */
export function clientPair(ca: TestCa, uri = TEST_ID, options: PairOptions = {}): PemPair {
  return makePair(ca, { uris: [uri] }, options);
}

function makePair(
  ca: TestCa,
  names: { uris: string[]; otherNames?: Uint8Array[] },
  options: PairOptions,
): PemPair {
  const { key = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey } = options;
  const now = Date.now();
  const leaf = issueLeaf(ca, {
    key: { spkiDer: spkiOf(key) },
    ...names,
    notBeforeAt: options.notBeforeAt ?? now - 120_000,
    notAfterAt: options.notAfterAt ?? now + HOUR_MS,
  });
  return {
    chainPem: certificatesPem([leaf, ...ca.intermediatesDer]),
    keyPem: Buffer.from(key.export({ type: 'pkcs8', format: 'pem' })),
  };
}

/** key.pem and cert-chain.pem, as PROV_CERT holds them. */
export function writePair(dir: string, { chainPem, keyPem }: PemPair): void {
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'cert-chain.pem'), chainPem);
  writeFileSync(join(dir, 'key.pem'), keyPem, { mode: 0o600 });
}

/** The roots of these authorities as one PEM file. */
export function rootsPem(...authorities: readonly TestCa[]): Buffer {
  return certificatesPem(authorities.flatMap(({ bundle }) => bundle.rootsDer));
}
