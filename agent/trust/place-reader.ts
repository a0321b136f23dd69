import { withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import type { FileWatch } from '../base/file-watch';
import { readSmallFile } from '../base/read-file';
import { httpGet } from './http-get';

/** A file or a URL that is read again and again. */
export interface PlaceReader {
  /** For people: without what stands behind the path of a URL, which may be a secret. */
  readonly place: string;
  /** Of a file, which can be watched as well. */
  readonly path: string | undefined;
  /**
   * Reads anew; undefined where nothing has changed since.
   *
   * @throws AgentError ERR_CA_UNAVAILABLE | ERR_TIMEOUT.
   */
  read(signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Calls back when the file changed; undefined for a URL. */
  watch(changed: () => void): Promise<FileWatch | undefined>;
}

export interface PlaceLimits {
  /** For errors, e.g. `--crl`. */
  readonly field: string;
  readonly maxBytes: number;
  /** Roots that an https server is judged by, PEM; default those that Node.js brings. */
  readonly roots?: () => Promise<Buffer | undefined>;
}

/** Nobody waits for it: a slow server, or a long list, is heard to its end. */
const FETCH_MS = 60_000;

/** Whether it is a URL of any scheme, not a path. */
export function isUrl(place: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(place);
}

/** @param place  A path, or an `http` or `https` URL. */
export function openPlace(
  place: string,
  { field, maxBytes, roots }: PlaceLimits,
  deps: Deps,
): PlaceReader {
  if (!isUrl(place)) {
    return {
      place,
      path: place,
      read: () => readSmallFile(place, { field, code: 'ERR_CA_UNAVAILABLE', maxBytes }),
      watch: async (changed) => {
        const { watchFiles } = await import('../base/file-watch');
        return watchFiles([place], changed, deps);
      },
    };
  }
  const url = new URL(place);
  const shown = `${url.origin}${url.pathname}`;
  let etag: string | undefined;
  return {
    place: shown,
    path: undefined,
    async read(signal) {
      const ca = await roots?.();
      const answer = await withDeadline(deps.clock, FETCH_MS, `GET ${shown}`, signal, (bounded) =>
        httpGet(url, { etag, maxBytes, ca }, bounded),
      );
      etag = answer?.etag ?? etag;
      return answer?.bytes;
    },
    watch: async () => undefined,
  };
}
