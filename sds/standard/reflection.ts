import { GrpcStatus } from '../../agent/http2/grpc-status';
import { DESCRIBED_FILES, type DescribedFile } from '../proto/generated/descriptors';
import type {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from '../proto/generated/grpc/reflection/v1/reflection';

/** Every service of the sockets, by its full name. */
export const SERVICES: readonly string[] = DESCRIBED_FILES.flatMap(
  ({ services }) => services,
).sort();

const BY_NAME: ReadonlyMap<string, DescribedFile> = new Map(
  DESCRIBED_FILES.map((file) => [file.name, file]),
);
const BY_SYMBOL: ReadonlyMap<string, DescribedFile> = new Map(
  DESCRIBED_FILES.flatMap((file) => file.symbols.map((symbol) => [symbol, file] as const)),
);

type Answer = NonNullable<ServerReflectionResponse['messageResponse']>;

/**
 * What server reflection answers. A file comes with all that it imports, since clients of v1alpha ask for no more. There are no extensions.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
 */
export function reflectionAnswer({ messageRequest: asked }: ServerReflectionRequest): Answer {
  switch (asked?.$case) {
    case 'listServices':
      return {
        $case: 'listServicesResponse',
        value: { service: SERVICES.map((name) => ({ name })) },
      };
    case 'fileByFilename':
      return fileAnswer(BY_NAME.get(asked.value), 'file');
    case 'fileContainingSymbol':
      return fileAnswer(BY_SYMBOL.get(asked.value), 'symbol');
    case 'allExtensionNumbersOfType': {
      const baseTypeName = asked.value;
      if (!BY_SYMBOL.has(baseTypeName))
        return refusal(GrpcStatus.NOT_FOUND, 'there is no such type here');
      return { $case: 'allExtensionNumbersResponse', value: { baseTypeName, extensionNumber: [] } };
    }
    case 'fileContainingExtension':
      return refusal(GrpcStatus.NOT_FOUND, 'there are no extensions here');
    case undefined:
      return refusal(GrpcStatus.INVALID_ARGUMENT, 'message_request: must be there');
  }
}

function fileAnswer(file: DescribedFile | undefined, what: string): Answer {
  if (!file) return refusal(GrpcStatus.NOT_FOUND, `there is no such ${what} here`);
  const files = [...withImports(file)].map(({ base64 }) => Buffer.from(base64, 'base64'));
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto: files } };
}

function withImports(file: DescribedFile, found = new Set<DescribedFile>()): Set<DescribedFile> {
  if (found.has(file)) return found;
  found.add(file);
  for (const name of file.imports) withImports(BY_NAME.get(name)!, found);
  return found;
}

function refusal(errorCode: GrpcStatus, errorMessage: string): Answer {
  return { $case: 'errorResponse', value: { errorCode, errorMessage } };
}
