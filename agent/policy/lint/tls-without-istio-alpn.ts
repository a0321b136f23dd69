import { objectOf, textOf } from '../resources/fields';
import type { FieldPath, Resource } from '../resources/resource';
import type { Lint, LintFinding } from './lint';
import type { LintedSet } from './linted-set';

/** @see istio/istio issue 38720 */
export const tlsWithoutIstioAlpn: Lint = {
  name: 'tls-without-istio-alpn',
  summary: "A PERMISSIVE HTTP port resets TLS that does not offer Istio's ALPN.",
  find: function* (set: LintedSet): Generator<LintFinding> {
    for (const policy of set.index.all('PeerAuthentication'))
      for (const path of permissivePaths(policy)) {
        const only = path[1] === 'portLevelMtls' ? Number(path[2]) : undefined;
        const port = set
          .meetings(policy)
          .flatMap((workload) =>
            workload.ports.filter(({ number }) => set.mode(workload, number) === 'PERMISSIVE'),
          )
          .find(({ number, protocol }) => protocol === 'HTTP' && (only ?? number) === number);
        if (!port) continue;
        yield {
          resource: policy,
          path,
          message: `accepts plain text and Istio's TLS on HTTP port ${port.number}; other TLS, which does not offer ALPN istio, is reset`,
          hint: 'let such clients offer ALPN istio, or declare the port as TCP where the application ends TLS',
        };
      }
  },
};

function permissivePaths({ spec }: Resource): FieldPath[] {
  const isPermissive = (mtls: unknown) => textOf(objectOf(mtls as never).mode) === 'PERMISSIVE';
  const ports = Object.entries(objectOf(spec.portLevelMtls)).filter(([, mtls]) =>
    isPermissive(mtls),
  );
  return [
    ...(isPermissive(spec.mtls) ? [['spec', 'mtls', 'mode']] : []),
    ...ports.map(([port]) => ['spec', 'portLevelMtls', port, 'mode']),
  ];
}
