import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import type { KubeApi } from './kube-api';
import { fieldSelector } from './kube-path';

/** Between two watches of one thing, at least: a proxy that ends each as soon as it begins, or repeats an event, is not asked without end. */
export const WATCH_AGAIN_MS = 500;

/**
 * Calls back with each change of one object, and after each end of a watch, since what came between two of them is in neither: at least every
 * few minutes, until the signal fires. It needs to watch that object alone.
 *
 * @param path  Of all objects of the kind, e.g. `/api/v1/namespaces/keyturn/secrets`.
 * @see https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
 */
export async function watchObject(
  api: KubeApi,
  path: string,
  name: string,
  onChange: () => void,
  { clock, log, random }: Pick<Deps, 'clock' | 'log' | 'random'>,
  signal: AbortSignal,
): Promise<void> {
  for (let failures = 0; !signal.aborted; ) {
    let waitMs = WATCH_AGAIN_MS;
    try {
      await api.watch(`${path}?${fieldSelector('metadata.name', name)}`, onChange, signal);
      failures = 0;
    } catch (cause) {
      if (signal.aborted) return;
      failures += 1;
      waitMs = backoffMs(failures, DEFAULT_BACKOFF, random);
      log.warn('watch failed, polling', {
        path,
        name,
        retryInSeconds: Math.round(waitMs / 1_000),
        cause,
      });
    }
    await clock.sleepUntil(clock.now() + waitMs, signal).catch(() => undefined);
    if (!signal.aborted) onChange();
  }
}
