import { mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import type { Daemon, DaemonOptions } from './daemon';
import { ISTIOD_NAME, type Istiod } from './istiod';
import {
  ENVIRONMENT,
  type PilotAgent,
  type PilotAgentOptions,
  startPilotAgent,
} from './pilot-agent';
import { tempDir } from './temp-dir';
import { testDaemon } from './test-daemon';

/** The directory of a pod that Istio injected, with what kubelet mounts there: keyturn and Istio's agent run side by side in it. */
export interface IstioPod {
  readonly dir: string;
  /** keyturn with no setting but Istio's own variables; it asks the real istiod. */
  keyturn(options?: Pick<DaemonOptions, 'env' | 'flags'>): Daemon;
  /** Istio's agent, ended by `close`. Its Envoy's configuration comes from the real istiod; its certificates would come from elsewhere. */
  agent(options?: Pick<PilotAgentOptions, 'env' | 'realEnvoy' | 'statusPort'>): Promise<PilotAgent>;
  /** How often that elsewhere was called: an authority that nobody but Istio's agent knows. */
  calls(): number;
  close(): Promise<void>;
}

/** @param mounts  The mesh's root, and tokens of the service account `shop`/`cart`. */
export async function createIstioPod(
  istiod: Istiod,
  mounts: { readonly rootPem: string; readonly token: string },
): Promise<IstioPod> {
  const dir = tempDir();
  for (const [path, content] of [
    ['var/run/secrets/istio/root-cert.pem', mounts.rootPem],
    ['var/run/secrets/tokens/istio-token', mounts.token],
  ] as const) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), content);
  }
  let calls = 0;
  const elsewhere = createServer((socket) => {
    calls += 1;
    socket.destroy();
  });
  await new Promise<void>((done) => elsewhere.listen(0, '127.0.0.1', done));
  const caAddress = `127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
  const agents: PilotAgent[] = [];
  return {
    dir,
    keyturn: ({ env, flags = [] } = {}) =>
      testDaemon({
        dir,
        source: [],
        identity: [],
        flags,
        env: {
          ...ENVIRONMENT,
          CA_ADDR: istiod.address,
          KEYTURN_CA_SERVER_NAME: ISTIOD_NAME,
          ...env,
        },
      }),
    agent: async (options) => {
      const discoveryAddress = `localhost:${istiod.port}`;
      const agent = await startPilotAgent({
        dir,
        caAddress,
        discoveryAddress,
        ...mounts,
        ...options,
      });
      agents.push(agent);
      return agent;
    },
    calls: () => calls,
    close: async () => {
      await Promise.all(agents.map((agent) => agent.stop()));
      await new Promise((done) => elsewhere.close(done));
    },
  };
}
