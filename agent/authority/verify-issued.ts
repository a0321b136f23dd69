import { contextTag, type DerReader, readDer, TAG } from '../base/der';
import { AgentError } from '../base/errors';
import type { CertificateSpec } from '../identity/engine';
import {
  EXTENSION,
  type Extension,
  readBasicConstraints,
  readExtensions,
  readGeneralNames,
  readKeyUsage,
} from '../identity/extensions';

/** One thing that a certificate says, and whether it is what was decided. */
type Fact = readonly [name: string, holds: boolean];

/**
 * Reads a certificate back before it leaves: it says what was decided, or it goes nowhere. What is looked at is what would do harm: whom
 * it is for, whose key it certifies, for how long, whether it could sign others. Each octet outside of the signature is read strictly.
 * Costs some 6 microseconds.
 *
 * @throws AgentError ERR_BUG naming what differs; ERR_PARSE where it is no certificate.
 */
export function assertMatchesSpec(der: Uint8Array, spec: CertificateSpec): void {
  const facts = readDer(der, 'certificate', (reader) =>
    reader.sequence('', (outer) => {
      const { algorithmDer, facts: read } = outer.sequence('tbs', (tbs) => readFacts(tbs, spec));
      const { der: outerAlgorithmDer } = outer.element('signature algorithm', TAG.sequence);
      outer.octetBits('signature');
      return [...read, ['its signature algorithm', same(algorithmDer, outerAlgorithmDer)] as const];
    }),
  );
  const wrong = facts.find(([, holds]) => !holds);
  if (wrong)
    throw new AgentError(
      'ERR_BUG',
      `sign: the issued certificate differs from its specification in ${wrong[0]}`,
    );
}

function readFacts(
  tbs: DerReader,
  spec: CertificateSpec,
): { readonly algorithmDer: Uint8Array; readonly facts: readonly Fact[] } {
  const next = (name: string, wanted: Uint8Array) => same(tbs.any(name).der, wanted);
  const version = tbs.enter('version', contextTag(0), (inner) => inner.smallInteger('version'));
  const serial = tbs.integer('serial number');
  const { der: algorithmDer } = tbs.element('signature algorithm', TAG.sequence);
  const issuer = next('issuer', spec.issuerDer);
  const [notBeforeAt, notAfterAt] = tbs.sequence(
    'validity',
    (inner) => [inner.time('not before'), inner.time('not after')] as const,
  );
  const subject = next('subject', spec.subjectDer);
  const key = next('public key', spec.spkiDer);
  const facts: readonly Fact[] = [
    ['its version', version === 2],
    // A first bit that is set has a zero before it.
    [
      'its serial number',
      same(serial.subarray(serial.length > 1 && serial[0] === 0 ? 1 : 0), spec.serial),
    ],
    ['its issuer', issuer],
    ['its subject', subject],
    ['its key', key],
    ['its validity', notBeforeAt === spec.notBeforeAt && notAfterAt === spec.notAfterAt],
    ...extensionFacts(tbs, tbs.enter('extensions', contextTag(3), readExtensions), spec),
  ];
  return { algorithmDer, facts };
}

function extensionFacts(
  tbs: DerReader,
  extensions: readonly Extension[],
  { profile }: CertificateSpec,
): readonly Fact[] {
  const read = <T>(oid: string, reader: (value: DerReader) => T): T | undefined => {
    const found = extensions.find((each) => each.oid === oid);
    return found && tbs.within('extension', found.value, reader);
  };
  const names =
    read(EXTENSION.subjectAltName, (value) =>
      readGeneralNames(value, 'subject alternative name'),
    ) ?? [];
  const uris = names.filter(({ kind }) => kind === 'uri').map(({ value }) => value);
  const decided = profile.kind === 'server' ? [] : [profile.uri];
  const ca = read(EXTENSION.basicConstraints, readBasicConstraints)?.ca === true;
  const signs = read(EXTENSION.keyUsage, readKeyUsage)?.includes('keyCertSign') === true;
  return [
    ['its SPIFFE ID', uris.join('\n') === decided.join('\n')],
    ['that it is no CA', !ca && !signs],
  ];
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
