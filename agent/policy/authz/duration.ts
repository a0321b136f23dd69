/**
 * `google.protobuf.Duration` as proto3 JSON writes it: no fraction, or one of 3, 6 or 9 digits.
 *
 * @param text  Valid: `0.5s`.
 */
export function durationText(text: string): string {
  const [, sign = '', whole = '', fraction = ''] = /^(-?)(\d*)\.?(\d*)s$/.exec(text) ?? [];
  const significant = fraction.replace(/0+$/, '');
  const digits = Math.ceil(significant.length / 3) * 3;
  const behind = digits === 0 ? '' : `.${significant.padEnd(digits, '0')}`;
  return `${sign}${whole.replace(/^0+(?=\d)/, '') || '0'}${behind}s`;
}
