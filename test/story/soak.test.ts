import { expect, test } from '@jest/globals';
import { DAY, HOUR, MINUTE, SECOND, type Story, tell } from '../support/keeper-story';
import { testRoots } from '../support/scripted-ca';
import { seeded } from '../support/seeded';
import { settle } from '../support/test-clock';

const FULL = process.env.KEYTURN_TEST === 'full';
const SEEDS = FULL ? 200 : 8;
const DAYS = 30;
/** What half of a day's certificate survives from any moment: 45 %, beside jitter, the last wait and a deadline. */
const BUDGET = 0.45 * DAY;

/** One way of being out of order, for a while. */
const FAULTS: readonly ((story: Story, random: () => number) => void)[] = [
  ({ ca }) => ca.failWith('ERR_CA_UNAVAILABLE'),
  ({ ca }) => ca.failWith('ERR_CA_REJECTED', { retry: 'slow' }),
  ({ ca }) => ca.failWith('ERR_CA_UNAVAILABLE', { retry: 'soon', retryAfterMs: HOUR }),
  ({ ca }, random) => ca.hang(random() < 0.5),
  ({ ca, clock }) =>
    ca.behave((request) => ca.issue(request, { notAfterAt: clock.now() - SECOND })),
  ({ ca }) => ca.behave((request) => ca.issue(request, { uris: [] })),
];

test.each(Array.from({ length: SEEDS }, (_, index) => index + 1))(
  `${DAYS} virtual days of faults shorter than the budget never let a certificate expire (seed %d)`,
  async (seed) => {
    const chance = seeded(seed);
    const story = await tell({ random: chance, rotation: { ratio: 0.5, jitterRatio: 0.05 } });
    let faultyMs = 0;
    let prompted = 0;
    for (const end = story.after(DAYS * DAY); story.clock.now() < end; ) {
      story.ca.work();
      await story.clock.advanceBy((0.1 + chance() * 2) * DAY);
      if (chance() < 0.3) {
        story.ca.tell(chance() < 0.5 ? 'signer' : 'credential');
        prompted += 1;
        await settle();
      }
      const lengthMs = chance() ** 2 * BUDGET;
      faultyMs += lengthMs;
      FAULTS[Math.floor(chance() * FAULTS.length)]!(story, chance);
      await story.clock.advanceBy(lengthMs);
    }
    expect(story.kinds.filter((kind) => kind === 'unavailable')).toEqual([]);
    for (const { at, state } of story.states)
      if ('svid' in state) expect(state.svid.notAfterAt).toBeGreaterThan(at);
    expect(story.ca.mostInFlight).toBe(1);
    const ideal = (DAYS * DAY) / (0.475 * DAY);
    expect(story.ca.attempts.length).toBeLessThan(
      1.2 * ideal + prompted + faultyMs / (36 * SECOND) + 10 * DAYS,
    );
    expect(story.keeper.describe().renewals).toBeGreaterThan(0.7 * ideal);
    for (const [index, at] of story.ca.attempts.entries())
      if (index > 0) expect(at - story.ca.attempts[index - 1]!).toBeGreaterThanOrEqual(SECOND);
  },
);

test('100 restarts at any moment, each with the kept certificate, neither skip a renewal nor ask for more', async () => {
  const chance = seeded(77);
  await testRoots();
  let story = await tell({ random: chance });
  const { clock, startedAt } = story;
  let attempts = 0;
  for (let restart = 0; restart < 100; restart += 1) {
    await clock.advanceBy(chance() * 2 * HOUR + MINUTE);
    const kept = story.svid!;
    expect(kept.notAfterAt - clock.now()).toBeGreaterThan(11 * HOUR);
    await story.keeper.close();
    attempts += story.ca.attempts.length;
    story = await tell({ random: chance, clock, warmStart: kept });
  }
  attempts += story.ca.attempts.length;
  const ideal = (clock.now() - startedAt) / (12 * HOUR);
  expect(attempts).toBeGreaterThan(0.9 * ideal);
  expect(attempts).toBeLessThan(ideal + 2);
});
