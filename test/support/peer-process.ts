import { spawn } from 'node:child_process';
import { type PeerName, peerPath } from './peer-path';

/** A program that `scripts/peers` provides, running. */
export interface Peer {
  readonly pid: number;
  /** Of `performance.now()`, when it was started. */
  readonly startedAt: number;
  /**
   * Whether it still runs.
   *
   * @throws Error with the last lines that it logged, where it ended by itself.
   */
  running(): true;
  /** The last lines that it logged, for messages of failing tests. */
  log(): string;
  stop(): Promise<void>;
}

const LOG_LINES = 200;

/** Starts it with a standard input that ends when this process does, whichever way that is. */
export function startPeer(
  name: PeerName,
  args: readonly string[],
  options: { readonly env?: NodeJS.ProcessEnv; readonly cwd?: string } = {},
): Peer {
  const program = peerPath(name);
  if (program === undefined)
    throw new Error(`${name} is missing; provide it with: scripts/peers ${name}`);
  const startedAt = performance.now();
  const child = spawn(program, [...args], { stdio: ['pipe', 'pipe', 'pipe'], ...options });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      lines.push(...text.split('\n').filter((line) => line !== ''));
      lines.splice(0, Math.max(0, lines.length - LOG_LINES));
    });
  }
  let ended = false;
  const closed = new Promise<void>((done) => child.on('close', () => done())).then(() => {
    ended = true;
  });
  const log = () => lines.join('\n');
  return {
    pid: child.pid!,
    startedAt,
    running: () => {
      if (ended) throw new Error(`${name} ended:\n${log()}`);
      return true;
    },
    log,
    stop: async () => {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await closed;
      clearTimeout(late);
    },
  };
}
