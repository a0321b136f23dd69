import type { Clock } from '../base/clock';
import { type Watched, WatchedSource } from '../base/watched';
import type { FederatedBundles, SpiffeBundle } from '../identity/spiffe-bundle';
import { nextChangeAt, rootsValidAt } from '../identity/valid-now';

/** Bundles of other trust domains as they may be handed out at each moment. */
export interface FederatedNow {
  /** With those of their roots that are valid now; a trust domain of which none is has no roots. */
  readonly bundles: Watched<FederatedBundles>;
  close(): Promise<void>;
}

/** Takes the roots of others up and drops them at their dates, as the serving gate does with our own. */
export function followFederatedNow(offered: Watched<FederatedBundles>, clock: Clock): FederatedNow {
  const served = new WatchedSource<FederatedBundles>(new Map());
  const stop = new AbortController();
  let wait = new AbortController();
  let waiting: Promise<void> = Promise.resolve();

  const serve = (): void => {
    wait.abort();
    if (stop.signal.aborted) return;
    const now = clock.now();
    const next = new Map(
      [...offered.value].map(([name, bundle]) => [
        name,
        bundle && validAt(bundle, served.value.get(name), now),
      ]),
    );
    const isSame =
      next.size === served.value.size &&
      [...next].every(([name, bundle]) => served.value.get(name) === bundle);
    if (!isSame) served.set(next);
    const roots = [...offered.value.values()].map((bundle) => bundle?.roots);
    const at = nextChangeAt([], roots, [], now);
    if (!Number.isFinite(at)) return;
    wait = new AbortController();
    const previous = waiting;
    waiting = Promise.all([
      previous,
      clock.sleepUntil(at, wait.signal).then(serve, () => undefined),
    ]).then(() => undefined);
  };
  const endings = [offered.subscribe(serve), clock.onJump(serve)];
  return {
    bundles: served,
    close: async () => {
      stop.abort();
      wait.abort();
      for (const end of endings) end();
      await waiting;
    },
  };
}

/** The object that is served already where it says the same, so that nobody is sent the same twice. */
function validAt(
  bundle: SpiffeBundle,
  served: SpiffeBundle | undefined,
  now: number,
): SpiffeBundle {
  const roots = bundle.roots && rootsValidAt(bundle.roots, undefined, now).bundle;
  const isServed =
    served && served.roots?.version === roots?.version && served.jwtKeys === bundle.jwtKeys;
  return isServed ? served : { ...bundle, roots };
}
