import { once } from 'node:events';
import promises from 'node:fs/promises';
import { openAuthority } from '../../agent/authority/authority';
import { systemClock } from '../../agent/base/clock';
import { AgentError } from '../../agent/base/errors';
import { type Logger, noLog } from '../../agent/base/log';
import { noMetrics } from '../../agent/base/metrics';
import { directEngine } from '../../agent/identity/direct-engine';

const [dir, dieAtStep] = [process.argv[2]!, Number(process.argv[3])];
let steps = 0;

/** Counts a file operation, and dies before the one that it was told to die at. */
function step(): void {
  steps += 1;
  if (steps === dieAtStep) process.kill(process.pid, 'SIGKILL');
}

function countSteps(target: object, names: readonly string[]): void {
  const methods = target as Record<string, (...args: unknown[]) => unknown>;
  for (const name of names) {
    const original = methods[name]!;
    methods[name] = function (this: unknown, ...args: unknown[]) {
      step();
      return original.apply(this, args);
    };
  }
}

async function main(): Promise<void> {
  countSteps(promises, ['mkdir', 'link', 'rm', 'stat', 'lstat', 'readdir', 'access']);
  const open = promises.open;
  promises.open = async (...args) => {
    step();
    const file = await open(...args);
    countSteps(file, ['chmod', 'writeFile', 'sync', 'read', 'close']);
    return file;
  };
  process.stdout.write('ready\n');
  await once(process.stdin, 'data');
  let made = false;
  const log: Logger = {
    ...noLog,
    info: (event) => (made ||= event === 'CA created'),
    scope: () => log,
    about: () => log,
  };
  const deps = { clock: systemClock, random: Math.random, log, metrics: noMetrics };
  try {
    const authority = await openAuthority(
      { dir, trustDomain: 'cluster.local', rootAlgorithm: 'ecdsa-p256', engine: directEngine },
      deps,
    );
    process.stdout.write(`${made ? 'made' : 'opened'} ${authority.trust.value.version}\n`);
    await authority.close();
  } catch (caught) {
    const error = AgentError.from(caught);
    process.stdout.write(`failed ${error.code} ${error.message}\n`);
  }
}

void main();
