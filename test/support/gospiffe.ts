import { spawn } from 'node:child_process';
import { type Fact, type FactSource, startFactSource } from './peer-facts';
import { peerPath } from './peer-path';

/** Starts `gospiffe COMMAND ARGS...`. */
export function startGospiffe(socketPath: string, args: readonly string[], stdin = ''): FactSource {
  return startFactSource([peerPath('gospiffe')!, ...args], socketPath, stdin);
}

/** Runs it to its end: what it printed, and its words where it failed. */
export async function runGospiffe(
  socketPath: string,
  args: readonly string[],
  stdin = '',
): Promise<{
  readonly facts: readonly Fact[];
  readonly code: number | null;
  readonly stderr: string;
}> {
  const child = spawn(peerPath('gospiffe')!, args, {
    env: { SPIFFE_ENDPOINT_SOCKET: `unix://${socketPath}` },
    stdio: 'pipe',
  });
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
