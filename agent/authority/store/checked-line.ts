import { hash } from 'node:crypto';

/** 64 bits: against torn writes and flipped bits, not against an attacker, who could write the files as he likes. */
const SUM_LENGTH = 16;

/** One value as a line that tells when it is damaged: the start of its SHA-256, a blank, JSON, a newline. */
export function formatCheckedLine(value: unknown): Buffer {
  const json = JSON.stringify(value);
  return Buffer.from(`${sum(json)} ${json}\n`);
}

/** The value of a line without its newline, or undefined where it is damaged. */
export function parseCheckedLine(line: Uint8Array): unknown {
  const text = Buffer.from(line.buffer, line.byteOffset, line.length).toString('utf8');
  const json = text.slice(SUM_LENGTH + 1);
  if (text[SUM_LENGTH] !== ' ' || sum(json) !== text.slice(0, SUM_LENGTH)) return undefined;
  return JSON.parse(json);
}

function sum(json: string): string {
  return hash('sha256', json, 'hex').slice(0, SUM_LENGTH);
}
