/** What a piece of work takes of the processor, milliseconds of this thread. */
export interface Work {
  /** Between two turns of the event loop, the most. */
  readonly longestTurnMs: number;
  readonly totalMs: number;
}

const ROUNDS = 3;

/**
 * Measures work that shares the event loop, by the processor's time of this thread: a busy machine makes none of it longer. Of three rounds
 * the best counts: what the collector does in one of them is not the work's.
 */
export async function longestTurn(work: () => Promise<unknown>): Promise<Work> {
  const rounds: Work[] = [];
  for (let round = 0; round < ROUNDS; round += 1) rounds.push(await measure(work));
  return rounds.sort((a, b) => a.longestTurnMs - b.longestTurnMs)[0]!;
}

async function measure(work: () => Promise<unknown>): Promise<Work> {
  let [longestTurnMs, totalMs] = [0, 0];
  let begun = process.threadCpuUsage();
  const look = () => {
    const { user, system } = process.threadCpuUsage(begun);
    longestTurnMs = Math.max(longestTurnMs, (user + system) / 1_000);
    totalMs += (user + system) / 1_000;
    begun = process.threadCpuUsage();
  };
  let next = setImmediate(function turn() {
    look();
    next = setImmediate(turn);
  });
  await work();
  look();
  clearImmediate(next);
  return { longestTurnMs, totalMs };
}
