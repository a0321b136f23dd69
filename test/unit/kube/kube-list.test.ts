import { expect, test } from '@jest/globals';
import type { KubeApi, KubeRequestOptions } from '../../../agent/kube/kube-api';
import { KubeTooLarge } from '../../../agent/kube/kube-error';
import { listObjects } from '../../../agent/kube/kube-list';

/** Lists objects of these sizes, as an API server would. Records the limits that it was asked for. */
function apiWith(sizes: readonly number[]) {
  const limits: number[] = [];
  const request = async (
    _: string,
    path: string,
    { maxBytes = 16 * 1024 * 1024, onBytes }: KubeRequestOptions = {},
  ) => {
    const query = new URLSearchParams(path.slice(path.indexOf('?')));
    const [limit, from] = [Number(query.get('limit')), Number(query.get('continue') ?? 0)];
    limits.push(limit);
    const items = sizes.slice(from, from + limit);
    const bytes = items.reduce((sum, each) => sum + each, 0);
    if (bytes > maxBytes) throw new KubeTooLarge('GET', maxBytes);
    onBytes?.(bytes);
    const next = from + limit < sizes.length ? { continue: String(from + limit) } : {};
    return {
      metadata: { resourceVersion: 'v', ...next },
      items: items.map((_, index) => from + index),
    };
  };
  return { api: { request } as unknown as KubeApi, limits };
}

async function listed(sizes: readonly number[]) {
  const { api, limits } = apiWith(sizes);
  const seen: number[] = [];
  expect(
    await listObjects<number>(api, { path: '/apis/x?a=b', maxPage: 500 }, (each) =>
      seen.push(each),
    ),
  ).toBe('v');
  expect(seen).toEqual(sizes.map((_, index) => index));
  return limits;
}

test('small objects come in pages that grow to the largest', async () => {
  expect(await listed(Array.from({ length: 2_000 }, () => 1_000))).toEqual([
    8, 32, 128, 500, 500, 500, 500,
  ]);
});

test('field E3b: pages of large objects shrink to what one answer holds, and grow again behind them', async () => {
  const [large, small] = [9 * 1024 * 1024, 1_000];
  const sizes = [
    ...Array.from({ length: 20 }, () => large),
    ...Array.from({ length: 40 }, () => small),
  ];
  const limits = await listed(sizes);
  expect(limits.slice(0, 4)).toEqual([8, 2, 1, 1]);
  expect(limits.at(-1)).toBeGreaterThan(4);
  expect(limits.length).toBeLessThan(35);
});

test('one object that no answer may hold is an error, not a loop', async () => {
  await expect(listed([17 * 1024 * 1024])).rejects.toThrow('larger than 16 MiB');
});
