import { fstatSync } from 'node:fs';
import { openCLibrary } from './c-library';

/** Of Linux, on every processor that we run on. @see fcntl(2) */
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

interface Fcntl {
  fcntl(fd: number, command: number, argument: number): number;
}

/**
 * Makes writes to a pipe or socket fail where nobody reads it, instead of waiting for ever: a stuck reader of the log must not stop the
 * agent. Node does so when it first looks at its standard error; Bun never does. Terminals and files stay as they are.
 */
export function dropWhatNobodyReads(fd: number): void {
  if (!isPipeOrSocket(fd)) return;
  const c = openCLibrary<Fcntl>({ fcntl: { args: ['i32', 'i32', 'i32'], returns: 'i32' } });
  c?.fcntl(fd, F_SETFL, c.fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
}

function isPipeOrSocket(fd: number): boolean {
  try {
    const stats = fstatSync(fd);
    return stats.isFIFO() || stats.isSocket();
  } catch {
    // It is closed.
    return false;
  }
}
