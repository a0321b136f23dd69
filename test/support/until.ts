/**
 * Asks again and again until the answer is neither undefined, false nor empty.
 *
 * @throws Error naming `what` when `ms` milliseconds have passed, or whatever `look` throws.
 */
export async function until<T>(what: string, look: () => Promise<T | undefined | false | ''>, ms = 20_000, everyMs = 50): Promise<T> {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not come within ${ms / 1000} s`);
    await new Promise((done) => setTimeout(done, everyMs));
  }
}
