import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { peerPath } from './peer-path';

/** A line of what `test/interop/gospiffe` prints. */
export type Fact = Readonly<Record<string, unknown>>;

/** A program that uses go-spiffe, with its own connection to the socket. */
export interface Gospiffe {
  /** The next line, past or future, that was not taken yet. Fails with the program's words where it ends before. */
  next(): Promise<Fact>;
  /** Ends it, unless it has ended by itself; resolves with its exit status and its words. */
  stop(): Promise<{ readonly code: number | null; readonly stderr: string }>;
}

const running = new Set<ChildProcess>();

/** Starts `gospiffe COMMAND ARGS...`; it ends itself after 20 seconds at the latest. */
export function startGospiffe(socketPath: string, args: readonly string[], stdin = ''): Gospiffe {
  const child = spawn(peerPath('gospiffe')!, args, { env: { SPIFFE_ENDPOINT_SOCKET: `unix://${socketPath}` }, stdio: 'pipe' });
  running.add(child);
  child.stdin.end(stdin);
  const facts: Fact[] = [];
  const takers: ((fact: Fact) => void)[] = [];
  createInterface(child.stdout).on('line', (line) => {
    const fact = JSON.parse(line) as Fact;
    const taker = takers.shift();
    if (taker) taker(fact);
    else facts.push(fact);
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise<number | null>((done) => child.once('close', done)).finally(() => running.delete(child));
  return {
    next: async () => {
      const ready = facts.shift();
      if (ready) return ready;
      const coming = new Promise<Fact>((done) => takers.push(done));
      const gone = ended.then((code) => {
        throw new Error(`gospiffe ${args.join(' ')} ended with ${code}: ${stderr}`);
      });
      return Promise.race([coming, gone]);
    },
    stop: async () => {
      if (running.has(child)) child.kill();
      return { code: await ended, stderr };
    },
  };
}

/** Runs it to its end: what it printed, and its words where it failed. */
export async function runGospiffe(
  socketPath: string,
  args: readonly string[],
  stdin = '',
): Promise<{ readonly facts: readonly Fact[]; readonly code: number | null; readonly stderr: string }> {
  const child = spawn(peerPath('gospiffe')!, args, { env: { SPIFFE_ENDPOINT_SOCKET: `unix://${socketPath}` }, stdio: 'pipe' });
  child.stdin.end(stdin);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const code = await new Promise<number | null>((done) => child.once('close', done));
  const facts = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Fact);
  return { facts, code, stderr };
}
