import { unlinkSync } from 'node:fs';
import type { Server } from 'node:net';
import type { Clock } from './clock';
import { AgentError, systemCode } from './errors';
import type { OpenDirectory } from './open-directory';
import { bindGuard } from './unix-bind';
import { type Occupant, probe } from './unix-probe';

/** How long to wait for another process that holds the guard; it needs a few milliseconds. */
const WAIT_MS = 2_000;
/** A guard is bound and answers within microseconds; one that has not answered for so long was left by a process that was killed. */
const DEAD_AFTER_MS = 500;
const AGAIN_MS = 2;
const MAX_GUARDS = 3;

/**
 * Does some work while no other process does the same for that name. The guard is a socket, `NAME.lock`: its holder is known to be alive
 * because it answers, so a killed one stops none of the others.
 *
 * @throws AgentError ERR_SOCKET_IN_USE where another process holds it for two seconds; ERR_SOCKET where `NAME.lock` is something else.
 */
export async function guarded<T>(
  dir: OpenDirectory,
  name: string,
  clock: Clock,
  work: () => Promise<T>,
): Promise<T> {
  const guard = await acquire(dir, `${name}.lock`, clock, 1);
  try {
    return await work();
  } finally {
    // The runtime takes its name away while it still answers.
    guard.close();
  }
}

async function acquire(
  dir: OpenDirectory,
  name: string,
  clock: Clock,
  depth: number,
): Promise<Server> {
  if (depth > MAX_GUARDS)
    throw refuse(name, 'it is left over from processes that were killed', `remove ${name}`);
  const giveUpAt = performance.now() + WAIT_MS;
  for (;;) {
    const guard = await bindGuard(dir.at(name)).catch((caught) => {
      if (systemCode(caught) === 'EADDRINUSE') return undefined;
      throw caught;
    });
    if (guard) return guard;
    const found = await probe(dir.at(name), clock);
    if (found.kind === 'other')
      throw refuse(
        name,
        `it is ${found.what}, not a socket`,
        'move it away or choose another path',
      );
    if (found.kind === 'closed')
      throw refuse(
        name,
        'it belongs to another user',
        'remove it, or run as the user who owns it',
        found.cause,
      );
    if (found.kind === 'gone') continue;
    if (isLeftOver(found, clock)) await removeDead(dir, name, clock, depth);
    else if (performance.now() > giveUpAt) throw heldTooLong(name);
    else await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** Asked again under a guard of its own: from there on no other process removes it, and nothing dead comes to life. */
async function removeDead(
  dir: OpenDirectory,
  name: string,
  clock: Clock,
  depth: number,
): Promise<void> {
  const guard = await acquire(dir, `${name}.lock`, clock, depth + 1);
  try {
    if (isLeftOver(await probe(dir.at(name), clock), clock)) unlinkSync(dir.at(name));
  } finally {
    guard.close();
  }
}

function isLeftOver(found: Occupant, clock: Clock): boolean {
  return found.kind === 'dead' && Math.abs(clock.now() - found.sinceAt) > DEAD_AFTER_MS;
}

function heldTooLong(name: string): AgentError {
  return new AgentError('ERR_SOCKET_IN_USE', `${name}: another process is making the socket`, {
    hint: 'stop the other process',
  });
}

function refuse(name: string, what: string, hint: string, cause?: unknown): AgentError {
  return new AgentError('ERR_SOCKET', `${name}: ${what}`, { hint, cause });
}
