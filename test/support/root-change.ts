import { once } from 'node:events';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { expect } from '@jest/globals';
import {
  certificatesPem,
  parseCertificate,
  parseRootBundle,
} from '../../agent/identity/certificate';
import { keyturn } from './command-line';
import type { Daemon } from './daemon';
import { tempDir } from './temp-dir';
import { testDaemon } from './test-daemon';
import { until } from './until';

/** A `keyturn ca serve` whose root is changed by the commands of docs/authority.md. */
export interface RootChange {
  readonly dir: string;
  readonly daemon: Daemon;
  readonly address: string;
  readonly admin: string;
  /** Files with one root each: `old` was copied before the change, `new` is the root that was added last. */
  readonly copies: Readonly<Record<string, string>>;
  /** Of the signers, in the order in which they came. */
  readonly ids: readonly string[];
  add(): Promise<void>;
  /** Resolves when the server shows the new certificate. */
  activate(id?: string, ...flags: readonly string[]): Promise<void>;
  retire(...flags: readonly string[]): Promise<void>;
  token(id: string): Promise<string>;
  /** Runs a command of keyturn where the authority is, and resolves with what it printed. */
  command(...args: readonly string[]): Promise<string>;
}

/** The authority of trust domain example.org, once it listens. */
export async function caOf(...flags: readonly string[]): Promise<RootChange> {
  const dir = tempDir();
  const free = [
    '--listen',
    '127.0.0.1:0',
    '--admin-address',
    '127.0.0.1:0',
    '--log-format',
    'json',
  ];
  const daemon = testDaemon({
    dir,
    args: ['ca', 'serve', ...free, '--ca-dir', './ca', '--trust-domain', 'example.org', ...flags],
  });
  const { address, admin } = await daemon.event('ca server started');
  const rootFile = join(dir, 'ca/root-cert.pem');
  const copies: Record<string, string> = { old: join(dir, 'old-root.pem') };
  copyFileSync(rootFile, copies.old!);
  const ids: string[] = [];
  const command = async (...args: readonly string[]) => {
    const done = await keyturn([...args, '--ca-dir', './ca'], { cwd: dir });
    if (done.code !== 0) throw new Error(done.stderr);
    return done.stdout.trim();
  };
  /** Runs a command, and waits until the server shows a certificate that it made after it had seen the change. */
  const served = async (work: () => Promise<unknown>) => {
    const before = daemon.events.length;
    await work();
    await until('a certificate of after the change', async () => {
      const changedAt = daemon.events.findLastIndex(({ event }) =>
        /^CA (roots|signer) changed$/.test(event),
      );
      const since = daemon.events.slice(changedAt).map(({ serial }) => serial);
      return changedAt >= before && since.includes(await shownSerial(String(address)));
    });
  };
  const rootsNow = () => parseRootBundle(readFileSync(rootFile), 'roots').bundle.rootsDer;
  return {
    dir,
    daemon,
    address: String(address),
    admin: String(admin),
    copies,
    ids,
    add: async () => {
      const known = rootsNow();
      await served(async () => ids.push(await command('ca', 'root', 'add')));
      const added = rootsNow().filter(
        (der) => !known.some((other) => Buffer.compare(other, der) === 0),
      );
      expect(added).toHaveLength(1);
      copies.new = join(dir, `root-${ids.length}.pem`);
      writeFileSync(copies.new, certificatesPem(added));
    },
    activate: (id, ...more) =>
      served(() => command('ca', 'root', 'activate', id ?? ids.at(-1)!, '--overlap', '0', ...more)),
    retire: (...flags) => served(() => command('ca', 'root', 'retire', ...flags)),
    token: (id) => command('ca', 'token', 'create', '--spiffe-id', id),
    command,
  };
}

/** The serial number of the certificate that a server shows, as `Certificate.serial`. */
async function shownSerial(address: string): Promise<string> {
  const [host, port] = address.split(':') as [string, string];
  const socket = connect({
    host,
    port: Number(port),
    rejectUnauthorized: false,
    ALPNProtocols: ['h2'],
  });
  try {
    await once(socket, 'secureConnect');
    return parseCertificate(socket.getPeerX509Certificate()!.raw).serial;
  } finally {
    socket.destroy();
  }
}
