import type * as PromClient from 'prom-client';

/** What we use of prom-client. */
export type Prom = Pick<typeof PromClient, 'Registry' | 'Counter' | 'Gauge' | 'Histogram'>;

/**
 * Loads the four classes by their own files: the package's front door also brings its cluster and push-gateway halves, and with them 6 MB
 * of memory instead of 0.4 and 40 ms instead of 3 (Node 22).
 */
export async function loadPromClient(): Promise<Prom> {
  const [registry, counter, gauge, histogram] = await Promise.all([
    import('prom-client/lib/registry'),
    import('prom-client/lib/counter'),
    import('prom-client/lib/gauge'),
    import('prom-client/lib/histogram'),
  ]);
  return {
    Registry: registry.default,
    Counter: counter.default,
    Gauge: gauge.default,
    Histogram: histogram.default,
  };
}
