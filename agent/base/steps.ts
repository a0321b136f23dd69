import { LoopShare } from './loop-share';

/** Work whose size others choose, cut into steps: at each `yield` somebody else may have the thread. A step takes a millisecond or so. */
export type Steps<T> = Generator<void, T>;

/** Of all such work of the process, milliseconds a turn: beyond it a socket, a probe or a signal waits noticeably. */
const TURN = new LoopShare(5);

/** For work that is known to be small, or that nobody waits beside. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** Does the work in the share of each turn of the loop that all such work has together. */
export function inTurns<T>(steps: Steps<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const goOn = () => {
      try {
        do {
          const { done, value } = steps.next();
          if (done) return resolve(value);
        } while (TURN.hasTime());
        TURN.wait(goOn);
      } catch (caught) {
        reject(caught);
      }
    };
    if (TURN.hasTime()) goOn();
    else TURN.wait(goOn);
  });
}

/** Octets that are copied in one step. */
const COPIED = 1024 * 1024;

/** Puts parts together. A copy of tens of megabytes in one step would take as many milliseconds. */
export function* joinSteps(parts: readonly Uint8Array[]): Steps<Buffer> {
  const out = Buffer.allocUnsafe(parts.reduce((sum, { length }) => sum + length, 0));
  let [at, copied] = [0, 0];
  for (const part of parts) {
    for (let from = 0; from < part.length; from += COPIED) {
      if (copied >= COPIED) {
        yield;
        copied = 0;
      }
      const piece = part.subarray(from, from + COPIED);
      out.set(piece, at);
      at += piece.length;
      copied += piece.length;
    }
  }
  return out;
}

/** Does `work` for each of many, `size` of them in one step. */
export function* eachOf<T>(many: readonly T[], size: number, work: (each: T) => void): Steps<void> {
  for (const [index, each] of many.entries()) {
    if (index > 0 && index % size === 0) yield;
    work(each);
  }
}
