import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { TEST_ID } from './certs';
import type { Daemon } from './daemon';
import type { FakeCa } from './fake-istio-csr';
import { tempDir } from './temp-dir';
import { testDaemon } from './test-daemon';
import { rootsPem } from './tls-ca';

const TOKEN = 'var/run/secrets/tokens/istio-token';
const IDENTITY = { TRUST_DOMAIN: 'cluster.local', POD_NAMESPACE: 'shop', SERVICE_ACCOUNT: 'cart' };

/** A directory laid out as that of a pod or machine of Istio, in which the program runs with Istio's own variables and no flag of ours. */
export interface IstioMachine {
  readonly dir: string;
  /** Another process in it, ended with the test. */
  start(env?: Readonly<Record<string, string>>): Daemon;
  /** Mounts a token, or takes it away. */
  token(token: string | undefined): void;
  write(path: string, bytes: string | Uint8Array): void;
  /** The text of a file, empty where there is none. */
  read(path: string): string;
}

/** @param ca  Whose root and whose token of `TEST_ID` are mounted, and what CA_ADDR names. */
export function createIstioMachine(ca: FakeCa): IstioMachine {
  const dir = tempDir();
  const write = (path: string, bytes: string | Uint8Array) => {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), bytes, { mode: 0o600 });
  };
  const token = (text: string | undefined) =>
    text === undefined ? rmSync(join(dir, TOKEN)) : write(TOKEN, text);
  write('var/run/secrets/istio/root-cert.pem', rootsPem(ca.signer));
  token(ca.token(TEST_ID));
  return {
    dir,
    token,
    write,
    read: (path) => (existsSync(join(dir, path)) ? readFileSync(join(dir, path), 'utf8') : ''),
    start: (env) =>
      testDaemon({
        dir,
        source: [],
        identity: [],
        env: { ...IDENTITY, CA_ADDR: ca.server.address, ...env },
      }),
  };
}
