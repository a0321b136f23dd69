import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../support/until';

/** How late a timer of this many milliseconds comes is how long the loop was held. */
const EVERY_MS = 5;
const FILE = 'loop-delay';

/** For `preload` of a daemon: writes on SIGUSR2 the longest delay of its event loop since the last time, into its directory. */
export const TELL_LOOP_DELAY = `
const { renameSync, writeFileSync } = require('node:fs');
const place = process.cwd() + '/${FILE}';
let [last, longest] = [performance.now(), 0];
setInterval(() => {
  const now = performance.now();
  longest = Math.max(longest, now - last - ${EVERY_MS});
  last = now;
}, ${EVERY_MS}).unref();
process.on('SIGUSR2', () => {
  writeFileSync(place + '.new', String(longest));
  renameSync(place + '.new', place);
  longest = 0;
});
`;

/** The longest delay of a daemon's event loop since the last call, milliseconds of wall clock. */
export async function loopDelayMs(dir: string, pid: number): Promise<number> {
  const place = join(dir, FILE);
  rmSync(place, { force: true });
  process.kill(pid, 'SIGUSR2');
  await until('the delay of the loop', async () => existsSync(place));
  return Number(readFileSync(place, 'utf8'));
}
