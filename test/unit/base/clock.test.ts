import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import {
  type Clock,
  type ClockJump,
  sleepFor,
  systemClock,
  withDeadline,
} from '../../../agent/base/clock';
import { TestClock } from '../../support/test-clock';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const YEAR_MS = 365 * DAY_MS;

describe('the system clock', () => {
  let stops: (() => void)[];

  beforeEach(async () => {
    jest.useFakeTimers();
    stops = [];
    // The faked time is a jump of its own: let the clock see it before a test listens.
    sleep(0);
    await jest.advanceTimersByTimeAsync(1);
  });
  afterEach(() => {
    for (const stop of stops) stop();
    jest.useRealTimers();
  });

  /** Starts a sleep; `woke` turns true when it ends. */
  function sleep(ms: number) {
    const sleeper = { woke: false };
    void systemClock.sleepUntil(systemClock.now() + ms).then(() => {
      sleeper.woke = true;
    });
    return sleeper;
  }

  function jumps(): ClockJump[] {
    const seen: ClockJump[] = [];
    stops.push(systemClock.onJump((jump) => seen.push(jump)));
    return seen;
  }

  test('F5 a sleep longer than 2^31 ms is cut into slices that setTimeout can hold', async () => {
    const timer = jest.spyOn(globalThis, 'setTimeout');
    const sleeper = sleep(60 * DAY_MS);
    await jest.advanceTimersByTimeAsync(2 * HOUR_MS);
    expect(sleeper.woke).toBe(false);
    expect(timer.mock.calls.length).toBeGreaterThan(100);
    expect(Math.max(...timer.mock.calls.map(([, ms]) => ms ?? 0))).toBeLessThanOrEqual(60_000);
    jest.setSystemTime(Date.now() + 60 * DAY_MS);
    await jest.advanceTimersByTimeAsync(60_000);
    expect(sleeper.woke).toBe(true);
  });

  test.each([1, 12, 23.9, 48])(
    'F1 a wall clock that jumps %d h forward wakes an overdue sleeper within a minute',
    async (hours) => {
      const seen = jumps();
      const sleeper = sleep(hours * HOUR_MS);
      await jest.advanceTimersByTimeAsync(10_000);
      jest.setSystemTime(Date.now() + hours * HOUR_MS);
      await jest.advanceTimersByTimeAsync(60_000);
      expect(sleeper.woke).toBe(true);
      expect(seen.at(-1)).toEqual({ byMs: hours * HOUR_MS });
    },
  );

  test.each([
    ['an hour', HOUR_MS],
    ['a year', YEAR_MS],
  ])(
    'F2 a wall clock that is set back by %s stretches no sleep and is told within a minute',
    async (_, ms) => {
      const sleeper = sleep(3 * HOUR_MS);
      const seen = jumps();
      jest.setSystemTime(Date.now() - ms);
      await jest.advanceTimersByTimeAsync(60_000);
      expect(seen).toEqual([{ byMs: -ms }]);
      expect(sleeper.woke).toBe(false);
      await jest.advanceTimersByTimeAsync(3 * HOUR_MS - 60_000);
      expect(sleeper.woke).toBe(true);
    },
  );

  test('F8 steps of a second are no jumps', async () => {
    sleep(2 * HOUR_MS);
    const seen = jumps();
    for (let step = 0; step < 360; step += 1) {
      jest.setSystemTime(Date.now() + (step % 2 === 0 ? 1_000 : -1_000));
      await jest.advanceTimersByTimeAsync(10_000);
    }
    expect(seen).toEqual([]);
  });

  test('a sleep ends at once when its signal fires, and leaves no timer behind', async () => {
    const stop = new AbortController();
    const ended = expect(
      systemClock.sleepUntil(systemClock.now() + HOUR_MS, stop.signal),
    ).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const timers = jest.getTimerCount();
    stop.abort();
    await ended;
    expect(jest.getTimerCount()).toBe(timers - 1);
  });
});

describe('a deadline', () => {
  test('ends work that ignores its signal', async () => {
    const clock = new TestClock();
    const outcome = expect(
      withDeadline(clock, 10_000, 'sign', undefined, () => new Promise(() => undefined)),
    ).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      retry: 'soon',
    });
    await clock.advanceBy(10_000);
    await outcome;
  });

  test('that was not needed leaves nothing with a signal that lives on', async () => {
    const [clock, stop] = [new TestClock(), new AbortController()];
    const added = jest.spyOn(stop.signal, 'addEventListener');
    const removed = jest.spyOn(stop.signal, 'removeEventListener');
    const any = jest.spyOn(AbortSignal, 'any');
    expect(await withDeadline(clock, 10_000, 'sign', stop.signal, async () => 'answer')).toBe(
      'answer',
    );
    expect(removed.mock.calls.length).toBe(added.mock.calls.length);
    expect(any).not.toHaveBeenCalled();
    expect(clock.nextWakeAt()).toBeUndefined();
    any.mockRestore();
  });

  test('ends at once when the outer signal fires, before or during the work', async () => {
    const [clock, stop] = [new TestClock(), new AbortController()];
    const outcome = () =>
      expect(
        withDeadline(clock, 10_000, 'sign', stop.signal, () => new Promise(() => undefined)),
      ).rejects.toMatchObject({
        code: 'ERR_ABORTED',
      });
    const during = outcome();
    stop.abort();
    await during;
    await outcome();
    expect(clock.nextWakeAt()).toBeUndefined();
  });

  test('comes in time although the wall clock is set back meanwhile', async () => {
    const clock = new TestClock();
    const outcome = expect(
      withDeadline(clock, 10_000, 'sign', undefined, () => new Promise(() => undefined)),
    ).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
    });
    await clock.jumpTo(clock.now() - YEAR_MS);
    await clock.advanceBy(10_000);
    await outcome;
  });
});

test('a wait of the monotonic clock is not ended by a wall clock that is set forward', async () => {
  let sleeps = 0;
  const jumping: Clock = {
    now: () => Date.now(),
    onJump: () => () => undefined,
    sleepUntil: async (at, signal) => {
      sleeps += 1;
      // As the system's clock does where it finds the instant past.
      if (sleeps > 1) await systemClock.sleepUntil(at, signal);
    },
  };
  const before = performance.now();
  await sleepFor(jumping, 20);
  expect(performance.now() - before).toBeGreaterThanOrEqual(20);
  expect(sleeps).toBeGreaterThan(1);
});
