import type {
  AgentStatus,
  AgentView,
  WorkloadStatus,
  WorkloadView,
} from '../../agent/admin/agent-view';

export const WORKLOAD_ID = 'spiffe://cluster.local/ns/shop/sa/cart';

type Changes = { status?: Partial<AgentStatus>; workload?: Partial<WorkloadStatus> } & Partial<
  Omit<AgentView, 'status'>
>;

/** An agent's view with one healthy workload; what a test names replaces what would be there. */
export function fakeView(changes: Changes = {}): AgentView {
  const { status, workload, ...view } = changes;
  return {
    status: () => ({ ...STATUS, workloads: [{ ...WORKLOAD, ...workload }], ...status }),
    reasons: () => status?.reasons ?? [],
    workloads: () => [VIEW],
    settings: () => [{ name: 'ttl', value: '24h', origin: 'default' }],
    rotate: async () => ({
      workloads: [{ id: WORKLOAD_ID, serial: '02', notAfter: '2026-01-02T00:00:00.000Z' }],
    }),
    ...view,
  };
}

const WORKLOAD: WorkloadStatus = {
  id: WORKLOAD_ID,
  state: 'current',
  certificate: {
    serial: '01',
    notBefore: '2025-12-31T23:58:00.000Z',
    notAfter: '2026-01-02T00:00:00.000Z',
    receivedAt: '2026-01-01T00:00:00.000Z',
    renewAt: '2026-01-01T12:00:00.000Z',
    keyAlgorithm: 'ecdsa-p256',
    issuer: 'O=cluster.local',
    sha256: 'ab'.repeat(32),
    signedBy: 'builtin',
    chainLength: 1,
    warnings: [],
  },
  roots: [
    { subject: 'O=cluster.local', sha256: 'cd'.repeat(32), notAfter: '2036-01-01T00:00:00.000Z' },
  ],
  rootsVersion: 'ef'.repeat(32),
  source: 'builtin',
  plan: [{ rule: 'half of the remaining validity', at: '2026-01-01T12:00:00.000Z', detail: '24h' }],
  attempts: 1,
  renewals: 1,
  failures: 0,
  outageBudget: { seconds: 86_400, until: '2026-01-02T00:00:00.000Z', limit: 'certificate' },
  sds: { socket: '/tmp/socket', mode: '0600', streams: [], unknownNames: [] },
};

const STATUS: AgentStatus = {
  version: '0.0.0',
  pid: 1,
  runtime: 'node 22.0.0',
  startedAt: '2026-01-01T00:00:00.000Z',
  now: '2026-01-01T00:00:00.000Z',
  ready: true,
  reasons: [],
  workloads: [WORKLOAD],
};

const VIEW: WorkloadView = {
  id: WORKLOAD_ID,
  source: 'builtin',
  svid: undefined,
  bundle: undefined,
  state: 'current',
  renewAt: Date.parse('2026-01-01T12:00:00Z'),
  failures: 0,
  streams: 2,
  unacknowledged: 1,
};
