import { readFileSync } from 'node:fs';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';

// Prints a module of the files of a FileDescriptorSet, as server reflection hands them out.
const { file: files } = fromBinary(FileDescriptorSetSchema, readFileSync(process.argv[2]!));
const described = files.map((file) => {
  const prefix = file.package === '' ? '' : `${file.package}.`;
  const services = file.service.map(({ name }) => `${prefix}${name}`);
  const methods = file.service.flatMap(({ name, method }) =>
    method.map((each) => `${prefix}${name}.${each.name}`),
  );
  const enums = file.enumType.map(({ name }) => `${prefix}${name}`);
  return {
    name: file.name,
    imports: file.dependency,
    services,
    symbols: [
      ...services,
      ...methods,
      ...enums,
      ...file.messageType.flatMap((message) => typesOf(prefix, message)),
    ],
    base64: Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString('base64'),
  };
});
process.stdout.write(`// Made by scripts/generate from the .proto files. DO NOT EDIT.

/** A .proto file: what it defines, by full names, and its FileDescriptorProto. */
export interface DescribedFile {
  readonly name: string;
  readonly imports: readonly string[];
  readonly services: readonly string[];
  readonly symbols: readonly string[];
  readonly base64: string;
}

export const DESCRIBED_FILES: readonly DescribedFile[] = ${JSON.stringify(described, undefined, 2)};
`);

function typesOf(prefix: string, message: DescriptorProto): string[] {
  const name = `${prefix}${message.name}`;
  const enums = message.enumType.map((each) => `${name}.${each.name}`);
  return [name, ...enums, ...message.nestedType.flatMap((nested) => typesOf(`${name}.`, nested))];
}
