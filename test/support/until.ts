import { systemCode } from '../../agent/base/errors';

/** What a file says that is not there yet, and a server that does not listen yet. */
const NOT_YET: readonly (string | undefined)[] = ['ENOENT', 'ECONNREFUSED'];

/**
 * Asks again and again until the answer is neither undefined, false nor empty. What is not there yet is no answer.
 *
 * @param ms  Far more than any machine takes, busy as it may be: only a failure waits that long.
 * @throws Error naming `what` when `ms` milliseconds have passed, or whatever else `look` throws.
 */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false | ''>,
  ms = 120_000,
  everyMs = 50,
): Promise<T> {
  const end = Date.now() + ms;
  for (let missing = ''; ; ) {
    try {
      const found = await look();
      if (found) return found;
      missing = '';
    } catch (caught) {
      if (!NOT_YET.includes(systemCode(caught))) throw caught;
      missing = `: ${String(caught)}`;
    }
    if (Date.now() > end) throw new Error(`${what} did not come within ${ms / 1000} s${missing}`);
    await new Promise((done) => setTimeout(done, everyMs));
  }
}
