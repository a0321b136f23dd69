import { spawn } from 'node:child_process';
import { peerPath } from '../support/peer-path';

/** Who asks, and the token that proves it. */
export interface LoadCaller {
  readonly uri: string;
  readonly token: string;
}

export interface LoadOrder {
  readonly address: string;
  readonly serverName: string;
  readonly rootPem: string;
  readonly callers: readonly LoadCaller[];
  /** Callers show a certificate that their token bought before, instead of the token. */
  readonly certificate?: boolean;
  /** Each is good for one call; the run ends with the last. */
  readonly oneTimeTokens?: readonly string[];
  /** Who floods the authority beside the callers. */
  readonly strangers?: LoadStrangers;
  /** One call at a time in each. */
  readonly connections: number;
  /** Of the authority. */
  readonly pid: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
}

/** They ask without a proof that is worth anything, for as long as the callers do. */
export interface LoadStrangers {
  readonly connections: number;
  /** At a time in each connection. */
  readonly calls: number;
  /** Every call over a connection of its own. */
  readonly anew?: boolean;
  /** They show eight certificates of P-521: all of the authority's own name, or of other names. */
  readonly chain?: 'name' | 'others';
  /** What they ask with; default a key of P-256. */
  readonly requestPem?: string;
}

/** What one run of the load measured. */
export interface LoadResult {
  readonly calls: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** What the load itself took of one processor: near the number of processors it, and not the authority, was measured. */
  readonly clientCpu: number;
  /** The same of the authority, its children included. */
  readonly serverCpu: number;
  /** Calls of strangers that were answered, those of the warm-up included. */
  readonly strangers: number;
  /** Of calls that failed, by status. */
  readonly failures: Readonly<Record<string, number>>;
}

/** Runs it to its end, in a process of its own. */
export function runLoad(order: LoadOrder): Promise<LoadResult> {
  const program = peerPath('caload');
  if (program === undefined)
    throw new Error('caload is missing; provide it with: scripts/peers caload');
  return new Promise((done, failed) => {
    const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.once('error', failed);
    child.once('close', (code) =>
      code === 0 ? done(JSON.parse(text)) : failed(new Error(`caload ended with ${code}`)),
    );
    child.stdin.end(JSON.stringify(order));
  });
}
