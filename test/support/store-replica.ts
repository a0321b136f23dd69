import { type ChildProcess, spawn } from 'node:child_process';
import { HOUR_MS, TEST_NOW } from './certs';

/** Whom a replica's certificates are for. */
export const LOAD_ID = 'spiffe://cluster.local/load';

/**
 * The source of a process that works on a store as a server under load does: it redeems tokens, enters certificates and numbers lists until
 * its standard input ends, and prints each thing that it was promised. It waits for a first line.
 *
 * @param open  Statements that leave a `store`, and perhaps something in `after` to be awaited at the end; they may use `argument` and `deps`.
 */
export function replicaProgram(imports: string, open: string): string {
  return `
  import { randomBytes } from 'node:crypto';
  import { once } from 'node:events';
  import { writeSync } from 'node:fs';
  import { systemClock } from './agent/base/clock';
  import { noLog } from './agent/base/log';
  import { noMetrics } from './agent/base/metrics';
  import { Secret } from './agent/base/secret';
  ${imports}
  const say = (...words: unknown[]) => writeSync(1, words.join(' ') + '\\n');
  async function main() {
    const [argument, tokens] = [process.argv[2]!, process.argv[3]!.split(',')];
    const deps = { clock: systemClock, random: Math.random, log: noLog, metrics: noMetrics };
    let after = async () => {};
    ${open}
    say('ready');
    await once(process.stdin, 'data');
    const me = randomBytes(16).toString('hex');
    let stopped = false;
    void once(process.stdin, 'end').then(() => (stopped = true));
    const rest = { id: '${LOAD_ID}', keySha256: '', issuedAt: 0, notAfterAt: ${TEST_NOW + HOUR_MS}, issuerKeyId: '', rootKeySha256: '' };
    const enter = async () => {
      while (!stopped) {
        const serial = randomBytes(16).toString('hex');
        await store.recordIssued({ serial, ...rest });
        say('entered', serial);
      }
    };
    const redeem = async () => {
      for (const token of tokens) say((await store.redeemJoinToken(new Secret(token), { keySha256: me, by: me + token }, ${TEST_NOW})).kind, token);
    };
    const number = async () => {
      while (!stopped) say('number', await store.nextCrlNumber());
    };
    await Promise.all([...Array.from({ length: ${REPLICA_AT_ONCE} }, enter), redeem(), number()]);
    await store.close();
    await after();
  }
  void main();
`;
}

/** Certificates that one replica enters at the same time. */
export const REPLICA_AT_ONCE = 20;

export interface Replica {
  /** Lets it begin. */
  go(): void;
  /** Resolves when it has printed so many lines with this word. */
  seen(word: string, count: number): Promise<void>;
  /** What followed the word in each line. */
  said(word: string): string[];
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Lets it finish what it has begun; resolves to its exit code. */
  stop(): Promise<number | null>;
}

/** Starts one on a bundle of `replicaProgram`. */
export function startReplica(
  program: string,
  argument: string,
  tokens: readonly string[],
): Replica {
  const child: ChildProcess = spawn(process.execPath, [program, argument, tokens.join()], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  const listeners = new Set<() => void>();
  let rest = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
    for (const listener of listeners) listener();
  });
  const ended = new Promise<number | null>((done) => child.on('close', (code) => done(code)));
  return {
    go: () => child.stdin!.write('go\n'),
    seen: (word, count) =>
      new Promise((done) => {
        const look = () => {
          if (lines.filter((line) => line.startsWith(word)).length >= count) done();
        };
        listeners.add(look);
        look();
      }),
    said: (word) =>
      lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.split(' ')[1]!),
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
    stop: () => {
      child.stdin!.end();
      return ended;
    },
  };
}
