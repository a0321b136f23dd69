const SECOND_MS = 1_000;
const works = new Set<{ readonly work: () => void }>();
let timer: NodeJS.Timeout | undefined;

/**
 * Calls `work` once a second, by one timer for all, which keeps no process alive. By the machine's time: it is for what other programs do
 * to files. Returns the function that stops it.
 */
export function everySecond(work: () => void): () => void {
  const entry = { work };
  works.add(entry);
  timer ??= setInterval(() => {
    for (const each of works) each.work();
  }, SECOND_MS).unref();
  return () => {
    works.delete(entry);
    if (works.size > 0 || timer === undefined) return;
    clearInterval(timer);
    timer = undefined;
  };
}
