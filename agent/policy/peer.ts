import { objectOf, textOf } from './resources/fields';
import type { Json, Resource } from './resources/resource';
import type { ResourceIndex } from './select';
import { matchLabels, type PolicyWorkload } from './workload';

/** How a port takes connections. */
export type MtlsMode = 'DISABLE' | 'PERMISSIVE' | 'STRICT';

/** The modes of a workload's ports. */
export interface PeerModes {
  readonly mode: MtlsMode;
  readonly ports: ReadonlyMap<number, MtlsMode>;
}

/**
 * The mutual TLS mode of each port: the mesh's, the namespace's, the workload's, then the port's. Of
 * several of one rank the oldest counts. UNSET takes what stands above; without any it is PERMISSIVE.
 *
 * @see Istio, PeerAuthentication; istio pilot/pkg/security/authn ComposePeerAuthentication
 */
export function peerModes(
  index: ResourceIndex,
  workload: PolicyWorkload,
  rootNamespace: string,
): PeerModes {
  const policies = index.selecting('PeerAuthentication', workload, [
    workload.namespace,
    rootNamespace,
  ]);
  const isWide = ({ spec }: Resource) => Object.keys(matchLabels(spec)).length === 0;
  const isRoot = ({ namespace }: Resource) => namespace === rootNamespace;
  const mesh = policies.find((each) => isRoot(each) && isWide(each));
  const own = policies.find((each) => !isRoot(each) && isWide(each));
  const selected = policies.find((each) => !isRoot(each) && !isWide(each));
  const mode =
    modeOf(selected?.spec.mtls) ??
    modeOf(own?.spec.mtls) ??
    modeOf(mesh?.spec.mtls) ??
    'PERMISSIVE';
  const ports = Object.entries(objectOf(selected?.spec.portLevelMtls)).map(
    ([port, mtls]) => [Number(port), modeOf(mtls) ?? mode] as const,
  );
  return { mode, ports: new Map(ports) };
}

export function modeOfPort({ mode, ports }: PeerModes, port: number): MtlsMode {
  return ports.get(port) ?? mode;
}

function modeOf(mtls: Json | undefined): MtlsMode | undefined {
  const mode = textOf(objectOf(mtls).mode);
  return mode === 'DISABLE' || mode === 'PERMISSIVE' || mode === 'STRICT' ? mode : undefined;
}
