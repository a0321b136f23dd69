import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Daemon, startDaemon } from './daemon';
import { type Envoy, startEnvoy } from './envoy';
import { clientConfig, type SecretNames, serverConfig } from './envoy-config';
import { startTraffic, type Traffic } from './traffic';

export type SideName = 'client' | 'server';
export const SIDES: readonly SideName[] = ['client', 'server'];

export interface MeshOptions {
  readonly dir: string;
  readonly ttl: string;
  readonly perSecond: number;
  readonly delta?: boolean;
  readonly flags?: readonly string[];
  /** Names of the secrets; default `default` and `ROOTCA`. */
  readonly secrets?: SecretNames;
}

/**
 * Two real Envoys that speak mutual TLS, each with an agent of its own; both agents sign with one CA directory. Requests flow from the
 * start on: through the client's Envoy to the server's, one connection each, no session resumed.
 */
export interface Mesh {
  readonly caDir: string;
  readonly traffic: Traffic;
  readonly envoys: Readonly<Record<SideName, Envoy>>;
  agent(side: SideName): Daemon;
  /** Certificates after the first, of both agents and of those that they replaced. */
  rotations(): number;
  /** Kills a side's agent, as power does, and starts it again at once. */
  killAndRestart(side: SideName): Promise<void>;
  /** What an Envoy should never have seen, by its own counters: refused secrets, failed handshakes, failed requests. Empty is good. */
  troubles(): Promise<readonly string[]>;
  /** Full handshakes that the server's Envoy made. */
  handshakes(): Promise<number>;
  close(): Promise<void>;
}

const ID: Readonly<Record<SideName, string>> = {
  client: 'spiffe://cluster.local/ns/shop/sa/client',
  server: 'spiffe://cluster.local/ns/shop/sa/server',
};

const TROUBLES = [
  /^sds\..*\.update_rejected$/,
  /^sds\..*\.init_fetch_timeout$/,
  /\.ssl\.connection_error$/,
  /\.ssl\.fail_verify_(no_cert|error|san|cert_hash)$/,
  /context_secrets_not_ready$/,
  /^cluster\.server\.upstream_cx_connect_fail$/,
  /^cluster\.server\.upstream_rq_5xx$/,
];

/** Runs `work` over a mesh of its own, which is gone afterwards whatever happens. */
export async function withMesh(
  options: MeshOptions,
  work: (mesh: Mesh) => Promise<void>,
): Promise<void> {
  const mesh = await startMesh(options);
  try {
    await work(mesh);
  } finally {
    await mesh.close();
  }
}

async function startMesh(options: MeshOptions): Promise<Mesh> {
  const caDir = join(options.dir, 'ca');
  const started = { client: [startAgent('client')], server: [startAgent('server')] };
  const agent = (side: SideName) => started[side].at(-1)!;
  await Promise.all(SIDES.map((side) => agent(side).ready()));
  const sds = (side: SideName) => ({
    socket: agent(side).sdsSocket,
    delta: options.delta ?? false,
  });
  const secrets = options.secrets && { secrets: options.secrets };
  const server = await startEnvoy({
    dir: options.dir,
    name: 'envoy-server',
    config: serverConfig({ server: { sds: sds('server'), allow: ID.client, ...secrets } }),
  });
  const config = clientConfig({
    sds: sds('client'),
    port: await server.port('server'),
    server: ID.server,
    ...secrets,
  });
  const client = await startEnvoy({ dir: options.dir, name: 'envoy-client', config });
  const envoys = { client, server };
  for (const side of SIDES) await envoys[side].started();
  const traffic = startTraffic({
    port: await client.port('app'),
    perSecond: options.perSecond,
    concurrency: 8,
  });

  function startAgent(side: SideName): Daemon {
    const dir = join(options.dir, side);
    mkdirSync(dir, { recursive: true });
    return startDaemon({
      dir,
      identity: ['--spiffe-id', ID[side]],
      flags: ['--ca-dir', caDir, '--ttl', options.ttl, ...(options.flags ?? [])],
    });
  }

  return {
    caDir,
    traffic,
    envoys,
    agent,
    rotations: () =>
      SIDES.flatMap((side) => started[side]).reduce(
        (sum, each) => sum + eventsOf(each, 'certificate renewed'),
        0,
      ),
    killAndRestart: async (side) => {
      await agent(side).kill('SIGKILL');
      started[side].push(startAgent(side));
      await agent(side).ready();
    },
    troubles: async () =>
      (await Promise.all(SIDES.map((side) => troublesOf(side, envoys[side])))).flat(),
    handshakes: () => server.sum(/^listener\.server\.ssl\.handshake$/),
    close: async () => {
      await traffic.stop();
      for (const side of SIDES) await envoys[side].stop();
      for (const side of SIDES) await agent(side).stop();
    },
  };
}

function eventsOf(agent: Daemon, sentence: string): number {
  return agent.events.filter((event) => event.scope === 'keeper' && event.event === sentence)
    .length;
}

async function troublesOf(side: SideName, envoy: Envoy): Promise<string[]> {
  const found = await Promise.all(TROUBLES.map((filter) => envoy.stats(filter)));
  return found.flatMap((stats) =>
    [...stats].filter(([, value]) => value > 0).map(([name, value]) => `${side}: ${name} ${value}`),
  );
}
