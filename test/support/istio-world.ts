import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from '@jest/globals';
import { directEngine } from '../../agent/identity/direct-engine';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../../agent/identity/svid';
import type { CaClient } from '../../ca-client/ca-client';
import { createIstioCa } from '../../ca-client/istio/istio-ca';
import type { IstioCaOptions } from '../../ca-client/istio/options';
import { TEST_ID, type TestCa } from './certs';
import type { FakeCa } from './fake-istio-csr';
import { tempDir } from './temp-dir';
import { testDeps } from './test-deps';
import { rootsPem } from './tls-ca';

export const id = parseSpiffeId(TEST_ID);

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});

/** Closes it after the test, the last one first. */
export function closing<T extends { close(): Promise<void> }>(what: T): T {
  open.push(what);
  return what;
}

/** The files that a workload finds: `root-cert.pem`, `token`, and `prov` for provisioned certificates. */
export class WorkloadFiles {
  readonly dir = tempDir();
  readonly rootPath = join(this.dir, 'root-cert.pem');
  readonly tokenPath = join(this.dir, 'token');
  readonly provDir = join(this.dir, 'prov');

  roots(...authorities: readonly TestCa[]): this {
    writeFileSync(this.rootPath, rootsPem(...authorities));
    return this;
  }

  token(token: string | undefined): this {
    if (token === undefined) rmSync(this.tokenPath, { force: true });
    else writeFileSync(this.tokenPath, `${token}\n`);
    return this;
  }

  /** A subdirectory's file. */
  write(path: string, bytes: Uint8Array | string): string {
    const full = join(this.dir, path);
    mkdirSync(join(full, '..'), { recursive: true });
    writeFileSync(full, bytes);
    return full;
  }
}

export interface ClientOptions extends Partial<IstioCaOptions> {
  readonly address: string;
}

/** A client on these files, closed after the test. */
export async function openClient(files: WorkloadFiles, options: ClientOptions, deps = testDeps()) {
  const ca = closing(
    await createIstioCa(
      { name: 'istiod', mountedRoot: files.rootPath, tokenPath: files.tokenPath, ...options },
      deps,
    ),
  );
  return { ca, deps };
}

/** One certificate for the test's identity, as the gate takes it, and the request that it answers. */
export async function issue(ca: CaClient, signal = AbortSignal.timeout(20_000)): Promise<Svid> {
  const key = await directEngine.generateKeyPair('ecdsa-p256');
  const { certificatesDer } = await ca.sign(
    { id, csrDer: await directEngine.createCsr(key, id), ttlSeconds: 900 },
    signal,
  );
  const trust = ca.trust.value;
  if (!trust) throw new Error('the trust bundle is not known after a signature');
  return acceptIssuedChain({ id, key, source: ca.name }, certificatesDer, trust, Date.now());
}

/** A client of a fake that takes its token, for the suite of all CA clients. */
export async function fakeUnderTest(name: IstioCaOptions['name'], fake: FakeCa) {
  const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
  const options = {
    name,
    address: fake.server.address,
    mountedRoot: files.rootPath,
    tokenPath: files.tokenPath,
    clusterId: 'Kubernetes',
  };
  return {
    ca: await createIstioCa(options, testDeps()),
    id,
    now: Date.now,
    close: () => fake.close(),
  };
}
