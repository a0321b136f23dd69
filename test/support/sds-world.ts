import { join } from 'node:path';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { WatchedSource } from '../../agent/base/watched';
import type { CertState } from '../../agent/identity/cert-state';
import { generateKeyPair } from '../../agent/identity/keys';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../../agent/identity/svid';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { verifyJwtSvid } from '../../agent/jwt/jwt-svid';
import { createSdsServer, type SdsServer, type SdsServerOptions } from '../../sds/server';
import { HOUR_MS, issueLeaf, makeTestCa, TEST_ID, type TestCa } from './certs';
import { createSdsClient, type SdsClient } from './sds-client';
import { type LogEvent, testDeps } from './test-deps';

/** A new key and certificate of that CA, through the gate, valid now for a day. */
export async function issueSvid(ca: TestCa, bundle: TrustBundle = ca.bundle): Promise<Svid> {
  const now = Date.now();
  const key = await generateKeyPair('ecdsa-p256');
  const leaf = issueLeaf(ca, { key, notBeforeAt: now - 60_000, notAfterAt: now + 24 * HOUR_MS });
  const expected = { id: parseSpiffeId(TEST_ID), key, source: 'test' };
  return acceptIssuedChain(expected, [leaf, ...ca.intermediatesDer], bundle, now);
}

/** A CA that is valid now. */
export function issueCa(name = 'root'): Promise<TestCa> {
  const now = Date.now();
  return makeTestCa({
    name,
    notBeforeAt: now - 24 * HOUR_MS,
    notAfterAt: now + 365 * 24 * HOUR_MS,
  });
}

export function currentState(svid: Svid, bundle: TrustBundle = svid.bundle): CertState {
  return { kind: 'current', svid, bundle, renewAt: svid.notAfterAt };
}

export function unavailableState(bundle: TrustBundle | undefined, expired?: Svid): CertState {
  return {
    kind: 'unavailable',
    bundle,
    expired,
    retryAt: 0,
    error: new AgentError('ERR_CA_UNAVAILABLE', 'sign: nobody answers'),
  };
}

/** As with a CA that issues none. */
export const NO_TOKENS: SdsServerOptions['jwt'] = {
  ttlMs: 300_000,
  open: () => undefined,
  verify: (token, audience, keysOf) => verifyJwtSvid(token, audience, keysOf, Date.now()),
};

/** An SDS server in this process, whose state the test sets, and clients of it. */
export interface SdsWorld {
  readonly server: SdsServer;
  readonly socketPath: string;
  readonly state: WatchedSource<CertState>;
  readonly ca: TestCa;
  readonly events: readonly LogEvent[];
  /** Issues a certificate and puts it into service. */
  rotate(): Promise<Svid>;
  client(): SdsClient;
  close(): Promise<void>;
}

export async function startSdsWorld(
  dir: string,
  options: Partial<SdsServerOptions> = {},
  given: Partial<Deps> = {},
): Promise<SdsWorld> {
  const deps = testDeps(given);
  const ca = await issueCa();
  const state = new WatchedSource<CertState>({ kind: 'starting', bundle: undefined });
  const socketPath = options.socketPath ?? join(dir, 'socket');
  const server = await createSdsServer(
    {
      mode: 0o600,
      group: undefined,
      keyFormat: 'pkcs8',
      fileDirs: [],
      jwt: NO_TOKENS,
      ...options,
      state,
      socketPath,
    },
    deps,
  );
  const clients: SdsClient[] = [];
  return {
    server,
    socketPath,
    state,
    ca,
    events: deps.events,
    rotate: async () => {
      const svid = await issueSvid(ca);
      state.set(currentState(svid));
      return svid;
    },
    client: () => {
      const client = createSdsClient(socketPath);
      clients.push(client);
      return client;
    },
    close: async () => {
      for (const client of clients) client.close();
      await server.close();
    },
  };
}
