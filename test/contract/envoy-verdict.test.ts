import { expect, test } from '@jest/globals';
import { parseCertificate } from '../../agent/identity/certificate';
import { proxyObstacle } from '../../agent/identity/proxy-check';
import { envoyVerdicts } from '../support/envoy-verdicts';
import { parseCrl } from '../support/parse-crl';
import { describeWith } from '../support/peers';
import {
  BAD_ENTRIES,
  BAD_LISTS,
  fieldWorlds,
  GOOD_ENTRIES,
  GOOD_LISTS,
  generatedWorlds,
  type MadeListOptions,
  type MadeSet,
  madeSet,
  makeList,
  type ProxySetWorld,
} from '../support/proxy-sets';
import { tempDir } from '../support/temp-dir';

const COUNT = process.env.KEYTURN_TEST === 'full' ? 200 : 20;
const SEED = 9;

function verdictOf({ leafDer, chainDer, rootsDer, listsDer }: MadeSet): string | undefined {
  const read = (ders: readonly Uint8Array[]) => ders.map((der) => parseCertificate(der));
  const set = {
    chain: read([leafDer, ...chainDer]),
    roots: read(rootsDer),
    lists: listsDer?.map((der) => parseCrl(der)),
  };
  return proxyObstacle(set, Date.now())?.rule;
}

describeWith('envoy')('what is found of a set is what a real Envoy says of it', () => {
  const compare = async (worlds: readonly ProxySetWorld[]) => {
    const sets = await Promise.all(worlds.map(madeSet));
    const envoy = await envoyVerdicts(
      tempDir(),
      sets.map(({ pem }) => pem),
    );
    const ours = sets.map(verdictOf);
    const differing = sets.flatMap(({ name }, index) =>
      envoy[index] === (ours[index] === undefined)
        ? []
        : [`${name}: Envoy ${envoy[index] ? 'takes' : 'refuses'} it; ours: ${ours[index]}`],
    );
    expect(differing).toEqual([]);
    return envoy;
  };

  test('field A1, A3, A8: in the cases of the field and their siblings', async () => {
    const envoy = await compare(await fieldWorlds());
    expect(new Set(envoy)).toEqual(new Set([true, false]));
  });

  test(`in ${COUNT} generated sets`, async () => {
    const envoy = await compare(await generatedWorlds(COUNT, SEED));
    expect(new Set(envoy)).toEqual(new Set([true, false]));
  });

  test('field A3: lists with extensions that Envoy does not take are refused, and those that it takes are not', async () => {
    const [base] = (await fieldWorlds()).filter(({ name }) => name === 'field A3 lists of both');
    const signer = base!.signer;
    const listsWith = (options: MadeListOptions) => ({
      ...base!,
      lists: () => [makeList(signer, options)],
    });
    const good = { ...GOOD_LISTS, ...GOOD_ENTRIES };
    const all = Object.entries({ ...BAD_LISTS, ...BAD_ENTRIES, ...good });
    const sets = await Promise.all(all.map(([, options]) => madeSet(listsWith(options))));
    const envoy = await envoyVerdicts(
      tempDir(),
      sets.map(({ pem }) => pem),
    );
    const ours = sets.map(({ listsDer }) => isRead(listsDer![0]!));
    expect(ours).toEqual(envoy);
    expect(ours).toEqual(all.map(([name]) => name in good));
  });
});

function isRead(der: Uint8Array): boolean {
  try {
    return parseCrl(der) !== undefined;
  } catch {
    return false;
  }
}
