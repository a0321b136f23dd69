import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import type { KubeApi } from './kube-api';
import { fieldSelector } from './kube-path';

/** A server that ends watches as soon as they begin is not asked without end. */
const WATCH_AGAIN_MS = 500;

/**
 * Calls back with each change of one object, and at least every few minutes, until the signal fires. It needs to watch that object alone.
 *
 * @param path  Of all objects of the kind, e.g. `/api/v1/namespaces/keyturn/secrets`.
 */
export async function followObject(
  api: KubeApi,
  path: string,
  name: string,
  onChange: () => void,
  { clock, log, random }: Deps,
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
      log.warn('changes are not seen at once', {
        path,
        name,
        retryInSeconds: Math.round(waitMs / 1_000),
        cause,
      });
    }
    await clock.sleepUntil(clock.now() + waitMs, signal).catch(() => undefined);
    onChange();
  }
}
