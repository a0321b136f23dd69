import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Daemon } from './daemon';
import { testDaemon } from './test-daemon';

/** `keyturn ca serve` for example.org on the directory `ca`, on free ports, once it listens. It does not outlive its test. */
export async function serveCa(dir: string, ...flags: readonly string[]) {
  const ports = ['--listen', '127.0.0.1:0', '--admin-address', '127.0.0.1:0'];
  const args = [
    'ca',
    'serve',
    ...ports,
    '--ca-dir',
    './ca',
    '--trust-domain',
    'example.org',
    '--log-format',
    'json',
  ];
  const daemon = testDaemon({ dir, args: [...args, ...flags] });
  const { address, admin } = await daemon.event('ca server started');
  return { daemon, address: String(address), admin: String(admin) };
}

/** A one-time token for an identity, by `keyturn ca token create` beside the daemon. */
export async function createToken(daemon: Daemon, id: string): Promise<string> {
  const { code, stdout, stderr } = await daemon.command(
    'ca',
    'token',
    'create',
    '--ca-dir',
    './ca',
    '--spiffe-id',
    id,
  );
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
}

/** Lines of an audit log, parsed; none where there is no file yet. */
export function readAudit(dir: string, name = 'audit.jsonl'): Record<string, unknown>[] {
  let text = '';
  try {
    text = readFileSync(join(dir, name), 'utf8');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}
