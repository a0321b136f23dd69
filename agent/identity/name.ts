import { type DerReader, derElement, derOid, derSequence, derSet, readDer, TAG } from '../base/der';

/** A subject or issuer: its DER, by which names are compared, and a text for people. */
export interface Name {
  readonly der: Uint8Array;
  /** As written, first to last, e.g. `O=cluster.local, CN=root`; empty for the empty name. */
  readonly text: string;
  /** OIDs of the attributes present. */
  readonly types: readonly string[];
}

const SHORT_NAMES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.5': 'serialNumber',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
  '0.9.2342.19200300.100.1.25': 'DC',
  '1.2.840.113549.1.9.1': 'emailAddress',
};

/** The OID of commonName. */
export const COMMON_NAME = '2.5.4.3';
const MAX_ATTRIBUTES = 64;

/** A Name without attributes. */
export const EMPTY_NAME: Uint8Array = derSequence();

/** One empty `O`, the subject of every CSR that istio-agent makes; the RA of istiod compares requests with exactly this. */
export const EMPTY_ORGANISATION: Uint8Array = encodeName([['O', '']]);

/** Writes a Name: one attribute to an RDN, in order. Keys are short names such as `O` and `CN`. */
export function encodeName(attributes: readonly (readonly [type: 'O' | 'OU' | 'CN', value: string])[]): Uint8Array {
  return derSequence(
    ...attributes.map(([type, value]) => {
      const [oid] = Object.entries(SHORT_NAMES).find(([, short]) => short === type)!;
      const printable = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(value);
      return derSet(derSequence(derOid(oid), derElement(printable ? TAG.printableString : TAG.utf8String, Buffer.from(value))));
    }),
  );
}

/** Reads the Name that is next. */
export function readName(reader: DerReader, name: string): Name {
  const element = reader.element(name, TAG.sequence);
  const types: string[] = [];
  const readAttribute = (attribute: DerReader) => {
    const type = attribute.oid(name);
    types.push(type);
    return `${SHORT_NAMES[type] ?? type}=${valueText(attribute.any(name))}`;
  };
  const readPart = (set: DerReader) => {
    const texts = set.list(name, MAX_ATTRIBUTES, (attributes) => attributes.sequence(name, readAttribute));
    if (texts.length === 0) throw set.refuse(name, 'must not have an empty part');
    return texts.join(' + ');
  };
  const parts = reader.within(name, element.content, (names) =>
    names.list(name, MAX_ATTRIBUTES, (sets) => sets.enter(name, TAG.set, readPart)),
  );
  return { der: element.der, text: parts.join(', '), types };
}

/** The text of a Name's DER. */
export function nameText(nameDer: Uint8Array): string {
  return readDer(nameDer, 'name', (reader) => readName(reader, '').text);
}

function valueText({ tag, content }: { readonly tag: number; readonly content: Uint8Array }): string {
  const bytes = Buffer.from(content);
  if (tag === TAG.utf8String) return printable(bytes.toString('utf8'));
  if (tag === TAG.printableString || tag === TAG.ia5String || tag === TAG.teletexString) return printable(bytes.toString('latin1'));
  if (tag === TAG.bmpString && bytes.length % 2 === 0) return printable(bytes.swap16().toString('utf16le'));
  return `#${bytes.toString('hex')}`;
}

/** Control and direction characters become escapes: a name is a stranger's text on somebody's terminal. */
function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp},+=\\]/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
