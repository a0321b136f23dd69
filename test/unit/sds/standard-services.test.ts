import { fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { LIMITS, PATIENCE } from '../../../sds/grpc/limits';
import {
  HealthCheckRequest,
  HealthCheckResponse,
  HealthCheckResponse_ServingStatus,
} from '../../../sds/proto/generated/grpc/health/v1/health';
import {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from '../../../sds/proto/generated/grpc/reflection/v1/reflection';
import { message, openCall, PREFACE, rawConnect } from '../../support/raw-http2';
import { type SdsWorld, startSdsWorld, unavailableState } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { until } from '../../support/until';

const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;
const SERVICES = [
  'SpiffeWorkloadAPI',
  'envoy.service.secret.v3.SecretDiscoveryService',
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
];

const clock = new TestClock(Date.now());
let world: SdsWorld;
let client: Client;
beforeEach(async () => {
  world = await startSdsWorld(tempDir(), {}, { clock });
  client = new Client(`unix:${world.socketPath}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
});
afterEach(async () => {
  client.close();
  await world.close();
});

const encoded = (service: string) => Buffer.from(HealthCheckRequest.encode({ service }).finish());
const healthOf = (bytes: Buffer) => HealthCheckResponse.decode(bytes).status;

function check(service: string): Promise<number> {
  return new Promise((done, failed) => {
    const answered = (error: ServiceError | null, answer?: number) =>
      error ? failed(error) : done(answer!);
    client.makeUnaryRequest('/grpc.health.v1.Health/Check', encoded, healthOf, service, answered);
  });
}

describe('grpc.health.v1 on the socket', () => {
  test.each(['', ...SERVICES])(
    'of %p says SERVING while a certificate is in service, and NOT_SERVING otherwise',
    async (service) => {
      expect(await check(service)).toBe(NOT_SERVING);
      const svid = await world.rotate();
      expect(await check(service)).toBe(SERVING);
      world.state.set(unavailableState(svid.bundle, svid));
      expect(await check(service)).toBe(NOT_SERVING);
    },
  );

  test('of a service that nobody serves is NOT_FOUND, and a watch of it says SERVICE_UNKNOWN', async () => {
    await expect(check('x.Y')).rejects.toMatchObject({ code: status.NOT_FOUND });
    const watch = client.makeServerStreamRequest(
      '/grpc.health.v1.Health/Watch',
      encoded,
      healthOf,
      'x.Y',
    );
    watch.on('error', () => undefined);
    expect(await new Promise((done) => watch.on('data', done))).toBe(SERVICE_UNKNOWN);
    watch.cancel();
  });

  test('a watch hears of each change once', async () => {
    const heard: number[] = [];
    const watch = client.makeServerStreamRequest(
      '/grpc.health.v1.Health/Watch',
      encoded,
      healthOf,
      '',
    );
    watch.on('error', () => undefined).on('data', (each) => heard.push(each));
    await until('the first', async () => heard.length === 1);
    const svid = await world.rotate();
    await until('the second', async () => heard.length === 2);
    await world.rotate();
    world.state.set(unavailableState(svid.bundle, svid));
    await until('the third', async () => heard.length === 3);
    expect(heard).toEqual([NOT_SERVING, SERVING, NOT_SERVING]);
    watch.cancel();
  });
});

describe.each(['v1', 'v1alpha'])('reflection %s on the socket', (version) => {
  type Question = NonNullable<ServerReflectionRequest['messageRequest']>;
  const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
  const question = (messageRequest: Question | undefined) =>
    Buffer.from(ServerReflectionRequest.encode({ host: 'h', messageRequest }).finish());

  function open() {
    const call = client.makeBidiStreamRequest<Buffer, ServerReflectionResponse>(
      path,
      (bytes) => bytes,
      ServerReflectionResponse.decode,
    );
    const answers: ServerReflectionResponse[] = [];
    const ended = new Promise<number>((done) => call.on('status', ({ code }) => done(code)));
    call
      .on('error', () => undefined)
      .on('data', (each: ServerReflectionResponse) => answers.push(each));
    return { call, answers, ended };
  }

  async function ask(...questions: readonly (Question | undefined)[]) {
    const { call, answers, ended } = open();
    for (const each of questions) call.write(question(each));
    call.end();
    expect(await ended).toBe(status.OK);
    return answers.map(({ messageResponse }) => messageResponse!);
  }

  test('lists every service of the socket', async () => {
    const [list] = await ask({ $case: 'listServices', value: '*' });
    expect(list).toEqual({
      $case: 'listServicesResponse',
      value: { service: SERVICES.map((name) => ({ name })) },
    });
  });

  test.each([
    ['SpiffeWorkloadAPI', 'workload.proto'],
    ['SpiffeWorkloadAPI.FetchX509SVID', 'workload.proto'],
    [
      'envoy.extensions.transport_sockets.tls.v3.Secret',
      'envoy/extensions/transport_sockets/tls/v3/secret.proto',
    ],
    ['envoy.service.secret.v3.SecretDiscoveryService', 'envoy/service/secret/v3/sds.proto'],
    ['grpc.health.v1.HealthCheckResponse.ServingStatus', 'grpc/health/v1/health.proto'],
  ])('%s is described by its file and all that it imports', async (symbol, file) => {
    const [bySymbol, byName] = await ask(
      { $case: 'fileContainingSymbol', value: symbol },
      { $case: 'fileByFilename', value: file },
    );
    expect(bySymbol).toEqual(byName);
    if (bySymbol?.$case !== 'fileDescriptorResponse') throw new Error('no files');
    const files = bySymbol.value.fileDescriptorProto.map((bytes) =>
      fromBinary(FileDescriptorProtoSchema, bytes),
    );
    expect(files[0]!.name).toBe(file);
    const names = files.map(({ name }) => name);
    for (const { dependency } of files) expect(names).toEqual(expect.arrayContaining(dependency));
  });

  test('what is not there is an answer with an error, and the stream goes on', async () => {
    const answers = await ask(
      { $case: 'fileByFilename', value: '../../etc/passwd' },
      { $case: 'fileContainingSymbol', value: 'constructor' },
      {
        $case: 'fileContainingExtension',
        value: { containingType: 'SpiffeWorkloadAPI', extensionNumber: 1 },
      },
      { $case: 'allExtensionNumbersOfType', value: 'X509SVID' },
      undefined,
      { $case: 'listServices', value: '' },
    );
    const codes = answers.map((each) =>
      each.$case === 'errorResponse' ? each.value.errorCode : each.$case,
    );
    const { NOT_FOUND, INVALID_ARGUMENT } = status;
    expect(codes).toEqual([
      NOT_FOUND,
      NOT_FOUND,
      NOT_FOUND,
      'allExtensionNumbersResponse',
      INVALID_ARGUMENT,
      'listServicesResponse',
    ]);
  });

  test('who asks nothing, or reads nothing, is let go', async () => {
    const silent = open();
    const unread = await rawConnect(world.socketPath, { paused: true });
    const list = question({ $case: 'listServices', value: '*' });
    unread.send(
      PREFACE,
      openCall(1, '', { ':path': path }),
      ...[...Array(5_000)].map(() => message(1, list)),
    );
    silent.call.write(list);
    await until('an answer', async () => silent.answers.length === 1);
    await until(
      'a full socket',
      async () => unread.socket.bytesWritten > 0 && unread.socket.writableLength === 0,
    );
    for (let sweep = 0; sweep < PATIENCE.silentStreamSweeps + 2; sweep += 1) {
      await clock.advanceBy(PATIENCE.sweepMs);
      await new Promise((done) => setImmediate(done));
    }
    expect(await silent.ended).toBe(status.DEADLINE_EXCEEDED);
    unread.destroy();
  });

  test('a message that is none ends its stream', async () => {
    const { call, ended } = open();
    call.write(Buffer.alloc(100, 0xff));
    expect(await ended).toBe(status.INVALID_ARGUMENT);
    const long = open();
    long.call.write(Buffer.alloc(LIMITS.requestBytes + 1));
    expect(await long.ended).toBe(status.RESOURCE_EXHAUSTED);
  });
});
