import type { KubeApi } from './kube-api';
import { isTooLarge } from './kube-error';

export interface KubeListOptions {
  /** Of all objects of the kind, with what selects them in its query, if anything. */
  readonly path: string;
  /** At most so many objects a page. */
  readonly maxPage: number;
  readonly signal?: AbortSignal;
}

interface Page<T> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly T[];
}

/** Objects of the first page: eight of the largest (1.5 MiB in etcd) are still one answer. */
const FIRST_PAGE = 8;
/** Of JSON: read and parsed in some 10 ms. */
const GOOD_BYTES = 1024 * 1024;
/** More is asked for again in a smaller page; the one object of a page of one may take what any answer may. */
const MAX_BYTES = 4 * 1024 * 1024;
/** A page is at most so many times the one before. */
const GROWTH = 4;

/**
 * Calls `visit` with every object of a list, in pages whose size follows the size of the objects: others decide on that, and a list of
 * large objects must be read as one of small ones is.
 *
 * @returns  The version to watch from.
 * @throws   As `KubeApi.request`; KubeError 410 where the list took longer than the server keeps its state.
 */
export async function listObjects<T>(
  api: KubeApi,
  options: KubeListOptions,
  visit: (object: T) => void,
): Promise<string> {
  const { path, maxPage, signal } = options;
  const query = `${path}${path.includes('?') ? '&' : '?'}`;
  let limit = Math.min(FIRST_PAGE, maxPage);
  for (let next = ''; ; ) {
    let bytes = 0;
    const onBytes = (count: number) => {
      bytes = count;
    };
    let page: Page<T>;
    try {
      const bound = limit > 1 && { maxBytes: MAX_BYTES };
      page = await api.request<Page<T>>('GET', `${query}limit=${limit}${next}`, {
        ...(signal && { signal }),
        ...bound,
        onBytes,
      });
    } catch (caught) {
      if (!isTooLarge(caught) || limit === 1) throw caught;
      limit = Math.ceil(limit / GROWTH);
      continue;
    }
    for (const each of page.items) visit(each);
    if (!page.metadata.continue) return page.metadata.resourceVersion;
    next = `&continue=${encodeURIComponent(page.metadata.continue)}`;
    limit = nextLimit(limit, bytes, maxPage);
  }
}

/** So many objects of the size of those seen as make a good page. */
function nextLimit(limit: number, bytes: number, maxPage: number): number {
  return Math.max(
    1,
    Math.min(maxPage, limit * GROWTH, Math.floor((limit * GOOD_BYTES) / Math.max(bytes, 1))),
  );
}
