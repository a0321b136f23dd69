import { isObject, objectOf, objectsOf, textOf, textsOf } from '../resources/fields';
import type { FieldPath, Json, JsonObject } from '../resources/resource';
import type { Check } from './check';
import { checkExportTo, checkLabels, isDnsLabel, isWildcardHost } from './names';

/** @see istio pkg/config/validation ValidateDestinationRule */
export function checkDestinationRule(check: Check): void {
  const { spec, namespace } = check.resource;
  if (!isWildcardHost(textOf(spec.host) ?? ''))
    check.refuse(['spec', 'host'], 'must be a host name, of which the first part may be *');
  checkTrafficPolicy(check, spec.trafficPolicy, ['spec', 'trafficPolicy']);
  const seen = new Set<Json | undefined>();
  for (const { item, at } of check.each(spec.subsets, ['spec', 'subsets'])) {
    if (!isDnsLabel(textOf(item.name) ?? ''))
      check.refuse([...at, 'name'], 'must be a DNS label: letters, digits and -, at most 63');
    if (seen.has(item.name)) check.refuse([...at, 'name'], 'is the name of another subset');
    seen.add(item.name);
    checkLabels(check, item.labels, [...at, 'labels']);
    checkTrafficPolicy(check, item.trafficPolicy, [...at, 'trafficPolicy']);
  }
  checkExportTo(check, spec.exportTo, { nobody: false });
  const selector = ['spec', 'workloadSelector'];
  check.labels(objectOf(spec.workloadSelector).matchLabels, [...selector, 'matchLabels']);
  const isShown = textsOf(spec.exportTo).some((each) => each !== '.' && each !== namespace);
  if (isObject(spec.workloadSelector) && isShown)
    check.refuse(['spec', 'exportTo'], 'must be the own namespace where workloads are selected');
}

function checkTrafficPolicy(check: Check, value: Json | undefined, at: FieldPath): void {
  if (!isObject(value)) return;
  if (Object.keys(value).length === 0) check.refuse(at, 'must not be empty', 'remove it');
  checkTls(check, objectOf(value.tls), [...at, 'tls']);
  for (const { item, at: path } of check.each(value.portLevelSettings, [
    ...at,
    'portLevelSettings',
  ])) {
    check.port(objectOf(item.port).number, [...path, 'port', 'number']);
    if (!['tls', 'loadBalancer', 'connectionPool', 'outlierDetection'].some((each) => each in item))
      check.refuse(path, 'must set something for its port');
    checkTls(check, objectOf(item.tls), [...path, 'tls']);
  }
}

const CERTIFICATES = ['clientCertificate', 'privateKey', 'caCertificates', 'caCrl'];

/** @see istio pkg/config/validation/agent ValidateTLS */
function checkTls(check: Check, tls: JsonObject, at: FieldPath): void {
  const has = (name: string) => Boolean(textOf(tls[name]));
  const refuse = (names: readonly string[], message: string) => {
    for (const name of names.filter(has)) check.refuse([...at, name], message);
  };
  const hasNames = objectsOf(tls.subjectAltNames).length > 0;
  if (tls.insecureSkipVerify === true && (tls.mode === 'SIMPLE' || tls.mode === 'MUTUAL')) {
    const rule = 'must not stand beside insecureSkipVerify';
    refuse(tls.mode === 'SIMPLE' ? ['caCertificates', 'credentialName'] : ['caCertificates'], rule);
    if (hasNames) check.refuse([...at, 'subjectAltNames'], rule);
  }
  if (has('credentialName') && (tls.mode === 'SIMPLE' || tls.mode === 'MUTUAL'))
    refuse(CERTIFICATES, 'must not stand beside credentialName');
  else if (tls.mode === 'MUTUAL')
    for (const name of ['clientCertificate', 'privateKey']) check.needed(tls[name], [...at, name]);
}
