import type { Problem } from '../resources/problem';
import type { Resource, ResourceKind } from '../resources/resource';
import { checkAuthorizationPolicy } from './authorization-policy';
import { Check } from './check';
import {
  checkDestinationRule,
  checkServiceEntry,
  checkSidecar,
  checkWorkloadEntry,
} from './networking';
import { checkPeerAuthentication } from './peer-authentication';
import { checkRequestAuthentication } from './request-authentication';

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
  CHECKS[resource.kind](check);
  return check.problems;
}
