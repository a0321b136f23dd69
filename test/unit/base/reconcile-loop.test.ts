import { describe, expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import {
  RECONCILE_INTERVAL_MS,
  type ReconcileTarget,
  reconcileLoop,
} from '../../../agent/base/reconcile-loop';
import { settle, TestClock } from '../../support/test-clock';

const START = Date.parse('2026-01-01T00:00:00Z');

/** Something looked at by a clock that moves when told; `answers` are what the looks come to, the last one again and again. */
function looking(answers: readonly (number | Error)[], more: Partial<ReconcileTarget> = {}) {
  const clock = new TestClock(START);
  const stop = new AbortController();
  const looks: number[] = [];
  const refused: unknown[] = [];
  let wake = () => {};
  let closed = false;
  const looked: ReconcileTarget = {
    watch: async (given) => {
      wake = given;
      return {
        close: async () => {
          closed = true;
        },
      };
    },
    look: async () => {
      looks.push((clock.now() - START) / 1_000);
      const answer = answers[Math.min(looks.length, answers.length) - 1]!;
      if (answer instanceof Error) throw answer;
      return clock.now() + answer * 1_000;
    },
    refused: (caught) => refused.push(caught),
    ...more,
  };
  const ended = reconcileLoop(looked, { clock, random: () => 0.5 }, stop.signal);
  return { clock, looks, refused, stop, ended, wake: () => wake(), isClosed: () => closed };
}

const seconds = (count: number) => START + count * 1_000;

describe('reconcileLoop', () => {
  test('looks at once, and again when the look itself says so', async () => {
    const { clock, looks, stop, ended } = looking([60]);
    await clock.advanceTo(seconds(121));
    expect(looks).toEqual([0, 60, 120]);
    stop.abort();
    await ended;
  });

  test('a wake ends the wait', async () => {
    const { clock, looks, wake, stop, ended } = looking([Number.POSITIVE_INFINITY]);
    await clock.advanceTo(seconds(10));
    wake();
    await clock.advanceTo(seconds(20));
    expect(looks).toEqual([0, 10]);
    stop.abort();
    await ended;
  });

  test('a change during a look leads to another look', async () => {
    let changes = 1;
    const rig = looking([], {
      look: async () => {
        rig.looks.push(0);
        if (changes-- > 0) rig.wake();
        return Number.POSITIVE_INFINITY;
      },
    });
    await rig.clock.advanceTo(seconds(5));
    expect(rig.looks).toHaveLength(2);
    rig.stop.abort();
    await rig.ended;
  });

  test.each<[string, (rig: { wake(): void }) => number]>([
    ['a look that is always due again', () => 0],
    [
      'a change in each look',
      (rig) => {
        rig.wake();
        return Number.POSITIVE_INFINITY;
      },
    ],
  ])('%s is one look each 50 ms', async (_, look) => {
    const rig = looking([], {
      look: async () => {
        rig.looks.push(0);
        return look(rig);
      },
    });
    await settle(200);
    expect(rig.looks).toHaveLength(1);
    await rig.clock.advanceBy(10 * RECONCILE_INTERVAL_MS);
    expect(rig.looks).toHaveLength(11);
    rig.stop.abort();
    await rig.ended;
  });

  test('what fails is told and tried again with growing waits, until it succeeds', async () => {
    const broken = new Error('broken');
    const { clock, looks, refused, stop, ended } = looking([
      broken,
      broken,
      broken,
      100,
      broken,
      1_000,
    ]);
    await clock.advanceTo(seconds(200));
    expect(looks).toEqual([0, 1, 3, 7, 107, 108]);
    expect(refused).toEqual([broken, broken, broken, broken]);
    stop.abort();
    await ended;
  });

  test('a failure of another kind begins with a second again', async () => {
    const missing = new AgentError('ERR_PARSE', 'look: nothing there');
    const away = new AgentError('ERR_CA_UNAVAILABLE', 'look: nobody there');
    const { clock, looks, stop, ended } = looking([
      missing,
      missing,
      missing,
      missing,
      away,
      away,
      away,
    ]);
    await clock.advanceTo(seconds(18));
    expect(looks).toEqual([0, 1, 3, 7, 15, 16, 18]);
    stop.abort();
    await ended;
  });

  test('nothing waits longer than it may', async () => {
    const rig = looking([Number.POSITIVE_INFINITY], {
      notLaterThan: () => rig.clock.now() + 5_000,
    });
    await rig.clock.advanceTo(seconds(11));
    expect(rig.looks).toEqual([0, 5, 10]);
    rig.stop.abort();
    await rig.ended;
  });

  test('ends its watch when it is stopped, and tells nothing of a look that was cut off', async () => {
    const { clock, refused, stop, ended, isClosed } = looking([], {
      look: (signal) =>
        new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(new Error('cut off'))),
        ),
    });
    await clock.advanceTo(seconds(1));
    stop.abort();
    await ended;
    expect({ refused, closed: isClosed() }).toEqual({ refused: [], closed: true });
  });

  test('stopped while the watch is set up, it never looks', async () => {
    const { looks, stop, ended, isClosed } = looking([60]);
    stop.abort();
    await ended;
    expect({ looks, closed: isClosed() }).toEqual({ looks: [], closed: true });
  });

  test('rejects where the watch cannot be set up', async () => {
    const { ended } = looking([60], { watch: () => Promise.reject(new Error('no watch')) });
    await expect(ended).rejects.toThrow('no watch');
  });
});
