import { notName, objectOf, objectsOf, textsOf } from '../resources/fields';
import type { FieldPath, Json, JsonObject, Resource } from '../resources/resource';

/** Values of one field or condition of a rule. */
export interface RuleField {
  /** As the key of a condition has it: `principals` is `source.principal`. */
  readonly attribute: string;
  /** Whether none of the values must match. */
  readonly isNegative: boolean;
  readonly values: readonly string[];
  readonly path: FieldPath;
}

/** One rule of an AuthorizationPolicy, its fields by where they stand. */
export interface AuthzRule {
  readonly policy: Resource;
  readonly path: FieldPath;
  /** Everything that it says, each field once. */
  readonly fields: readonly RuleField[];
  /** What it takes: any one of these, each a list of fields that must all hold. */
  readonly alternatives: readonly (readonly RuleField[])[];
  /** Whether these are all; of very many each source and each operation is in one. */
  readonly hasAllAlternatives: boolean;
}

/** A thousand sources and a thousand operations are a million. */
const MAX_ALTERNATIVES = 1_000;

const SOURCE_ATTRIBUTES: Readonly<Record<string, string>> = {
  principals: 'source.principal',
  requestPrincipals: 'request.auth.principal',
  namespaces: 'source.namespace',
  serviceAccounts: 'source.serviceAccount',
  trustDomains: 'source.trustDomain',
  ipBlocks: 'source.ip',
  remoteIpBlocks: 'remote.ip',
};

const OPERATION_ATTRIBUTES: Readonly<Record<string, string>> = {
  hosts: 'request.host',
  methods: 'request.method',
  paths: 'request.path',
  ports: 'destination.port',
};

/** The rules of an AuthorizationPolicy, in their order. */
export function rulesOf(policy: Resource): readonly AuthzRule[] {
  return objectsOf(policy.spec.rules).map((rule, index) => {
    const path: FieldPath = ['spec', 'rules', index];
    const sources = objectsOf(rule.from).map(({ source }, at) =>
      fieldsOf(objectOf(source), [...path, 'from', at, 'source'], SOURCE_ATTRIBUTES),
    );
    const operations = objectsOf(rule.to).map(({ operation }, at) =>
      fieldsOf(objectOf(operation), [...path, 'to', at, 'operation'], OPERATION_ATTRIBUTES),
    );
    const conditions = objectsOf(rule.when).flatMap((condition, at) =>
      conditionOf(condition, [...path, 'when', at]),
    );
    const from: readonly (readonly RuleField[])[] = sources.length === 0 ? [[]] : sources;
    const to: readonly (readonly RuleField[])[] = operations.length === 0 ? [[]] : operations;
    const isFew = from.length * to.length <= MAX_ALTERNATIVES;
    const pairs = isFew
      ? from.flatMap((source) => to.map((operation) => [source, operation] as const))
      : [
          ...from.map((source) => [source, to[0]!] as const),
          ...to.map((operation) => [from[0]!, operation] as const),
        ];
    return {
      policy,
      path,
      fields: [...sources.flat(), ...operations.flat(), ...conditions],
      alternatives: pairs.map(([source, operation]) => [...source, ...operation, ...conditions]),
      hasAllAlternatives: isFew,
    };
  });
}

function fieldsOf(
  written: JsonObject,
  path: FieldPath,
  attributes: Readonly<Record<string, string>>,
): RuleField[] {
  return Object.entries(attributes).flatMap(([name, attribute]) => {
    const negative = notName(name);
    return [
      ...fieldOf(attribute, false, written[name], [...path, name]),
      ...fieldOf(attribute, true, written[negative], [...path, negative]),
    ];
  });
}

function conditionOf({ key, values, notValues }: JsonObject, path: FieldPath): RuleField[] {
  const attribute = String(key);
  return [
    ...fieldOf(attribute, false, values, [...path, 'values']),
    ...fieldOf(attribute, true, notValues, [...path, 'notValues']),
  ];
}

function fieldOf(
  attribute: string,
  isNegative: boolean,
  value: Json | undefined,
  path: FieldPath,
): RuleField[] {
  const values = textsOf(value);
  return values.length === 0 ? [] : [{ attribute, isNegative, values, path }];
}

/** What only a request of HTTP has. */
export function isOfHttp({ attribute }: RuleField): boolean {
  return attribute.startsWith('request.');
}

/** What only the certificate of a peer says. */
export function isOfPeerCertificate({ attribute }: RuleField): boolean {
  return PEER_ATTRIBUTES.has(attribute);
}

const PEER_ATTRIBUTES = new Set([
  'source.principal',
  'source.namespace',
  'source.serviceAccount',
  'source.trustDomain',
]);

/** What only a verified JWT says. */
export function isOfToken({ attribute }: RuleField): boolean {
  return attribute.startsWith('request.auth.');
}

/** Whether fields of an alternative leave a port: those that name ports, all of them. */
export function leavePort(fields: readonly RuleField[], port: number): boolean {
  return fields
    .filter(({ attribute }) => attribute === 'destination.port')
    .every(({ isNegative, values }) => values.includes(String(port)) !== isNegative);
}
