import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { peerPath } from './peer-path';
import { until } from './until';

/** A certificate as Envoy's `/certs` shows it. */
export interface EnvoyCertificate {
  /** Lower-case hex, as the agent writes serials. */
  readonly serial: string;
  readonly uris: readonly string[];
  readonly notAfterAt: number;
}

/** One TLS context of Envoy: its trust bundle and its own chain. */
export interface EnvoyContext {
  readonly roots: readonly EnvoyCertificate[];
  readonly chain: readonly EnvoyCertificate[];
}

/** A real Envoy as a process of its own. */
export interface Envoy {
  readonly pid: number;
  /** The last lines that it logged, for messages of failing tests. */
  log(): string;
  /** The port that a listener really took. Nobody answers there before Envoy has its secrets: see `started`. */
  port(listener: string): Promise<number>;
  /** Resolves when all listeners take connections, hence have their secrets. */
  started(): Promise<void>;
  /** What `/certs` shows: every TLS context that has a certificate. */
  certs(): Promise<readonly EnvoyContext[]>;
  /** Counters and gauges whose name matches, by name. */
  stats(filter: RegExp): Promise<ReadonlyMap<string, number>>;
  /** The sum of what matches. */
  sum(filter: RegExp): Promise<number>;
  stop(): Promise<void>;
}

/** What an Envoy says about itself, whoever started it. */
export type EnvoyView = Pick<Envoy, 'started' | 'port' | 'certs' | 'stats' | 'sum'>;

const START_MS = 15_000;
const LOG_LINES = 200;

export interface EnvoyOptions {
  /** Where its bootstrap is written. */
  readonly dir: string;
  /** Distinguishes several in one directory. */
  readonly name: string;
  readonly config: object;
  /** What relative paths are relative to; default: the working directory of the tests. */
  readonly cwd?: string;
  /** Out of the terminal's reach: a Ctrl-C is then for the caller alone to pass on. */
  readonly detached?: boolean;
}

/**
 * Starts Envoy on a bootstrap whose admin port and listener ports may be 0, and resolves when its admin interface answers. Listeners that
 * wait for SDS are not up then.
 */
export async function startEnvoy(options: EnvoyOptions): Promise<Envoy> {
  const program = peerPath('envoy');
  if (program === undefined)
    throw new Error('envoy is missing; provide it with: scripts/peers envoy');
  const file = (suffix: string) => join(options.dir, `${options.name}.${suffix}`);
  writeFileSync(file('json'), JSON.stringify(options.config, undefined, 2));
  const flags = [
    '--disable-hot-restart',
    '--concurrency',
    '1',
    '--log-level',
    'info',
    '--admin-address-path',
    file('admin'),
  ];
  const child = spawn(program, ['-c', file('json'), ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: options.detached ?? false,
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
  const lines: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    lines.push(...text.split('\n'));
    lines.splice(0, Math.max(0, lines.length - LOG_LINES));
  });
  let ended = false;
  const closed = new Promise<void>((done) => child.on('close', () => done())).then(() => {
    ended = true;
  });
  const log = () => lines.join('\n');
  const admin = await until(
    `${options.name}: Envoy's admin interface`,
    async () => {
      if (ended) throw new Error(`${options.name}: Envoy ended at its start:\n${log()}`);
      const address = existsSync(file('admin')) ? readFileSync(file('admin'), 'utf8') : '';
      return (await ask(address, '/server_info').catch(() => undefined)) && address;
    },
    START_MS,
  );
  return {
    pid: child.pid!,
    log,
    ...viewEnvoy(options.name, admin),
    stop: async () => {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 3_000);
      await closed;
      clearTimeout(late);
    },
  };
}

/** @param admin  `host:port` of its admin interface. */
export function viewEnvoy(name: string, admin: string): EnvoyView {
  const stats = async (filter: RegExp) => {
    const { stats: all } = JSON.parse(
      await ask(admin, `/stats?format=json&filter=${encodeURIComponent(filter.source)}`),
    ) as StatsReply;
    return new Map(
      all.flatMap((each) =>
        typeof each.value === 'number' ? [[each.name!, each.value] as const] : [],
      ),
    );
  };
  const workersStarted = async () =>
    (await stats(/^listener_manager\.workers_started$/)).get('listener_manager.workers_started') ===
    1;
  return {
    started: async () => {
      await until(`${name}: Envoy's start`, workersStarted, START_MS);
    },
    port: (listener) =>
      until(
        `${name}: the port of listener ${listener}`,
        () => listenerPort(admin, listener),
        START_MS,
      ),
    certs: async () =>
      (JSON.parse(await ask(admin, '/certs')) as CertsReply).certificates.map(contextOf),
    stats,
    sum: async (filter) =>
      [...(await stats(filter)).values()].reduce((sum, value) => sum + value, 0),
  };
}

interface StatsReply {
  readonly stats: readonly { readonly name?: string; readonly value?: unknown }[];
}

interface CertsReply {
  readonly certificates: readonly {
    readonly ca_cert: readonly RawCertificate[];
    readonly cert_chain: readonly RawCertificate[];
  }[];
}

interface RawCertificate {
  readonly serial_number: string;
  readonly subject_alt_names: readonly { readonly uri?: string }[];
  readonly expiration_time: string;
}

function contextOf(raw: CertsReply['certificates'][number]): EnvoyContext {
  return { roots: raw.ca_cert.map(certificateOf), chain: raw.cert_chain.map(certificateOf) };
}

function certificateOf(raw: RawCertificate): EnvoyCertificate {
  return {
    serial: raw.serial_number.toLowerCase(),
    uris: raw.subject_alt_names.flatMap((name) => (name.uri === undefined ? [] : [name.uri])),
    notAfterAt: Date.parse(raw.expiration_time),
  };
}

async function listenerPort(admin: string, listener: string): Promise<number | undefined> {
  const { listener_statuses: all } = JSON.parse(await ask(admin, '/listeners?format=json')) as {
    listener_statuses?: readonly {
      name: string;
      local_address: { socket_address: { port_value: number } };
    }[];
  };
  return all?.find((each) => each.name === listener)?.local_address.socket_address.port_value;
}

function ask(address: string, path: string): Promise<string> {
  return new Promise((done, failed) => {
    const request = get(
      `http://${address}${path}`,
      { agent: false, timeout: 5_000 },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.on('end', () =>
          response.statusCode === 200
            ? done(body)
            : failed(new Error(`${path}: ${response.statusCode} ${body}`)),
        );
      },
    );
    request.on('timeout', () => request.destroy(new Error(`${path}: no answer`)));
    request.on('error', failed);
  });
}
