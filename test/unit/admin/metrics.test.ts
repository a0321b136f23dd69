import { describe, expect, test } from '@jest/globals';
import { createMetrics } from '../../../agent/admin/metrics';
import { METRICS } from '../../../agent/base/metrics';
import { type Family, parseExposition } from '../../support/exposition';
import { fakeView, WORKLOAD_ID } from '../../support/fake-view';

const at = (iso: string) => Date.parse(iso) / 1000;

function value(
  families: Map<string, Family>,
  name: string,
  labels: Record<string, string> = {},
): number | undefined {
  const family = [...families.values()].find((each) =>
    each.samples.some((sample) => sample.name === name),
  );
  return family?.samples.find(
    (sample) => sample.name === name && JSON.stringify(sample.labels) === JSON.stringify(labels),
  )?.value;
}

describe('metrics', () => {
  test('are a strictly well-formed exposition with every row of the table in it', async () => {
    const families = parseExposition(await createMetrics().text(fakeView()));
    for (const [name, row] of Object.entries(METRICS)) {
      expect(families.get(`keyturn_${name}`)).toMatchObject({ type: row.type, help: row.help });
    }
    for (const name of families.keys())
      expect(name).toMatch(/^(keyturn|istio_agent|process|nodejs)_/);
  });

  test('count what was recorded before and after the first scrape', async () => {
    const metrics = createMetrics();
    metrics.record('renewals_total', { outcome: 'ok' });
    await metrics.text(fakeView());
    metrics.record('renewals_total', { outcome: 'ok' });
    metrics.record('renewals_total', { outcome: 'ERR_CA_UNAVAILABLE' });
    metrics.record('sds_stale_nonces_total', {});
    const families = parseExposition(await metrics.text(fakeView()));
    expect(value(families, 'keyturn_renewals_total', { outcome: 'ok' })).toBe(2);
    expect(value(families, 'keyturn_renewals_total', { outcome: 'ERR_CA_UNAVAILABLE' })).toBe(1);
    expect(value(families, 'keyturn_sds_stale_nonces_total')).toBe(1);
  });

  test('put observations into cumulative buckets', async () => {
    const metrics = createMetrics();
    for (const seconds of [0.001, 0.003, 0.003, 0.7, 99]) {
      metrics.record('ca_request_duration_seconds', { ca: 'builtin', outcome: 'ok' }, seconds);
    }
    const families = parseExposition(await metrics.text(fakeView()));
    const bucket = (le: string) =>
      value(families, 'keyturn_ca_request_duration_seconds_bucket', {
        le,
        ca: 'builtin',
        outcome: 'ok',
      });
    expect([
      bucket('0.002'),
      bucket('0.005'),
      bucket('0.5'),
      bucket('1'),
      bucket('30'),
      bucket('+Inf'),
    ]).toEqual([1, 3, 3, 4, 4, 5]);
    const labels = { ca: 'builtin', outcome: 'ok' };
    expect(value(families, 'keyturn_ca_request_duration_seconds_sum', labels)).toBeCloseTo(99.707);
    expect(value(families, 'keyturn_ca_request_duration_seconds_count', labels)).toBe(5);
  });

  test('tell instants as seconds since the epoch, per identity', async () => {
    const families = parseExposition(await createMetrics().text(fakeView()));
    const id = { id: WORKLOAD_ID };
    expect(value(families, 'keyturn_certificate_not_before_timestamp_seconds', id)).toBe(
      at('2025-12-31T23:58:00Z'),
    );
    expect(value(families, 'keyturn_certificate_not_after_timestamp_seconds', id)).toBe(
      at('2026-01-02T00:00:00Z'),
    );
    expect(value(families, 'keyturn_certificate_renew_at_timestamp_seconds', id)).toBe(
      at('2026-01-01T12:00:00Z'),
    );
    expect(
      value(families, 'keyturn_root_not_after_timestamp_seconds', {
        ...id,
        sha256: 'cd'.repeat(32),
      }),
    ).toBe(at('2036-01-01T00:00:00Z'));
    expect(value(families, 'keyturn_clock_time_seconds')).toBe(at('2026-01-01T00:00:00Z'));
    expect(value(families, 'keyturn_outage_budget_seconds', id)).toBe(86_400);
    expect(value(families, 'keyturn_sds_streams', id)).toBe(2);
    expect(value(families, 'keyturn_sds_unacknowledged_streams', id)).toBe(1);
    expect(value(families, 'keyturn_consecutive_failures', id)).toBe(0);
    expect(
      value(families, 'keyturn_build_info', { version: '0.0.0', runtime: 'node 22.0.0' }),
    ).toBe(1);
  });

  test('say 1 for the state that is and 0 for the others', async () => {
    const families = parseExposition(
      await createMetrics().text(fakeView({ workload: { state: 'overdue' } })),
    );
    const states = families
      .get('keyturn_certificate_state')
      ?.samples.map(({ labels, value }) => `${labels.state}=${value}`);
    expect(states).toEqual(['starting=0', 'current=0', 'overdue=1', 'unavailable=0']);
  });

  test('say nothing of a certificate that does not exist', async () => {
    const view = fakeView();
    const { certificate: _, outageBudget: __, ...bare } = view.status().workloads[0]!;
    const starting = {
      ...view.status(),
      workloads: [{ ...bare, state: 'starting' as const, roots: [] }],
    };
    const families = parseExposition(
      await createMetrics().text({ ...view, status: () => starting }),
    );
    for (const name of families.keys()) {
      expect(name).not.toMatch(/not_before|not_after|renew_at|outage_budget|cert_expiry/);
    }
    expect(families.get('keyturn_certificate_state')?.samples).toHaveLength(4);
  });

  test("speak Istio's names beside ours, in its units", async () => {
    const metrics = createMetrics();
    metrics.record('ca_request_duration_seconds', { ca: 'builtin', outcome: 'ok' }, 0.25);
    metrics.record(
      'ca_request_duration_seconds',
      { ca: 'builtin', outcome: 'ERR_CA_UNAVAILABLE' },
      0.5,
    );
    metrics.record('ca_retries_total', { ca: 'builtin' });
    metrics.record('sds_nacks_total', { name: 'default' });
    metrics.record('sds_nacks_total', { name: 'ROOTCA' });
    metrics.record('sds_stale_nonces_total', {});
    metrics.record('file_watch_failures_total', {});
    metrics.record('file_read_failures_total', {});
    metrics.record('renewals_total', { outcome: 'ok' });
    const families = parseExposition(await metrics.text(fakeView()));
    const csr = { request_type: 'csr' };
    expect(value(families, 'istio_agent_num_outgoing_requests', csr)).toBe(2);
    expect(value(families, 'istio_agent_num_failed_outgoing_requests', csr)).toBe(1);
    expect(value(families, 'istio_agent_num_outgoing_retries', csr)).toBe(1);
    expect(value(families, 'istio_agent_outgoing_latency', csr)).toBe(750);
    expect(value(families, 'istio_agent_cert_expiry_seconds', { resource_name: 'default' })).toBe(
      86_400,
    );
    expect(value(families, 'istio_agent_num_file_watcher_failures_total')).toBe(1);
    expect(value(families, 'istio_agent_num_file_secret_failures_total')).toBe(1);
    expect(value(families, 'istio_agent_pilot_total_xds_rejects')).toBe(2);
    expect(value(families, 'istio_agent_pilot_xds_expired_nonce')).toBe(1);
    expect(value(families, 'istio_agent_startup_duration_seconds')).toBeGreaterThan(0);
    expect(value(families, 'istio_agent_scrapes_total')).toBe(1);
  });

  test('report an expired certificate with a negative expiry', async () => {
    const families = parseExposition(
      await createMetrics().text(fakeView({ status: { now: '2026-01-02T00:01:00.000Z' } })),
    );
    expect(value(families, 'istio_agent_cert_expiry_seconds', { resource_name: 'default' })).toBe(
      -60,
    );
  });

  test('never grow with hostile label values, and escape them', async () => {
    const metrics = createMetrics();
    metrics.record('sds_refused_total', { reason: 'a "quoted"\n\\ one' });
    for (let index = 0; index < 10_000; index += 1)
      metrics.record('sds_refused_total', { reason: `${index}${'x'.repeat(1_000)}` });
    const samples = parseExposition(await metrics.text(fakeView())).get(
      'keyturn_sds_refused_total',
    )!.samples;
    expect(samples.length).toBeLessThanOrEqual(65);
    expect(samples.reduce((total, each) => total + each.value, 0)).toBe(10_001);
    expect(Math.max(...samples.map((each) => each.labels.reason!.length))).toBeLessThan(80);
  });

  test('ignore values that are not numbers in sums', async () => {
    const metrics = createMetrics();
    metrics.record('sds_push_duration_seconds', {}, Number.NaN);
    const families = parseExposition(await metrics.text(fakeView()));
    expect(value(families, 'keyturn_sds_push_duration_seconds_sum')).toBe(0);
    expect(value(families, 'keyturn_sds_push_duration_seconds_count')).toBe(1);
  });

  test('watch the process cheaply: memory, CPU, descriptors, loop', async () => {
    const families = parseExposition(await createMetrics().text(fakeView()));
    expect(value(families, 'process_resident_memory_bytes')).toBeGreaterThan(1_000_000);
    expect(value(families, 'process_cpu_seconds_total')).toBeGreaterThan(0);
    expect(value(families, 'process_open_fds')).toBeGreaterThan(2);
    expect(value(families, 'process_max_fds')).toBeGreaterThan(2);
    expect(
      Math.abs(value(families, 'process_start_time_seconds')! - Date.now() / 1000),
    ).toBeLessThan(3_600);
    expect(value(families, 'nodejs_eventloop_lag_seconds')).toBeGreaterThanOrEqual(0);
  });
});
