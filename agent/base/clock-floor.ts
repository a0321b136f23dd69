import { AgentError } from './errors';
import { iso } from './iso';

declare const __KEYTURN_VERSION__: string | undefined;

/** When these sources were written, give or take a quarter of a year; `scripts/check` holds it against the last commit. */
export const SOURCES_FROM = '2026-11-30';

/** No built program is older, epoch milliseconds; zero where the sources run unbuilt, as in tests. */
const BUILT_AFTER = typeof __KEYTURN_VERSION__ === 'string' ? Date.parse(SOURCES_FROM) : 0;

/**
 * Refuses to make what lives for long, such as a CA, while the clock shows a time before this program was built: a machine without a battery
 * for its clock starts in the past until NTP has set it, and what is made then is over, or not yet valid, once it has.
 *
 * @param what  As in "WHAT: the clock is wrong".
 * @param now   Epoch milliseconds.
 * @throws      AgentError ERR_TOO_EARLY, retry soon.
 */
export function assertClockIsSet(what: string, now: number, builtAfter = BUILT_AFTER): void {
  if (now >= builtAfter) return;
  const [shown, floor] = [iso(now), iso(builtAfter)];
  throw new AgentError(
    'ERR_TOO_EARLY',
    `${what}: the clock is wrong: it shows ${shown}, before this keyturn was built (${floor})`,
    {
      retry: 'soon',
      hint: 'set the clock, e.g. start NTP and wait until timedatectl says "System clock synchronized: yes"; then try again',
    },
  );
}
