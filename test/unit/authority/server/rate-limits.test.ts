import { expect, test } from '@jest/globals';
import { RateLimiter } from '../../../../agent/authority/server/rate-limits';

function limiter(perIdentity: number, total: number) {
  const clock = { at: 1_000_000, now: () => clock.at };
  const limits = new RateLimiter({ perIdentity, total }, clock);
  return {
    clock,
    take: (id = 'a') => limits.take(id),
    burst: (id: string, calls: number) => taken(limits, id, calls),
  };
}

/** How many of so many calls at once are taken in. */
function taken(limits: RateLimiter, id: string, calls: number): number {
  return Array.from({ length: calls }, () => limits.take(id)).filter((wait) => wait === undefined)
    .length;
}

test('0 and 0 limit nothing', () => expect(limiter(0, 0).burst('a', 10_000)).toBe(10_000));

test('an identity has a burst of one second, and then its rate', () => {
  const { clock, burst } = limiter(10, 0);
  expect(burst('a', 50)).toBe(10);
  clock.at += 500;
  expect(burst('a', 50)).toBe(5);
  clock.at += 60_000;
  expect(burst('a', 50)).toBe(10);
  expect(burst('b', 50)).toBe(10);
});

test('whoever waits as long as told is served', () => {
  const { clock, take } = limiter(0.5, 0);
  expect(take()).toBeUndefined();
  const waitMs = take()!;
  expect(waitMs).toBe(2_000);
  clock.at += waitMs;
  expect(take()).toBeUndefined();
});

test('a flood of one identity leaves the others their turn', () => {
  const { clock, burst, take } = limiter(0, 100);
  for (let second = 0; second < 10; second += 1) {
    expect(burst('flood', 1_000)).toBeLessThanOrEqual(100);
    for (let each = 0; each < 10; each += 1) expect(take(`calm ${each}`)).toBeUndefined();
    clock.at += 1_000;
  }
});

test('the total holds for many identities together', () => {
  const { take } = limiter(10, 100);
  const served = Array.from({ length: 1_000 }, (_, each) => take(`id ${each}`)).filter(
    (wait) => wait === undefined,
  );
  expect(served).toHaveLength(100);
});

test('a clock that is set back neither gives nor takes', () => {
  const { clock, burst } = limiter(10, 0);
  expect(burst('a', 10)).toBe(10);
  clock.at -= 3_600_000;
  expect(burst('a', 10)).toBe(0);
  clock.at += 1_000;
  expect(burst('a', 10)).toBe(10);
});

test('65,536 identities are remembered: the one that was served longest ago is forgotten', () => {
  const { take } = limiter(1, 0);
  for (const id of ['first', 'second']) expect(take(id)).toBeUndefined();
  for (let each = 2; each < 65_536; each += 1) take(`id ${each}`);
  expect(take('first')).toBe(1_000);
  take('one more');
  expect(take('second')).toBe(1_000);
  expect(take('first')).toBeUndefined();
});
