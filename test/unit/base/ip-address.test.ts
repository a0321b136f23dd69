import { expect, test } from '@jest/globals';
import { ipOctets } from '../../../agent/base/ip-address';

const hex = (octets: Uint8Array | undefined) => octets && Buffer.from(octets).toString('hex');

test.each([
  ['127.0.0.1', '7f000001'],
  ['::1', '00000000000000000000000000000001'],
  ['::', '00000000000000000000000000000000'],
  ['fe80::1%lo', 'fe800000000000000000000000000001'],
  ['2001:db8:1:2:3:4:5:6', '20010db8000100020003000400050006'],
  ['2001:db8::', '20010db8000000000000000000000000'],
  ['::ffff:10.0.0.1', '00000000000000000000ffff0a000001'],
  ['localhost', undefined],
  ['127.0.0.256', undefined],
  ['', undefined],
])('ipOctets %s', (text, want) => expect(hex(ipOctets(text))).toBe(want));
