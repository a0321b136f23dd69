/**
 * Runs `work` with another umask. It is one for the whole process, so nothing may be awaited in between; what other threads make meanwhile
 * sets its mode itself.
 */
export function withUmask<T>(mask: number, work: () => T): T {
  const before = process.umask(mask);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}
