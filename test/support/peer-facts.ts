import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A line of JSON that a program prints for each thing that it learns. */
export type Fact = Readonly<Record<string, unknown>>;

/** A program that asks the Workload API, with its own connection to the socket. */
export interface FactSource {
  /** The next line, past or future, that was not taken yet. Fails with the program's words where it ends before. */
  next(): Promise<Fact>;
  /** Ends it, unless it has ended by itself; resolves with its exit status and its words. */
  stop(): Promise<{ readonly code: number | null; readonly stderr: string }>;
}

const running = new Set<ChildProcess>();

/** Starts a program of one of the peers against a socket; it ends itself after a minute at the latest. */
export function startFactSource(
  command: readonly string[],
  socketPath: string,
  stdin = '',
): FactSource {
  const [program, ...args] = command;
  const env = {
    PATH: process.env.PATH,
    PYTHONDONTWRITEBYTECODE: '1',
    SPIFFE_ENDPOINT_SOCKET: `unix://${socketPath}`,
  };
  const child = spawn(program!, args, { env, stdio: 'pipe' });
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
  const ended = new Promise<number | null>((done) => child.once('close', done)).finally(() =>
    running.delete(child),
  );
  return {
    next: async () => {
      const ready = facts.shift();
      if (ready) return ready;
      const coming = new Promise<Fact>((done) => takers.push(done));
      const gone = ended.then((code) => {
        throw new Error(`${command.join(' ')} ended with ${code}: ${stderr}`);
      });
      return Promise.race([coming, gone]);
    },
    stop: async () => {
      if (running.has(child)) child.kill();
      return { code: await ended, stderr };
    },
  };
}
