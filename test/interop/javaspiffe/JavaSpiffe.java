import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.X509Context;
import java.util.Set;

/**
 * Uses java-spiffe, on grpc-java, as its users do, against the socket that SPIFFE_ENDPOINT_SOCKET names. It prints a line of JSON for each
 * thing that it learns: the identity of a token that the Workload API validated and java-spiffe too, then each certificate in use, verified
 * by its own bundle.
 */
public class JavaSpiffe {
  public static void main(String[] args) throws Exception {
    // Until it is ended, or for a minute.
    try (var client = DefaultWorkloadApiClient.newClient()) {
      var token = client.fetchJwtSvid("shop");
      var validated = client.validateJwtSvid(token.getToken(), "shop");
      var bundle = client.fetchJwtBundles().getBundleForTrustDomain(token.getSpiffeId().getTrustDomain());
      JwtSvid.parseAndValidate(token.getToken(), bundle, Set.of("shop"));
      System.out.printf("{\"token\":\"%s\"}%n", validated.getSpiffeId());
      client.watchX509Context(new Watcher<X509Context>() {
        @Override
        public void onUpdate(X509Context context) {
          try {
            var svid = context.getDefaultSvid();
            X509SvidValidator.verifyChain(svid.getChain(), context.getX509BundleSet());
            System.out.printf("{\"id\":\"%s\",\"serial\":\"%s\"}%n", svid.getSpiffeId(), svid.getChain().get(0).getSerialNumber().toString(16));
          } catch (Exception refused) {
            fail(refused);
          }
        }

        @Override
        public void onError(Throwable refused) {
          fail(refused);
        }
      });
      Thread.sleep(60_000);
    }
    System.exit(1);
  }

  static void fail(Throwable why) {
    why.printStackTrace();
    System.exit(1);
  }
}
