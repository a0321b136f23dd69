import type { Problem } from '../resources/problem';
import type { Resource, ResourceKind } from '../resources/resource';
import { checkAnnotations } from './annotations';
import { checkAuthorizationPolicy } from './authorization-policy';
import { Check } from './check';
import { checkDestinationRule } from './destination-rule';
import { checkPeerAuthentication } from './peer-authentication';
import { checkRequestAuthentication } from './request-authentication';
import { checkServiceEntry } from './service-entry';
import { checkSidecar } from './sidecar';
import { checkWorkloadEntry } from './workload-entry';

const CHECKS: Readonly<Record<ResourceKind, (check: Check) => void>> = {
  AuthorizationPolicy: checkAuthorizationPolicy,
  PeerAuthentication: checkPeerAuthentication,
  RequestAuthentication: checkRequestAuthentication,
  DestinationRule: checkDestinationRule,
  ServiceEntry: checkServiceEntry,
  Sidecar: checkSidecar,
  WorkloadEntry: checkWorkloadEntry,
};

/** What Kubernetes and istiod refuse beyond names and types of fields. */
export function validate(resource: Resource): readonly Problem[] {
  const check = new Check(resource);
  checkAnnotations(check);
  CHECKS[resource.kind](check);
  return check.problems;
}
