import { SOURCES_FROM } from '../../../agent/base/clock-floor';

const MAX_DAYS = 90;

/** The time below which no clock is believed must not fall far behind the sources; nor may it be ahead of them. */
export function checkSourcesFrom(lastCommitAt: number, sourcesFrom = SOURCES_FROM): string[] {
  const days = (lastCommitAt - Date.parse(sourcesFrom)) / 86_400_000;
  if (days >= 0 && days <= MAX_DAYS) return [];
  const day = new Date(lastCommitAt).toISOString().slice(0, 10);
  return [
    `agent/base/clock-floor.ts: SOURCES_FROM is ${sourcesFrom}, the last commit of ${day}: set it to that day`,
  ];
}
