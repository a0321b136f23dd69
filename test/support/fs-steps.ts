import * as real from 'node:fs/promises';

type Call = (...args: unknown[]) => unknown;

/** The module object itself: an ES import may be a copy of it. */
const promises = require('node:fs/promises') as Record<string, Call>;
const HANDLE_CALLS = ['chmod', 'writeFile', 'sync', 'close', 'stat', 'read'];

/**
 * Calls `before` ahead of every call of node:fs/promises and of its file handles, with the call's name and its number from 1. What it throws,
 * the call throws. Returns the function that ends this.
 */
export async function onFsStep(before: (name: string, step: number) => void): Promise<() => void> {
  const handle = await real.open('/dev/null', 'r');
  const prototype = Object.getPrototypeOf(handle) as Record<string, Call>;
  await handle.close();
  let step = 0;
  const undo: (() => void)[] = [];
  const wrap = (target: Record<string, Call>, name: string) => {
    const original = target[name]!;
    target[name] = async function (this: unknown, ...args: unknown[]) {
      step += 1;
      before(name, step);
      return original.apply(this, args);
    };
    undo.push(() => {
      target[name] = original;
    });
  };
  for (const name of Object.keys(promises))
    if (typeof promises[name] === 'function') wrap(promises, name);
  for (const name of HANDLE_CALLS) wrap(prototype, name);
  return () => {
    for (const restore of undo) restore();
  };
}

/** As `onFsStep`, of the calls of node:fs that do not wait. Calls that `before` makes itself are no steps. */
export function onSyncFsStep(before: (name: string, step: number) => void): () => void {
  const fs = require('node:fs') as Record<string, Call>;
  let [step, inside] = [0, false];
  const names = Object.keys(fs).filter(
    (name) => name.endsWith('Sync') && typeof fs[name] === 'function',
  );
  const undo = names.map((name) => {
    const original = fs[name]!;
    fs[name] = (...args) => {
      if (!inside) {
        step += 1;
        inside = true;
        try {
          before(name, step);
        } finally {
          inside = false;
        }
      }
      return original(...args);
    };
    return () => {
      fs[name] = original;
    };
  });
  return () => {
    for (const restore of undo) restore();
  };
}
